"""Which optimiser trains a small network best in a short run, each at a learning rate of its own?

    python -m jaxseg.sweep --config experiments/ablations/optimizer.py
    python -m jaxseg.sweep --config experiments/ablations/optimizer.py:folder --config.data.dir=MY_FOLDER

One U-Net, 400 steps of 8 images. Each optimiser has the best of three learning rates (`optimizer_rates.py`), chosen
on the shapes with a seed that is not among these five; the variant "folder" has them too. All have a weight decay of
1e-4: L2 with SGD, Adam and RMSprop, decoupled with the others. SGD has a momentum of .9. Muon's updates have about the
root mean square of AdamW's (`consistent_rms`).

Found on shapes: 5 seeds, after 400 steps, when all scores still rise: AdamW gives 34.25 ± 9.97 points of mIoU. RMSprop
is higher, 55.03 ± 5.33; the difference has the interval [+9.15, +32.42]. Adam (39.07 ± 7.52) and Muon (29.07 ± 9.55)
are not separable from AdamW. SGD (19.01 ± 3.09) and Lion (13.06 ± 1.89) are lower, with the intervals [-24.02, -6.46]
and [-34.17, -8.22]. The rates of RMSprop and Lion are at an end of the three that were tried. The whole table is
`benchmarks/results/ablations/optimizer/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

RATES = {"sgd": 0.1, "adam": 1e-2, "adamw": 1e-2, "rmsprop": 1e-2, "lion": 3e-4, "muon": 1e-2}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (8, 16, 32, 64), "dropout": 0.0},
        folder={"steps": 300, "eval__every": 100, "checkpoint__every": 300},
        steps=400,
        eval__every=100,
        checkpoint__every=400,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {name: {"optimizer__name": name, "optimizer__learning_rate": rate} for name, rate in RATES.items()}
    variants["muon"]["optimizer__args"] = {"consistent_rms": 0.2}
    return Sweep(variants, baseline="adamw")

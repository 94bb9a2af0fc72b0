"""At which learning rate is each optimiser best in a short run?

    python -m jaxseg.sweep --config experiments/ablations/optimizer_rates.py

The runs of `optimizer.py` with three learning rates for each optimiser, a factor of about three apart, and one seed,
which is none of those that `optimizer.py` compares. It chooses the rates there, and is no comparison of optimisers.

Found on shapes: one seed, after 400 steps: the best rates are .1 for SGD (18.38 points of mIoU), .01 for Adam (40.60),
AdamW (26.51), RMSprop (63.66) and Muon (30.61), and .0003 for Lion (12.97). Those of RMSprop and Lion are at an end of
their three, so that others may be better. The whole table is `benchmarks/results/ablations/optimizer_rates/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

RATES = {
    "sgd": (0.03, 0.1, 0.3),
    "adam": (3e-3, 1e-2, 3e-2),
    "adamw": (3e-3, 1e-2, 3e-2),
    "rmsprop": (1e-3, 3e-3, 1e-2),
    "lion": (3e-4, 1e-3, 3e-3),
    "muon": (3e-3, 1e-2, 3e-2),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (8, 16, 32, 64), "dropout": 0.0},
        steps=400,
        eval__every=100,
        checkpoint__every=400,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants, baselines = {}, {}
    for name, rates in RATES.items():
        for rate in rates:
            variants[f"{name}-{rate:g}"] = {"optimizer__name": name, "optimizer__learning_rate": rate}
            if name == "muon":
                variants[f"{name}-{rate:g}"]["optimizer__args"] = {"consistent_rms": 0.2}
            if rate != rates[1]:
                baselines[f"{name}-{rate:g}"] = f"{name}-{rates[1]:g}"
    return Sweep(variants, baselines, seeds=(5,))

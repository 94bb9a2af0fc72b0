"""What do few labels cost, and what do images without labels give back?

    python -m jaxseg.sweep --config experiments/ablations/labels.py

One U-Net and 4096 images, of which 1/64, 1/16 or 1/4 keep their labels. "first" trains on these for 1000 steps of 16
images. From its weights three variants go on for 600 steps: "labels" with the same images, and mean teacher (Tarvainen
and Valpola 2017) and FixMatch (Sohn et al. 2020) with the others too. Each seed chooses images of its own. "all" has
every label, for as many steps in all, in one schedule.

Not yet run.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

BATCH = 16
FIRST, MORE = 1000, 600
SHARES = (64, 16, 4)
TAUGHT = {"data__labelled_rows": BATCH // 2, "semi__ramp_up": 1}
METHODS = {
    "labels": {},
    "mean-teacher": {**TAUGHT, "semi__method": "mean_teacher", "semi__weight": 30.0},
    "fixmatch": {**TAUGHT, "semi__method": "fixmatch", "semi__weight": 3.0, "semi__threshold": 0.95},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (8, 16, 32, 64), "dropout": 0.0},
        data__shapes_train=4096,
        batch_size=BATCH,
        ema__decay=0.99,
        augment__zoom=(0.8, 1.25),
        steps=FIRST + MORE,
        eval__every=250,
        checkpoint__every=FIRST + MORE,
    )


def sweep() -> Sweep:
    """Returns the variants, and from which each starts."""
    variants, starts, baselines = {}, {}, {}
    for share in SHARES:
        few, first = {"data__labelled": f"1/{share}"}, f"first-1of{share}"
        variants[first] = {**few, "steps": FIRST, "checkpoint__every": FIRST}
        for method, keys in METHODS.items():
            name = f"{method}-1of{share}"
            variants[name] = {
                **few,
                **keys,
                "steps": MORE,
                "checkpoint__every": MORE,
                "eval__every": MORE,
                "optimizer__learning_rate": 5e-3,
            }
            starts[name] = first
            baselines[name] = "all" if method == "labels" else f"labels-1of{share}"
    variants["all"] = {}
    return Sweep(variants, baseline=baselines, starts=starts)

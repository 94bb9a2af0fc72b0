"""What do scribbles, points or boxes lose against full masks of the same images?

    python -m jaxseg.sweep --config experiments/ablations/weak_labels.py

One U-Net trains on 512 images for the same number of steps, on full masks and on marks that are made from them
(`data.weaken`). Scribbles, points and boxes train by cross-entropy of the pixels that they label; the inside of a box
counts as its class.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    args = {"widths": (8, 16, 32, 64), "dropout": 0.0}
    return ablation_recipe(arg, "unet", args, data__shapes_train=512, steps=500, loss__terms="cross_entropy")


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        "full": {},
        "scribbles": {"data__weaken": "scribbles"},
        "points": {"data__weaken": "points"},
        "boxes": {"data__weaken": "boxes"},
    }
    return Sweep(variants, baseline="full")

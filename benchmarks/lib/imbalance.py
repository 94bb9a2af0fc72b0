"""The sweep of `class_imbalance.py`: ways to help rare classes, each alone.

One U-Net on crops, with cross-entropy. `:camvid` is for a folder of CamVid's 11 classes at 96x128. Without it the data
are shapes, of which a disc is drawn 30 times as often as a cross.
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import ablation_recipe
from jaxseg.config.values import parse_arg
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    variant = parse_arg(arg, ("shapes", "camvid"))
    config = ablation_recipe(
        None,
        "unet",
        {"widths": (8, 16, 32, 64), "dropout": 0.0},
        data__size=(48, 48),
        data__shapes_imbalance=30.0,
        augment__crop=(32, 32),
        loss__terms="cross_entropy",
        steps=600,
        eval__every=600,
    )
    if variant == "camvid":
        update(
            config,
            data__source="folder",
            data__size=(96, 128),
            data__shapes_imbalance=1.0,
            augment__crop=(48, 64),
            steps=400,
            eval__every=400,
        )
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        "none": {},
        "median_frequency": {"loss__class_weights": "median_frequency"},
        "effective_number": {"loss__class_weights": "effective_number"},
        "logit_adjustment": {"loss__logit_adjustment": 1.0},
        "balanced_crops": {"augment__crop_balanced": 0.5},
        "rare_sampling": {"data__sampling": "rare", "data__rare_temperature": 0.1},
    }
    return Sweep(variants, baseline="none")

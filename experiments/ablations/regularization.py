"""Which regularisation helps when there are few images: dropout, decay, stochastic depth or label smoothing?

    python -m jaxseg.sweep --config experiments/ablations/regularization.py
    python -m jaxseg.sweep --config experiments/ablations/regularization.py:folder --config.data.dir=MY_FOLDER

One ResUNet, 400 steps of 8 images. The shapes have 64 training images here, so that these are 50 epochs; a folder
keeps an eighth of its labels. Images are mirrored, and not augmented else. "none" has no regularisation, "decay"
AdamW's with .1, "depth" stochastic depth, whose rate grows to .2 at the last unit, "smoothing" labels smoothed by .1
in the cross-entropy, and "all" all four.

Not yet run.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

ONE = {
    "dropout": {"model__args__dropout": 0.2},
    "decay": {"optimizer__weight_decay": 0.1},
    "depth": {"model__args__drop_path": 0.2},
    "smoothing": {"loss__label_smoothing": 0.1},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "resunet",
        {"widths": (8, 16, 32), "blocks": 2},
        folder={"data__labelled": 0.125, "steps": 400},
        data__shapes_train=64,
        optimizer__weight_decay=0.0,
        steps=400,
        eval__every=100,
        checkpoint__every=400,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    every = {key: value for changes in ONE.values() for key, value in changes.items()}
    return Sweep({"none": {}, **ONE, "all": every}, baseline="none")

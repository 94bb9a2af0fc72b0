"""Scribbles in place of masks: a U-Net learns from the pixels that a line crosses (partial cross-entropy).

    python -m jaxseg.train --config experiments/weak_labels.py
    python -m jaxseg.train --config experiments/weak_labels.py --config.data.weaken=points
    python -m jaxseg.train --config experiments/weak_labels.py:folder --config.data.dir=MY_FOLDER \
        --config.data.annotations=FILE

The scribbles are made of the masks of the data, by scikit-image (`pip install -e '.[regions]'`). A folder has
annotations of its own, which data.annotations names: points, scribbles, boxes or tags in CSV, COCO, LabelMe, CVAT or
Label Studio. docs/weak-labels.md says what each loses. This compares them on your own masks:

    python -m jaxseg.sweep --config experiments/weak_labels.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .783 (scribbles of 2048 images, 1000 steps of 32x32 pixels, one seed).
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    config = recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32, 64), "dropout": 0.0},
        full={"widths": (64, 128, 256, 512)},
        shapes_keys={
            "data__size": (32, 32),
            "data__shapes_train": 2048,
            "batch_size": 16,
            "steps": 1000,
            "optimizer__learning_rate": 1e-2,
        },
        loss__terms="cross_entropy",
    )
    if config.data.source != "folder":
        update(config, data__weaken="scribbles")
    return config


def sweep() -> Sweep:
    """Returns full masks, and what is made of them."""
    kinds = {kind: {"data__weaken": kind} for kind in ("scribbles", "points", "boxes")}
    return Sweep({"full": {"data__weaken": ""}, **kinds}, baseline="full")

"""Several classes at a pixel: a U-Net with a sigmoid for each kind of shape, also behind other shapes.

    python -m jaxseg.train --config experiments/multilabel.py
    python -m jaxseg.evaluate --workdir runs/multilabel --fit-thresholds
    python -m jaxseg.train --config experiments/multilabel.py:folder --config.data.dir=MY_FOLDER \
        --config.data.multilabel=folders

A pixel of the shapes has the kinds of all shapes that lie there, the hidden ones too, and none on the background
(data.multilabel=bits). The masks of camvid and voc have one class a pixel, of which each has a sigmoid here too.
docs/multilabel.md has the forms of masks.

Shapes validation mIoU: .827 (1,500 steps of 16 images of 32x32 pixels, seed 0), and .851 on the test split.
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    config = recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32, 64)},
        full={"widths": (32, 64, 128, 256)},
        shapes_keys={
            "data__size": (32, 32),
            "data__shapes_train": 4096,
            "steps": 1500,
            "batch_size": 16,
            "eval__every": 500,
            "checkpoint__every": 500,
            "optimizer__learning_rate": 5e-3,
        },
        data__multilabel="bits",
        loss__terms="binary_cross_entropy + dice",
    )
    if config.data.source not in ("shapes", "folder"):
        update(config, data__multilabel="", loss__terms="binary_cross_entropy")
    return config

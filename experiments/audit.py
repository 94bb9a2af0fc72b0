"""A small U-Net that is trained several times to find wrong labels, each time without one fold of the training images.

    python -m jaxseg.train --config experiments/audit.py --workdir runs/fold1 --config.data.fold=1/3
    python -m jaxseg.train --config experiments/audit.py:folder --config.data.dir=MY_FOLDER --config.data.fold=1/3

Then `jaxseg audit --workdir runs/fold1 runs/fold2 runs/fold3`, see docs/audit.md.

Shapes validation mIoU: .896 (2.4 minutes on 2 shared CPU cores; 2000 images of 32x32, all folds, one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32, 64), "dropout": 0.0},
        full={"widths": (16, 32, 64, 128)},
        shapes_keys={
            "data__size": (32, 32),
            "data__shapes_train": 2000,
            "batch_size": 16,
            "steps": 1000,
            "optimizer__learning_rate": 1e-2,
        },
    )

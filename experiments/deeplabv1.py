"""DeepLab-LargeFOV (Chen et al. 2015): VGG-16 with atrous convolutions at output stride 8 and a large field of view.

    python -m jaxseg.train --config experiments/deeplabv1.py
    python -m jaxseg.train --config experiments/deeplabv1.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv1.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .921 (13.2 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

# A small network with fine strides, for 64x64 images.
SMALL = {
    "hidden": 128,
    "rate": 4,
    "dropout": 0.1,
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": (24, 48, 64), "depths": (2, 2, 2), "output_stride": 2},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "deeplabv1", shapes=SMALL)

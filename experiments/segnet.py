"""SegNet (Badrinarayanan, Kendall and Cipolla 2017): VGG-16 and its mirror image, unpooling with the encoder's indices.

    python -m jaxseg.train --config experiments/segnet.py
    python -m jaxseg.train --config experiments/segnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/segnet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .919 (5.8 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

# A small network with fine strides, for 64x64 images.
SMALL = {"depths": (2, 2, 2), "encoder": "vgg13_bn", "encoder_args": {"channels": (24, 48, 96), "depths": (2, 2, 2)}}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "segnet", shapes=SMALL)

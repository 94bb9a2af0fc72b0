"""VGG-16 with a small convolutional head: convolutions of 32 and 16 channels, 1x1 scores, bilinear up-sampling.

    python -m jaxseg.train --config experiments/vgg_head.py
    python -m jaxseg.train --config experiments/vgg_head.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/vgg_head.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .913 (12.4 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

# A small network with fine strides, for 64x64 images.
SMALL = {"encoder": "vgg11_bn", "encoder_args": {"channels": (24, 48, 64), "depths": (2, 2, 3), "output_stride": 2}}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "vgg_head", shapes=SMALL)

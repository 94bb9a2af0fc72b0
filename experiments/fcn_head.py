"""FCN in torchvision's form: an atrous ResNet, a 3x3 convolution and scores; an auxiliary head one stage earlier.

    python -m jaxseg.train --config experiments/fcn_head.py
    python -m jaxseg.train --config experiments/fcn_head.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fcn_head.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .909 (one core, with other programs running and suspended for a while; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

# A small network with fine strides, for 64x64 images.
SMALL = {
    "width": 64,
    "aux_width": 32,
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": (24, 48, 64), "depths": (2, 2, 3), "output_stride": 2},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "fcn_head", shapes=SMALL)

"""VGG-16 with a small convolutional head: features of a classifier, conv 32, conv 16, 1x1, bilinear up-sampling.

    python -m jaxseg.train --config experiments/vgg_head.py
    python -m jaxseg.train --config experiments/vgg_head.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/vgg_head.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .913 (12.4 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data

# A small network with fine strides, for 64x64 images.
SMALL = {"encoder": "vgg11_bn", "encoder_args": {"channels": (24, 48, 64), "depths": (2, 2, 3), "output_stride": 2}}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="vgg_head", model__args=SMALL if variant == "shapes" else {})
    return config

"""FCN-8s (Long, Shelhamer and Darrell 2015): a classifier made convolutional, whose levels' scores are added.

    python -m jaxseg.train --config experiments/fcn.py
    python -m jaxseg.train --config experiments/fcn.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fcn.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .892 (6.4 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data

# A small network with fine strides, for 64x64 images.
SMALL = {
    "stride": 1,
    "hidden": 128,
    "hidden_kernel": 3,
    "dropout": 0.1,
    "encoder": "vgg13_bn",
    "encoder_args": {"channels": (32, 64, 96, 128), "depths": (2, 2, 2, 1)},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="fcn", model__args=SMALL if variant == "shapes" else {})
    return config

"""DeepLab v2 (Chen et al. 2017): atrous spatial pyramid pooling, the sum of scores at four rates.

    python -m jaxseg.train --config experiments/deeplabv2.py
    python -m jaxseg.train --config experiments/deeplabv2.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv2.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .930 (15.1 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data

# A small network with fine strides, for 64x64 images.
SMALL = {
    "rates": (1, 2, 4, 8),
    "hidden": 48,
    "dropout": 0.1,
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": (24, 48, 64), "depths": (2, 2, 2), "output_stride": 2},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="deeplabv2", model__args=SMALL if variant == "shapes" else {})
    return config

"""DeepLab v2 (Chen et al. 2017): atrous spatial pyramid pooling, which sums the scores of four rates.

    python -m jaxseg.train --config experiments/deeplabv2.py
    python -m jaxseg.train --config experiments/deeplabv2.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv2.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .930 (15.1 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

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
    return recipe(arg, "deeplabv2", shapes=SMALL)

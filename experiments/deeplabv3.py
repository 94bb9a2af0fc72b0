"""DeepLabV3 (Chen et al. 2017): atrous spatial pyramid pooling over a dilated ResNet-101 (output stride 16).

    python -m jaxseg.train --config experiments/deeplabv3.py
    python -m jaxseg.train --config experiments/deeplabv3.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv3.py:folder --config.data.dir=MY_FOLDER

Shapes images are 64x64 and output stride 16 would leave 4x4 features. A small residual encoder stops at stride 4.

Shapes validation mIoU: .923 (10.3 minutes on one core, with other programs running; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

SMALL = {
    "width": 64,
    "rates": (2, 4, 6),
    "encoder": "residual",
    "encoder_args": {"widths": (24, 48, 96), "blocks": 2},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "deeplabv3", shapes=SMALL)

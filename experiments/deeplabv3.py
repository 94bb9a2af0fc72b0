"""DeepLabV3 (Chen et al. 2017): atrous spatial pyramid pooling over a dilated ResNet-101 (output stride 16).

    python -m jaxseg.train --config experiments/deeplabv3.py
    python -m jaxseg.train --config experiments/deeplabv3.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv3.py:folder --config.data.dir=MY_FOLDER

The shapes are 64x64, where stride 16 leaves nothing: there a small residual encoder stops at stride 4.

Shapes validation mIoU: .923 (10.3 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data

SMALL = {
    "width": 64,
    "rates": (2, 4, 6),
    "encoder": "residual",
    "encoder_args": {"widths": (24, 48, 96), "blocks": 2},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="deeplabv3", model__args=SMALL if variant == "shapes" else {})
    return config

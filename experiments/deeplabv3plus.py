"""DeepLabV3+ (Chen et al. 2018): DeepLabV3 with separable convolutions and a decoder that joins finer features.

    python -m jaxseg.train --config experiments/deeplabv3plus.py
    python -m jaxseg.train --config experiments/deeplabv3plus.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/deeplabv3plus.py:folder --config.data.dir=MY_FOLDER

The shapes are 64x64, where stride 16 leaves nothing: there a small residual encoder stops at stride 8, and the decoder
joins the finest features.

Shapes validation mIoU: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import VARIANTS, for_data

SMALL = {
    "width": 64,
    "rates": (1, 2, 3),
    "low_stride": 1,
    "low_width": 16,
    "encoder": "residual",
    "encoder_args": {"widths": (16, 32, 64, 128)},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="deeplabv3plus", model__args=SMALL if variant == "shapes" else {})
    return config

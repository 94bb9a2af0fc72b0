"""Lite R-ASPP over MobileNetV3 (Howard et al. 2019): a segmenter for phones.

    python -m jaxseg.train --config experiments/lraspp.py
    python -m jaxseg.train --config experiments/lraspp.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/lraspp.py:folder --config.data.dir=MY_FOLDER

The shapes variant has a short MobileNetV3 that keeps the resolution in its stem.

Shapes validation mIoU: .905 (6.6 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data

# (kernel, expanded, channels, squeeze-and-excitation, activation, stride) of each block, at 64x64.
ROWS = (
    (3, 48, 24, False, "relu", 2), (3, 96, 24, False, "relu", 1),
    (5, 96, 48, True, "hard_swish", 2), (5, 192, 48, True, "hard_swish", 1), (5, 192, 48, True, "hard_swish", 1),
    (5, 192, 48, True, "hard_swish", 1),
)  # fmt: skip


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    small = {
        "encoder": "mobilenet_v3_small",
        "encoder_args": {"rows": ROWS, "stem_stride": 1},
        "width": 96,
        "low_stride": 2,
    }
    update(config, model__name="lraspp", model__args=small if variant == "shapes" else {})
    return config

"""Lite R-ASPP over MobileNetV3 (Howard et al. 2019): a segmenter for phones.

    python -m jaxseg.train --config experiments/lraspp.py
    python -m jaxseg.train --config experiments/lraspp.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/lraspp.py:folder --config.data.dir=MY_FOLDER

The shapes variant has a short MobileNetV3 whose stem has stride 1.

Shapes validation mIoU: .905 (6.6 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

# (kernel, expanded, channels, squeeze-and-excitation, activation, stride) of each block, for 64x64 images.
BLOCKS = (
    (3, 48, 24, False, "relu", 2),
    (3, 96, 24, False, "relu", 1),
    (5, 96, 48, True, "hard_swish", 2),
    (5, 192, 48, True, "hard_swish", 1),
    (5, 192, 48, True, "hard_swish", 1),
    (5, 192, 48, True, "hard_swish", 1),
)


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "lraspp",
        shapes={
            "encoder": "mobilenet_v3_small",
            "encoder_args": {"rows": BLOCKS, "stem_stride": 1},
            "width": 96,
            "low_stride": 2,
        },
    )

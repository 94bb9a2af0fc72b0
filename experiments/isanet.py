"""ISANet (Huang et al. 2019): attention between pixels far apart, then within blocks, over a dilated encoder.

    python -m jaxseg.train --config experiments/isanet.py
    python -m jaxseg.train --config experiments/isanet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/isanet.py:folder --config.data.dir=MY_FOLDER

The shapes variant has blocks of 4x4 pixels, as its features have 16x16.

Shapes validation mIoU: .880 (6.8 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "isanet",
        shapes={
            "width": 64,
            "key_width": 32,
            "block": 4,
            "aux_width": 32,
            "encoder": "plain",
            "encoder_args": {"widths": (24, 48, 96)},
        },
    )

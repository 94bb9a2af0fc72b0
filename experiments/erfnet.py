"""ERFNet (Romera et al. 2018): residual blocks of factorised convolutions.

    python -m jaxseg.train --config experiments/erfnet.py
    python -m jaxseg.train --config experiments/erfnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/erfnet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .648 (1.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "erfnet",
        shapes={
            "widths": (16, 32, 64),
            "blocks": 2,
            "rates": (2, 4, 8),
            "decoder_blocks": 1,
            "dropout": 0.1,
        },
    )

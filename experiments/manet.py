"""MA-Net (Fan et al. 2020): attention over the pixels at the bottom of a U, and gates of the channels on its way up.

    python -m jaxseg.train --config experiments/manet.py
    python -m jaxseg.train --config experiments/manet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/manet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .933 (10.3 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "manet",
        shapes={
            "widths": (16, 32, 64),
            "attention_width": 16,
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 96)},
        },
    )

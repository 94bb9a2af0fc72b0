"""MA-Net (Fan et al. 2020): attention over the pixels at the bottom of a U, and gates of the channels on its way up.

    python -m jaxseg.train --config experiments/manet.py
    python -m jaxseg.train --config experiments/manet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/manet.py:folder --config.data.dir=MY_FOLDER

Not yet trained. Shapes validation mIoU: not yet measured.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "manet",
        shapes={
            "widths": (16, 32),
            "attention_width": 16,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64), "blocks": 1},
        },
    )

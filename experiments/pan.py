"""PAN (Li et al. 2018): pyramid attention over a dilated encoder, and gated up-sampling.

    python -m jaxseg.train --config experiments/pan.py
    python -m jaxseg.train --config experiments/pan.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/pan.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .865 (10.8 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "pan",
        shapes={
            "width": 32,
            "finest": 1,
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 128)},
        },
    )

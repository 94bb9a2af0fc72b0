"""MA-Net (Fan et al. 2020): attention over the pixels at the bottom of a U, and gates of the channels on its way up.

    python -m jaxseg.train --config experiments/manet.py
    python -m jaxseg.train --config experiments/manet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/manet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .225 (39.8 minutes on one core, beside other programs and suspended for 28
of them; one seed). This small form, of two levels, tells the objects from the background (IoU .86), and hardly their
classes from each other (.05 to .16). The cause is not known.
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

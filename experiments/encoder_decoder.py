"""Plain encoder-decoder, without skips or residual blocks: the baseline for both.

    python -m jaxseg.train --config experiments/encoder_decoder.py
    python -m jaxseg.train --config experiments/encoder_decoder.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/encoder_decoder.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .302 (2.5 minutes on 2 shared CPU cores, one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "encoder_decoder", shapes={"widths": (32, 64)}, full={"widths": (64, 128)})

"""Plain encoder-decoder, without skips or residuals: the baseline that residual blocks are measured against.

    python -m jaxseg.train --config experiments/encoder_decoder.py
    python -m jaxseg.train --config experiments/encoder_decoder.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/encoder_decoder.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .302 (2.5 minutes on 2 shared CPU cores, one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    widths = (32, 64) if variant == "shapes" else (64, 128)
    update(config, model__name="encoder_decoder", model__args={"widths": widths})
    return config

"""U-Net (Ronneberger et al. 2015): an encoder-decoder with concatenating skips.

python -m jaxseg.train --config experiments/unet.py
python -m jaxseg.train --config experiments/unet.py:camvid --config.data.dir=PATH
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="unet")
    return config

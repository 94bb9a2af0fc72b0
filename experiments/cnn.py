"""Plain CNN: conv 32, pool, conv 64, pool, dropout, a fully convolutional classifier, bilinear up-sampling.

python -m jaxseg.train --config experiments/cnn.py
python -m jaxseg.train --config experiments/cnn.py:camvid --config.data.dir=PATH
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    update(config, model__name="cnn")
    return config

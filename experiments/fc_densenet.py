"""FC-DenseNet (Jegou et al. 2017): dense blocks down and up, each layer sees all layers of its block before it.

    python -m jaxseg.train --config experiments/fc_densenet.py
    python -m jaxseg.train --config experiments/fc_densenet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fc_densenet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .909 (21.1 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    if variant == "shapes":  # few images are seen twice: nothing for dropout to help
        args = {"layers": (2, 3, 4, 5, 4, 3, 2), "growth": 12, "stem": 16, "dropout": 0.0}
    else:
        args = {"depth": 103}
    update(config, model__name="fc_densenet", model__args=args)
    return config

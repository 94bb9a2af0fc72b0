"""LinkNet (Chaurasia and Culurciello 2017): a light decoder whose skips are added.

    python -m jaxseg.train --config experiments/linknet.py
    python -m jaxseg.train --config experiments/linknet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/linknet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .761 (5.0 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    small = {"width": 16, "finest": 1, "encoder": "residual", "encoder_args": {"widths": (16, 32, 64, 128)}}
    args = small if variant == "shapes" else {"encoder": "resnet18"}
    update(config, model__name="linknet", model__args=args)
    return config

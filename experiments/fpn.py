"""Semantic FPN (Kirillov et al. 2019): a feature pyramid whose levels are brought to one size and summed.

    python -m jaxseg.train --config experiments/fpn.py
    python -m jaxseg.train --config experiments/fpn.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fpn.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .765 (8.0 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    decoder = {"width": 32, "branch_width": 32, "finest": 1}
    small = decoder | {"encoder": "residual", "encoder_args": {"widths": (16, 32, 64, 128)}}
    args = small if variant == "shapes" else {"encoder": "resnet50"}
    update(config, model__name="fpn", model__args=args)
    return config

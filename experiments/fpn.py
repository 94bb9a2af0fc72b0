"""Semantic FPN (Kirillov et al. 2019): a feature pyramid whose levels are resized to one size and summed.

    python -m jaxseg.train --config experiments/fpn.py
    python -m jaxseg.train --config experiments/fpn.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fpn.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .929 (10.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "fpn",
        shapes={
            "width": 32,
            "branch_width": 32,
            "finest": 1,
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 128)},
        },
        full={"encoder": "resnet50"},
    )

"""Fast-SCNN (Poudel et al. 2019): shared layers that learn to down-sample, and a short context branch.

    python -m jaxseg.train --config experiments/fast_scnn.py
    python -m jaxseg.train --config experiments/fast_scnn.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fast_scnn.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .370 (12.3 minutes beside many programs, 109 seconds of CPU time; one seed). The features of an
image of 64x64 are 8x8.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "fast_scnn",
        shapes={
            "down_widths": (16, 24, 32),
            "widths": (32, 48, 64),
            "width": 64,
            "blocks": 1,
            "expansion": 3,
            "aux_width": 16,
        },
    )

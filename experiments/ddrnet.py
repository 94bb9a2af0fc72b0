"""DDRNet (Hong et al. 2021): two branches of two resolutions that exchange their features.

    python -m jaxseg.train --config experiments/ddrnet.py
    python -m jaxseg.train --config experiments/ddrnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/ddrnet.py:folder --config.data.dir=MY_FOLDER

The variants camvid, folder and voc have DDRNet-23-slim; `width=64` and `head_width=128` are DDRNet-23.

Shapes validation mIoU: .669 (19.7 minutes beside many programs, 134 seconds of CPU time; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "ddrnet",
        shapes={
            "width": 16,
            "blocks": (1, 1, 1, 1),
            "pool_width": 32,
            "head_width": 32,
        },
    )

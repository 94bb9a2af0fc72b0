"""PIDNet (Xu et al. 2023): branches for details, context and boundaries.

    python -m jaxseg.train --config experiments/pidnet.py
    python -m jaxseg.train --config experiments/pidnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/pidnet.py:folder --config.data.dir=MY_FOLDER

The loss has the boundary terms of the paper. The variants camvid, folder and voc have PIDNet-S.

Shapes validation mIoU: .364 (2.2 minutes on one core, beside other programs; one seed). Images of 64x64 leave it
8x8 features: with `--config.data.size=128,128`, the same shapes drawn larger, it reached .814.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "pidnet",
        shapes={
            "width": 16,
            "blocks": 1,
            "deep_blocks": 1,
            "pool_width": 32,
            "head_width": 32,
        },
        loss__terms="cross_entropy + dice + boundary_awareness",
    )

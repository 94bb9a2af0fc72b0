"""ENet (Paszke et al. 2016): bottlenecks of plain, atrous and factorised convolutions, and undone poolings.

    python -m jaxseg.train --config experiments/enet.py
    python -m jaxseg.train --config experiments/enet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/enet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .289 (1.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "enet",
        shapes={
            "widths": (16, 32, 64),
            "blocks": 2,
            "rates": (1, 2, 1, 4),
            "factorised": (3,),
        },
    )

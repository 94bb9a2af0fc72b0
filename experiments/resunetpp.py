"""ResUNet++ (Jha et al. 2019): residual units with gates, atrous convolutions and attention units.

    python -m jaxseg.train --config experiments/resunetpp.py
    python -m jaxseg.train --config experiments/resunetpp.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/resunetpp.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .676 (13.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg, "resunetpp", shapes={"widths": (16, 24, 32, 64), "rates": (2, 4)}, full={"widths": (16, 32, 64, 128, 256)}
    )

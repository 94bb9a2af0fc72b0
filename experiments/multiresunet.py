"""MultiResUNet (Ibtehaz and Rahman 2020): a U-Net of three convolutions side by side, with units on its skips.

    python -m jaxseg.train --config experiments/multiresunet.py
    python -m jaxseg.train --config experiments/multiresunet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/multiresunet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .860 (21.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "multiresunet", shapes={"widths": (8, 16, 32, 64)}, full={"widths": (32, 64, 128, 256, 512)})

"""U-Net (Ronneberger, Fischer and Brox 2015): an encoder-decoder with concatenating skips.

    python -m jaxseg.train --config experiments/unet.py
    python -m jaxseg.train --config experiments/unet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/unet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .916 (3.0 minutes on 2 shared CPU cores, one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "unet", shapes={"widths": (16, 32, 64, 128)}, full={"widths": (64, 128, 256, 512, 1024)})

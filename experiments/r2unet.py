"""R2U-Net (Alom et al. 2018): a U-Net of recurrent convolutions, each of which reads its own result.

    python -m jaxseg.train --config experiments/r2unet.py
    python -m jaxseg.train --config experiments/r2unet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/r2unet.py:folder --config.data.dir=MY_FOLDER

The paper's equation has two kernels for a layer: `--config.model.args.kernels=two`.

Shapes validation mIoU: .757 (7.5 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "r2unet", shapes={"widths": (8, 16, 32, 64)}, full={"widths": (64, 128, 256, 512, 1024)})

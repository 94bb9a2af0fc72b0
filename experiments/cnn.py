"""Plain CNN: convolution 32, pool, convolution 64, pool, dropout, convolutional classifier, bilinear up-sampling.

    python -m jaxseg.train --config experiments/cnn.py
    python -m jaxseg.train --config experiments/cnn.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/cnn.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .766 (1.9 minutes on 2 CPU cores, one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(arg, "cnn")

"""FC-DenseNet (Jegou et al. 2017): dense blocks, in which each layer reads all layers before it, down and up.

    python -m jaxseg.train --config experiments/fc_densenet.py
    python -m jaxseg.train --config experiments/fc_densenet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/fc_densenet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .909 (21.1 minutes on one core, with other programs running; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "fc_densenet",
        # 1500 steps show few of the shapes images twice: dropout has no use there.
        shapes={"layers": (2, 3, 4, 5, 4, 3, 2), "growth": 12, "stem": 16, "dropout": 0.0},
        full={"depth": 103},
    )

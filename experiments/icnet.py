"""ICNet (Zhao et al. 2018): three resolutions of the image, the coarsest of which passes a whole PSPNet.

    python -m jaxseg.train --config experiments/icnet.py
    python -m jaxseg.train --config experiments/icnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/icnet.py:folder --config.data.dir=MY_FOLDER

The auxiliary heads weigh .4 and .16, as in the paper. The variants camvid, folder and voc have the paper's network.

Shapes validation mIoU: .442 (4.0 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "icnet",
        shapes={"width": 16, "depths": (1, 2, 2, 1), "context_width": 64, "fuse_width": 64},
        loss__aux_weights=(0.4, 0.16),
    )

"""GCNet (Cao et al. 2019): one weighted mean over the image is added to every pixel.

    python -m jaxseg.train --config experiments/gcnet.py
    python -m jaxseg.train --config experiments/gcnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/gcnet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .897 (11.2 minutes on one core, beside other programs; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "gcnet",
        shapes={
            "width": 64,
            "aux_width": 32,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64), "blocks": 2},
        },
    )

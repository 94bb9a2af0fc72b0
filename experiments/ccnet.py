"""CCNet (Huang et al. 2019): attention to row and column, applied twice, over a dilated encoder.

    python -m jaxseg.train --config experiments/ccnet.py
    python -m jaxseg.train --config experiments/ccnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/ccnet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .900 (4.6 minutes on one core, beside other programs; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "ccnet",
        shapes={
            "width": 64,
            "aux_width": 32,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64), "blocks": 2},
        },
    )

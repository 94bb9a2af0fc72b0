"""Non-local network (Wang et al. 2018): each pixel of a dilated encoder adds a weighted mean of all.

    python -m jaxseg.train --config experiments/nonlocal_net.py
    python -m jaxseg.train --config experiments/nonlocal_net.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/nonlocal_net.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .887 (16.7 minutes on one core, beside other programs; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "nonlocal_net",
        shapes={
            "width": 64,
            "aux_width": 32,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64), "blocks": 2},
        },
    )

"""DANet (Fu et al. 2019): attention between pixels, and between channels, over a dilated encoder.

    python -m jaxseg.train --config experiments/danet.py
    python -m jaxseg.train --config experiments/danet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/danet.py:folder --config.data.dir=MY_FOLDER

Each branch has the same loss as their sum, as in the authors' release (`loss.aux_weight=1`).

Shapes validation mIoU: .884 (13.4 minutes on one core, beside other programs; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "danet",
        shapes={
            "width": 64,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64), "blocks": 2},
        },
        loss__aux_weight=1.0,
    )

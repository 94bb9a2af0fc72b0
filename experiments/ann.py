"""ANN (Zhu et al. 2019): non-local blocks whose keys and values are sampled by pyramid pooling.

    python -m jaxseg.train --config experiments/ann.py
    python -m jaxseg.train --config experiments/ann.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/ann.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .898 (7.1 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "ann",
        shapes={
            "width": 64,
            "key_width": 32,
            "bins": (1, 3, 6),
            "aux_width": 32,
            "encoder": "plain",
            "encoder_args": {"widths": (24, 48, 96)},
        },
    )

"""TransUNet (Chen et al. 2021): a vision transformer between the encoder and the decoder of a U-Net.

    python -m jaxseg.train --config experiments/transunet.py
    python -m jaxseg.train --config experiments/transunet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/transunet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .908 (9.6 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "transunet",
        shapes={
            "widths": (16, 32, 64),
            "bottom": 64,
            "width": 64,
            "depth": 2,
            "num_heads": 4,
            "grid": (8, 8),
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 64)},
        },
        full={"widths": (16, 64, 128, 256, 512)},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

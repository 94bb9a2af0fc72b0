"""Mask2Former (Cheng et al. 2022): each query predicts a class and a mask; training matches them to the true ones.

    python -m jaxseg.train --config experiments/mask2former.py
    python -m jaxseg.train --config experiments/mask2former.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/mask2former.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .670 (10.3 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "mask2former",
        shapes={
            "features": 64,
            "queries": 12,
            "layers": 3,
            "pixel_layers": 1,
            "num_heads": 4,
            "hidden": 128,
            "pixel_hidden": 128,
            "scales": 2,
            "mask_stride": 2,
            "encoder": "plain",
            "encoder_args": {"widths": (16, 32, 64, 96)},
        },
        shapes_keys={"optimizer__learning_rate": 1e-3},
        loss__terms="mask_classification",
        # The optimiser of the paper (section 4.1): AdamW, learning rate 1e-4, weight decay .05.
        optimizer__learning_rate=1e-4,
        optimizer__weight_decay=0.05,
    )

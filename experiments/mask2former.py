"""Mask2Former (Cheng et al. 2022): queries that answer with a class and a mask, trained by matching them.

    python -m jaxseg.train --config experiments/mask2former.py
    python -m jaxseg.train --config experiments/mask2former.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/mask2former.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .375 (6.2 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    # The paper's optimiser: AdamW, 1e-4, decay .05 (section 4.1).
    update(config, model__name="mask2former", loss__terms="mask_classification", optimizer__learning_rate=1e-4,
           optimizer__weight_decay=0.05)  # fmt: skip
    if variant == "shapes":
        small = {
            "features": 64,
            "queries": 12,
            "layers": 3,
            "pixel_layers": 1,
            "num_heads": 4,
            "hidden": 128,
            "pixel_hidden": 128,
            "scales": 2,
            "mask_stride": 2,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64, 96)},
        }
        update(config, model__args=small, optimizer__learning_rate=1e-3)
    return config

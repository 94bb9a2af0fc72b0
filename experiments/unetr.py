"""UNETR (Hatamizadeh et al. 2022): a U-shaped decoder over levels of a vision transformer.

    python -m jaxseg.train --config experiments/unetr.py
    python -m jaxseg.train --config experiments/unetr.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/unetr.py:folder --config.data.dir=MY_FOLDER \
        --config.model.args.encoder=vit_base_mae --config.model.encoder_weights=hf://facebook/vit-mae-base

MAE's weights are under CC BY-NC 4.0, which forbids commercial use. Without them the encoder starts at random.

Shapes validation mIoU: .245 (8.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe

DECODER = {"norm": "instance", "act": "leaky_relu"}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "unetr",
        # 64x64 images need finer patches than those of 16 pixels, and with them fewer levels.
        shapes=DECODER
        | {
            "features": 8,
            "encoder": "vit_small",
            "encoder_args": {"width": 64, "depth": 3, "num_heads": 4, "patch": 8, "grid": (8, 8), "taps": (1, 2, 3)},
        },
        full=DECODER | {"encoder": "vit_base"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

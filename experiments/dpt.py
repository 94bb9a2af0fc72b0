"""DPT (Ranftl et al. 2021): levels of a vision transformer (ViT-B; smaller on the shapes), reassembled and fused.

    python -m jaxseg.train --config experiments/dpt.py
    python -m jaxseg.train --config experiments/dpt.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/dpt.py:folder --config.data.dir=MY_FOLDER \
        --config.model.args.encoder=vit_base_dinov2 --config.model.encoder_weights=dinov2

Shapes validation mIoU: .739 (19.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "dpt",
        # 64x64 images need finer patches than those of 16 pixels.
        shapes={
            "features": 32,
            "widths": (16, 32, 64, 64),
            "encoder": "vit_small",
            "encoder_args": {"width": 64, "depth": 4, "num_heads": 4, "patch": 8, "grid": (8, 8)},
        },
        full={"encoder": "vit_base"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

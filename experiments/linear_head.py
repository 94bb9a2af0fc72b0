"""A linear head (Oquab et al. 2024, DINOv2): one classifier of the patches of a vision transformer (ViT-B/14).

    python -m jaxseg.train --config experiments/linear_head.py
    python -m jaxseg.train --config experiments/linear_head.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/linear_head.py:folder --config.data.dir=MY_FOLDER \
        --config.model.encoder_weights=dinov2 --config.optimizer.encoder_rate=0

Shapes validation mIoU: .279 (15.3 minutes on one core, beside other programs; one seed). A linear head is for
encoders that start from weights.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "linear_head",
        # 64x64 images need finer patches than those of 14 pixels.
        shapes={
            "encoder": "vit_small",
            "encoder_args": {"width": 64, "depth": 4, "num_heads": 4, "patch": 4, "grid": (16, 16)},
        },
        full={"encoder": "vit_base_dinov2"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

"""Segmenter (Strudel et al. 2021): a vision transformer (ViT-B/16), and class tokens beside its patches.

    python -m jaxseg.train --config experiments/segmenter.py
    python -m jaxseg.train --config experiments/segmenter.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/segmenter.py:folder --config.data.dir=MY_FOLDER \
        --config.model.encoder_weights=imagenet

Shapes validation mIoU: .196 (25.7 minutes on one core, beside other programs; one seed). It finds the background
and little else in these steps: a transformer of patches is for encoders that start from weights.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "segmenter",
        # 64x64 images need finer patches than those of 16 pixels.
        shapes={
            "num_heads": 4,
            "encoder": "vit_small",
            "encoder_args": {"width": 64, "depth": 4, "num_heads": 4, "patch": 4, "grid": (16, 16)},
        },
        full={"encoder": "vit_base"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

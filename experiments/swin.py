"""UPerNet over a Swin Transformer (Liu et al. 2021, Table 3): Swin-T, smaller on the shapes, with norms of the levels.

    python -m jaxseg.train --config experiments/swin.py
    python -m jaxseg.train --config experiments/swin.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/swin.py:folder --config.data.dir=MY_FOLDER \
        --config.model.encoder_weights=imagenet

Shapes validation mIoU: .526 (13.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "upernet",
        # 64x64 images need finer patches than those of strides 4 to 32, and smaller windows.
        shapes={
            "width": 24,
            "aux_width": 16,
            "finest": 2,
            "norm_features": True,
            "encoder": "swin_tiny",
            "encoder_args": {
                "widths": (24, 48, 96),
                "depths": (2, 2, 2),
                "heads": (1, 2, 4),
                "window": 4,
                "patch": 2,
                "drop_path": 0.0,
            },
        },
        full={"norm_features": True, "encoder": "swin_tiny"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

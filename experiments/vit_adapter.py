"""UPerNet over ViT-Adapter (Chen et al. 2023, Table 3): a vision transformer (ViT-B/16) beside a few convolutions.

    python -m jaxseg.train --config experiments/vit_adapter.py
    python -m jaxseg.train --config experiments/vit_adapter.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/vit_adapter.py:folder --config.data.dir=MY_FOLDER \
        --config.model.encoder_weights=imagenet

Shapes validation mIoU: .507 (13.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "upernet",
        # 64x64 images need finer patches than those of 16 pixels. Two interactions, not four, for the time of a step.
        shapes={
            "width": 24,
            "aux_width": 16,
            "finest": 2,
            "encoder": "vit_small",
            "encoder_args": {
                "width": 48,
                "depth": 4,
                "taps": (2, 4),
                "num_heads": 4,
                "patch": 8,
                "grid": (8, 8),
                "pyramid": "adapter",
                "adapter_heads": 2,
                "adapter_stem": 8,
            },
        },
        # The paper's rate of stochastic depth for ViT-B.
        full={"encoder": "vit_base", "encoder_args": {"pyramid": "adapter", "drop_path": 0.3}},
        shapes_keys={"optimizer__learning_rate": 1e-3},
    )

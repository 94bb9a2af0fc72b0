"""EoMT (Kerssies et al. 2025): queries in the last blocks of a vision transformer (DINOv2 with registers, ViT-B/14).

    python -m jaxseg.train --config experiments/eomt.py
    python -m jaxseg.train --config experiments/eomt.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/eomt.py:folder --config.data.dir=MY_FOLDER \
        --config.model.encoder_weights=dinov2

Mask annealing takes the steps from a fifth to all but a tenth of the run, of other `steps` or `epochs` too; with
`model.args.anneal_start` or `anneal_end` given, that one stays.

Shapes validation mIoU: .242 (18.1 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    config = recipe(
        arg,
        "eomt",
        # 64x64 images need finer patches than those of 14 pixels.
        shapes={
            "queries": 12,
            "blocks": 2,
            "up_steps": 1,
            "encoder": "vit_small",
            "encoder_args": {"width": 64, "depth": 4, "num_heads": 4, "patch": 4, "grid": (16, 16)},
        },
        full={"encoder": "vit_base_dinov2_reg", "blocks": 3},
        shapes_keys={"optimizer__learning_rate": 1e-3},
        loss__terms="mask_classification",
        # Learning rate and layer-wise decay of the paper (section 4.1), whose encoder starts from weights.
        optimizer__learning_rate=1e-4,
        optimizer__layer_decay=0.8,
        optimizer__weight_decay=0.05,
    )
    steps, args = config.get_ref("steps"), config.model.args  # references: both follow --config.steps
    with args.unlocked():
        args.anneal_start, args.anneal_end = steps // 5, steps * 9 // 10
    return config

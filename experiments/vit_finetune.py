"""Fine-tuning a vision transformer (DINOv2, Oquab et al. 2024) with little: five ways, first layer-wise decay.

On the shapes small networks; `decay` and `eomt` start from random values, and the others from the encoder of runs/vit:

    python -m jaxseg.train --config experiments/vit_finetune.py --workdir runs/vit
    python -m jaxseg.train --config experiments/vit_finetune.py:lora

On images of your own, at 518x518, from DINOv2's ViT-B/14 on the Hugging Face Hub:

    python -m jaxseg.train --config experiments/vit_finetune.py:lora-folder --config.data.dir=MY_FOLDER
    python -m jaxseg.train --config experiments/vit_finetune.py:decay-folder --config.data.dir=MY_FOLDER \
        --config.model.args.encoder=vit_large_dinov2

| way | network | what trains |
|---|---|---|
| `frozen` | DPT | the decoder on a frozen encoder |
| `probe` | linear head | the classifier of the patches alone |
| `decay` (default) | linear head | all, each block at .8 of the rate of the next |
| `lora` | linear head | adapters of rank 8 in all blocks, and the classifier |
| `eomt` | EoMT | all, with queries in the last blocks, at a decay of .8 |

docs/fine-tuning.md says which to take, and what each takes of memory. The rates are usual ones, not tuned here.

Shapes validation mIoU: .268 (9.0 minutes on one core, beside other programs; one seed), of the way `decay`
from random values.
"""

from typing import Any

from jaxseg.config import ConfigDict, parse_arg, update
from jaxseg.config.recipes import VARIANTS, recipe

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "decay": ("linear_head", {"optimizer__learning_rate": 1e-4, "optimizer__layer_decay": 0.8}),
    "frozen": ("dpt", {"optimizer__learning_rate": 1e-3, "optimizer__encoder_rate": 0.0}),
    "probe": ("linear_head", {"optimizer__learning_rate": 1e-3, "optimizer__train_only": ("probe",)}),
    "lora": (
        "linear_head",
        {
            "optimizer__learning_rate": 5e-4,
            "optimizer__train_only": ("probe",),
            "lora__rank": 8,
            "lora__targets": ("^encoder",),
        },
    ),
    "eomt": (
        "eomt",
        {
            "optimizer__learning_rate": 1e-4,
            "optimizer__layer_decay": 0.8,
            "loss__terms": "mask_classification",
        },
    ),
}
# 64x64 images need finer patches than those of 14 pixels.
SMALL = {
    "encoder": "vit_small",
    "encoder_args": {"width": 64, "depth": 4, "num_heads": 4, "patch": 4, "grid": (16, 16)},
}
HEADS: dict[str, dict[str, Any]] = {
    "linear_head": {},
    "dpt": {"features": 32, "widths": (16, 32, 64, 64)},
    "eomt": {"queries": 12, "blocks": 2, "up_steps": 1},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of a way, or of a way and a data set: lora, lora-folder; or a data set, for decay."""
    way, _, data = (arg or "decay").partition("-")
    if way in VARIANTS and not data:
        way, data = "decay", way
    network, keys = WAYS[parse_arg(way, tuple(WAYS))]
    config = recipe(
        data or "shapes",
        network,
        shapes={**HEADS[network], **SMALL},
        full={"encoder": "vit_base_dinov2_reg" if way == "eomt" else "vit_base_dinov2"},
        optimizer__weight_decay=0.05,
        **keys,
    )
    if config.data.source == "shapes":
        update(config, optimizer__learning_rate=1e-3)
        if way not in ("decay", "eomt"):  # what is frozen has to know something
            update(config, model__encoder_weights="runs/vit", data__shapes_train=64)
    else:
        update(config, model__encoder_weights="dinov2")
    if config.data.source == "folder":
        update(config, data__size=(518, 518))
    if way == "eomt":
        steps, args = config.get_ref("steps"), config.model.args  # references: both follow --config.steps
        with args.unlocked():
            args.anneal_start, args.anneal_end = steps // 5, steps * 9 // 10
    return config

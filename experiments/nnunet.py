"""nnU-Net (Isensee et al. 2021): a U-Net by the size of the patch, with its loss, schedule and augmentation.

    python -m jaxseg.train --config experiments/nnunet.py
    python -m jaxseg.train --config experiments/nnunet.py:folder --config.data.dir=MY_FOLDER
    python -m jaxseg.train --config experiments/nnunet.py:folder --config.data.dir=MY_FOLDER \
        --config.model.args.unit=residual
    python -m jaxseg.train --config experiments/nnunet.py:small --config.data.dir=MY_FOLDER

unit=residual is the encoder of ResEnc (Isensee et al. 2024). The variant small is a folder resized to 64x64 pixels and
a narrow network, for a first look on a CPU. docs/medical.md says what differs from nnU-Net.

Shapes validation mIoU: .260 (4.6 minutes on one core, beside other programs; one seed). Its optimiser is made for
250,000 steps: with the default one, and flips, zoom and light alone as augmentation, it reached .515.
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import VARIANTS, recipe
from jaxseg.config.values import parse_arg
from jaxseg.models.nnunet_topology import stage_widths, supervision_weights, topology

PATCHES = {"shapes": (64, 64), "camvid": (320, 320), "folder": (256, 256), "voc": (320, 320), "small": (64, 64)}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc, small."""
    variant = parse_arg(arg, (*VARIANTS, "small"))
    patch = PATCHES[variant]
    plan = topology(patch)
    stages = len(plan.factors)
    widths = stage_widths(stages, 8 if patch == (64, 64) else 32)
    first, *others = supervision_weights(stages - 1)
    config = recipe(
        "folder" if variant == "small" else variant,
        "nnunet",
        shapes={"widths": widths, "norm": "instance", "act": "leaky_relu"},
        full={"widths": widths, "norm": "instance", "act": "leaky_relu"},
        optimizer__name="sgd",
        optimizer__learning_rate=1e-2,
        optimizer__momentum=0.99,
        optimizer__args={"nesterov": True},
        optimizer__weight_decay=3e-5,
        optimizer__clip=12.0,
        schedule__name="poly",
        schedule__power=0.9,
        schedule__warmup=0,
        loss__terms=f"{first:.4f} * cross_entropy + {first:.4f} * dice",
        loss__aux_weights=tuple(weight / first for weight in others),
        loss__args={"dice": {"squared": False, "smooth": 1e-5, "include_background": False}},
        augment__flip_horizontal=0.5,
        augment__flip_vertical=0.5,
        augment__zoom=(0.7, 1.4),
        augment__shear=0.0,
        augment__rotate=180.0,
        augment__brightness=0.25,
        augment__contrast=0.25,
        augment__saturation=0.0,
        augment__gamma=(0.7, 1.5),
        augment__blur=1.0,
        augment__low_resolution=0.5,
        augment__noise=0.08,
    )
    if variant == "small":
        update(config, data__size=patch, steps=400, eval__every=400, checkpoint__every=400)
    return config

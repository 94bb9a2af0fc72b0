"""Which encoder?

    python -m jaxseg.sweep --config experiments/ablations/encoder.py

A small form of every family of encoders under one Semantic FPN, which reads their strides 4, 8 and 16: two or three
stages of a few blocks, without stochastic depth, and 234,000 to 274,000 parameters with the decoder, within a tenth of
the baseline's. A vision transformer has patches of 8 pixels and the simple feature pyramid behind it. All batch norms
have a momentum of .9, so that running statistics follow a short run. 300 steps of 8 images of 64x64 pixels.

All have one learning rate, 3e-3. In one trial of 150 steps without augmentation it was as good on the training images
as 1e-2 for `resnet`, and better for `mobilenet_v3`, `convnext`, `vit` and `swin`, and for `swin` better than 1e-3.
Others may be better at another rate.

This shows what learns soonest from random weights at one learning rate. It does not rank the published networks: depth,
size of the images and pretraining are what they are made for, and none of it is here.

Found on shapes: one seed (`--seeds=0`). After 300 steps only `plain` with 65.33 and `vgg` with 57.00, whose levels are
halved by max-pooling, find the classes. All others are between 11.45 (`swin_v2`) and 29.87 (`densenet`), where a
network that finds nothing but the background reaches 10.2. Why was not tried: `residual`, 21.48, has convolutions of
the whole image too. In `plot.png` all losses still fall near the end but that of `swin_v2`, which hardly moves. The
whole table is `benchmarks/results/ablations/encoder/table.md`.
"""

from typing import Any

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

_REGNET = {"blocks": 6, "initial": 40, "factor": 2.0, "group_width": 8, "stem": 16}
_STAGES = {"widths": (32, 48, 80), "heads": (1, 2, 4), "depths": (1, 2, 2), "drop_path": 0.0}
_VIT = {"width": 64, "depth": 3, "num_heads": 4, "patch": 8, "grid": (8, 8), "pyramid_width": 24}

# Each variant: the encoder whose form it has, and what makes that small.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {"widths": (8, 16, 40, 64, 88)}),
    "vgg": ("vgg11_bn", {"channels": (16, 32, 64, 96), "depths": (1, 1, 2, 2)}),
    "residual": ("residual", {"widths": (8, 16, 40, 64, 80)}),
    "resnet": ("resnet18", {"widths": (16, 24, 40, 64), "depths": (2, 2, 2)}),
    "resnet_bottleneck": ("resnet26", {"widths": (16, 64, 128, 224), "depths": (2, 2, 2)}),
    "resnet_d": ("resnet18d", {"widths": (16, 24, 40, 64), "depths": (2, 2, 2)}),
    "resnext": ("resnext50_32x4d", {"widths": (16, 64, 128, 208), "depths": (2, 2, 2), "groups": 8}),
    "seresnet": ("seresnet18", {"widths": (16, 24, 40, 64), "depths": (2, 2, 2)}),
    "densenet": ("densenet121", {"layers": (3, 5, 5), "growth": 16, "stem": 32}),
    "regnet_x": ("regnet_x_400mf", _REGNET | {"slope": 20.0}),
    "regnet_y": ("regnet_y_400mf", _REGNET | {"slope": 19.0}),
    "mobilenet_v2": ("mobilenet_v2", {"rows": ((6, 24, 2, 2), (6, 40, 2, 2), (6, 72, 3, 2)), "last": None}),
    "mobilenet_v3": (
        "mobilenet_v3_small",
        {
            "rows": (
                (3, 48, 24, True, "relu", 2),
                (3, 96, 32, False, "relu", 2),
                (3, 128, 32, False, "relu", 1),
                (5, 192, 64, True, "hard_swish", 2),
                (5, 256, 64, True, "hard_swish", 1),
                (5, 256, 64, True, "hard_swish", 1),
            ),
            "last": False,
        },
    ),
    "mobilenet_v4": (
        "mobilenet_v4_conv_small",
        {
            "rows": (
                (0, 3, 2, 0, 24),
                (0, 1, 1, 0, 24),
                (0, 3, 2, 0, 48),
                (0, 1, 1, 0, 40),
                (5, 5, 2, 3, 88),
                (0, 3, 1, 2, 88),
                (0, 3, 1, 4, 88),
                (3, 0, 1, 4, 88),
            ),
            "stem": 16,
        },
    ),
    "efficientnet": (
        "efficientnet_b0",
        {"rows": ((1, 3, 16, 1, 1), (6, 3, 24, 1, 2), (6, 5, 40, 2, 2), (6, 3, 64, 3, 2)), "stem": 16, "drop": 0.0},
    ),
    "efficientnet_lite": (
        "efficientnet_lite0",
        {"rows": ((1, 3, 16, 1, 1), (6, 3, 24, 1, 2), (6, 5, 40, 2, 2), (6, 3, 72, 3, 2)), "stem": 16, "drop": 0.0},
    ),
    "efficientnet_v2": (
        "efficientnet_v2_s",
        {
            "rows": ((1, 3, 16, 1, 1, True), (4, 3, 24, 1, 2, True), (4, 3, 40, 2, 2, True), (4, 3, 64, 3, 2)),
            "stem": 16,
            "drop": 0.0,
        },
    ),
    "convnext": ("convnext_tiny", {"widths": (24, 48, 88), "depths": (2, 2, 2), "drop": 0.0}),
    "convnext_v2": ("convnextv2_atto", {"widths": (24, 48, 88), "depths": (2, 2, 2), "drop": 0.0}),
    "xception": ("xception41", {"entry": ((48, 2), (96, 2)), "middle": 2, "exit": (128, 128, 128), "stem": 24}),
    "stdc": ("stdc1", {"widths": (16, 32, 112, 184), "depths": (2, 2)}),
    "hrnet": ("hrnet_w18", {"width": 12, "stem": 16, "bottlenecks": 1, "modules": (1, 1), "blocks": 2}),
    "mscan": ("mscan_tiny", {"widths": (24, 40, 64), "depths": (1, 2, 2), "mlp_ratios": (4, 4, 4), "drop_path": 0.0}),
    "mit": ("mit_b0", _STAGES | {"widths": (24, 40, 64), "reductions": (4, 2, 1)}),
    "pvt_v2": ("pvt_v2_b0", _STAGES | {"widths": (16, 32, 64), "reductions": (4, 2, 1), "mlp_ratios": (8, 8, 4)}),
    "swin": ("swin_tiny", _STAGES | {"widths": (32, 48, 72), "window": 4}),
    "swin_v2": ("swinv2_tiny", _STAGES | {"widths": (32, 48, 72), "window": 4}),
    "maxvit": (
        "maxvit_tiny",
        {"widths": (16, 24, 40, 64), "depths": (1, 1, 1), "head_width": 8, "window": 4, "drop_path": 0.0},
    ),
    "hiera": ("sam2_hiera_tiny", _STAGES | {"windows": (4, 4, 4), "whole": (5,)}),
    "vit": ("vit_small", _VIT),
    "vit_dinov2": ("vit_small_dinov2", _VIT),
    "vit_dinov3": ("vit_small_dinov3", _VIT),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "fpn",
        {"width": 32, "branch_width": 32, "smooth": False, "branch_norm": "same", "norm_args": {"momentum": 0.9}},
        data__size=(64, 64),
        optimizer__learning_rate=3e-3,
        steps=300,
        eval__every=300,
        checkpoint__every=300,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        name: {"model__args__encoder": encoder, "model__args__encoder_args": fields}
        for name, (encoder, fields) in ENCODERS.items()
    }
    return Sweep(variants, baseline="resnet", seeds=(0, 1, 2))

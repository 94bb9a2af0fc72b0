"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

from flax import linen as nn

from jaxseg import models
from jaxseg.nn import Conv

_VGG = {
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": [4, 8], "depths": [1, 2], "use_bias": False},
}
# Blocks of a MobileNetV3, one of each kind.
_ROWS = [[3, 8, 8, False, "relu", 2], [3, 12, 8, True, "hard_swish", 1], [5, 16, 12, True, "hard_swish", 2]]

_MSCAN = {"widths": [4, 6], "depths": [1, 1], "mlp_ratios": [2, 2], "strips": [3, 5]}
_VIT = {"width": 8, "depth": 2, "num_heads": 2, "patch": 4, "grid": [2, 3], "taps": [1, 2], "pyramid_width": 4}
ADAPTER = {"encoder": "vit_base", "encoder_args": _VIT | {"pyramid": "adapter", "adapter_stem": 4}}
"""A ViT-Adapter in place of a network's own encoder: `tiny("fpn", **ADAPTER)`; levels of strides 1, 2, 4 and 8."""

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "ann": {
        "width": 8,
        "key_width": 4,
        "bins": [1, 3],
        "aux_width": 4,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "attention_unet": {"widths": [4, 8, 8], "gate_finest": True},
    "autoencoder": {"widths": [4, 8, 8]},
    "bisenetv1": {
        "spatial_width": 4,
        "context_width": 4,
        "width": 8,
        "head_width": 4,
        "aux_width": 4,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 4, 4, 8]},
    },
    "bisenetv2": {
        "detail_widths": [4, 4, 8],
        "semantic_widths": [4, 4, 6, 8],
        "layers": [1, 1, 2],
        "expansion": 2,
        "head_width": 8,
        "aux_width": 4,
    },
    "ccnet": {"width": 8, "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "danet": {"width": 8, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "dcgan": {"size": 16, "width": 8, "latent": 5},
    "ddrnet": {"width": 4, "blocks": [1, 1, 1, 1], "pool_width": 4, "head_width": 4},
    "deeplabv1": {**_VGG, "hidden": 8},
    "deeplabv2": {**_VGG, "hidden": 8, "rates": [1, 2]},
    "deeplabv3": {
        "width": 16,
        "aux_width": 4,
        "head_conv": True,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6]},
    },
    "deeplabv3plus": {"width": 16, "low_stride": 2, "encoder": "residual", "encoder_args": {"widths": [4, 6, 8]}},
    "dpt": {
        "features": 8,
        "widths": [4, 6, 8],
        "encoder": "vit_base_dinov2_reg",
        "encoder_args": {**_VIT, "depth": 3, "taps": [1, 2, 3]},
    },
    "encnet": {"encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}, "width": 6, "codewords": 3},
    "encoder_decoder": {"widths": [4, 8]},
    "eomt": {
        "queries": 6,
        "blocks": 1,
        "up_steps": 1,
        "encoder": "vit_base_dinov2_reg",
        "encoder_args": _VIT | {"width": 16},
    },
    "enet": {"widths": [4, 8, 8], "blocks": 1, "rates": [1, 2, 1], "factorised": [3]},
    "erfnet": {"widths": [4, 8, 8], "blocks": 1, "rates": [2], "decoder_blocks": 1},
    "fast_scnn": {
        "down_widths": [4, 4, 6],
        "widths": [6, 8, 10],
        "width": 8,
        "blocks": 2,
        "expansion": 2,
        "bins": [1, 2],
        "aux_width": 4,
    },
    "fc_densenet": {"layers": [1, 2, 1, 2, 1], "growth": 3, "stem": 4},
    "fcn": {
        **_VGG,
        "encoder_args": _VGG["encoder_args"] | {"levels": "convolved"},
        "stride": 1,
        "hidden": 8,
        "hidden_kernel": 3,
        "last_up": "learned",
    },
    "fcn_head": {"width": 8, "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 8]}},
    "fpn": {"width": 8, "branch_width": 4, "finest": 1, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "gcnet": {"width": 8, "ratio": 2, "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "icnet": {"width": 4, "depths": [1, 1, 1, 1], "bins": [1, 2], "context_width": 8, "fuse_width": 8},
    "isanet": {
        "width": 8,
        "key_width": 4,
        "block": 3,
        "aux_width": 4,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "knet": {
        "width": 12,
        "bins": [1, 2],
        "finest": 1,
        "rounds": 2,
        "num_heads": 2,
        "hidden": 8,
        "aux_width": 4,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "linear_head": {"levels": 2, "encoder": "vit_base", "encoder_args": _VIT},
    "linknet": {"width": 12, "finest": 1, "encoder": "residual", "encoder_args": {"widths": [12, 24, 48]}},
    "lraspp": {
        "width": 8,
        "encoder": "mobilenet_v3_small",
        "encoder_args": {"rows": _ROWS, "stem": 4, "divisor": 4, "stem_stride": 1},
        "low_stride": 2,
    },
    "manet": {
        "widths": [4, 6],
        "attention_width": 4,
        "reduction": 1,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "mask2former": {
        "features": 8,
        "queries": 6,
        "layers": 2,
        "pixel_layers": 1,
        "num_heads": 2,
        "hidden": 8,
        "pixel_hidden": 8,
        "scales": 2,
        "mask_stride": 1,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "nonlocal_net": {"width": 8, "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "multiresunet": {"widths": [4, 8, 8]},
    "nnunet": {"widths": [4, 4, 8, 8]},
    "ocrnet": {"width": 8, "key_width": 4, "encoder": "residual", "encoder_args": {"widths": [4, 8]}},
    "pan": {"width": 4, "finest": 1, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "pidnet": {"width": 4, "blocks": 1, "deep_blocks": 1, "pool_width": 4, "head_width": 4},
    "pointrend": {
        "width": 8,
        "branch_width": 4,
        "finest": 2,
        "hidden": 8,
        "layers": 2,
        "points": 12,
        "refined_points": 24,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "pp_liteseg": {
        "widths": [4, 4, 6],
        "context_width": 8,
        "bins": [1, 2],
        "head_width": 4,
        "aux_width": 4,
        "encoder": "stdc1",
        "encoder_args": {"depths": [1, 1, 1], "widths": [4, 4, 8, 8, 16]},
    },
    "pspnet": {"width": 8, "bins": [1, 2], "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 24]}},
    "r2unet": {"widths": [4, 8]},
    "resunet": {"widths": [4, 8, 8]},
    "resunetpp": {"widths": [4, 8, 8], "rates": [2]},
    "segformer": {
        "features": 8,
        "encoder": "mit_b0",
        "encoder_args": {"widths": [4, 8], "depths": [1, 2], "heads": [1, 2], "reductions": [2, 1], "steps": [2, 2]},
    },
    "segmenter": {"depth": 1, "num_heads": 2, "encoder": "vit_base", "encoder_args": _VIT},
    "segnet": {**_VGG, "depths": [1, 2]},
    "segnext": {
        "width": 8,
        "rank": 3,
        "finest": 4,
        "encoder": "mscan_tiny",
        "encoder_args": _MSCAN,
    },
    "stdc": {
        "context_width": 4,
        "width": 8,
        "detail_width": 4,
        "aux_width": 4,
        "encoder": "stdc1",
        "encoder_args": {"depths": [1, 2, 1], "widths": [4, 4, 16, 16, 16]},
    },
    "transunet": {
        "widths": [4, 6, 8],
        "bottom": 8,
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "grid": [2, 3],
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6, 8]},
    },
    "u2net": {"widths": [4, 8, 8], "mids": [4, 4, 4], "finest_mid": 4, "heights": [3, 2]},
    "unet": {"widths": [4, 8, 8]},
    "unetplusplus": {"widths": [4, 8, 8], "deep_supervision": True},
    "unetr": {"features": 4, "encoder": "vit_base", "encoder_args": _VIT},
    "upernet": {"width": 12, "aux_width": 4, "finest": 1, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "vgg_head": {**_VGG, "widths": [8, 8]},
}

_MIT = {"widths": [4, 6, 8, 8], "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4]}
_HIERA = {"widths": [4, 8], "depths": [1, 2], "heads": [1, 2], "windows": [2, 2], "whole": [3], "grid": [2, 3]}
_SWIN = {"widths": [4, 8], "depths": [2, 1], "heads": [1, 2], "window": 2, "patch": 2}
_MAXVIT = {"widths": [4, 4, 8], "depths": [1, 2], "head_width": 2, "window": 2, "expansion": 2, "mlp_ratio": 2}
_VITS = [
    f"vit_{size}{form}" for size in ("small", "base", "large") for form in ("", "_dinov2", "_dinov2_reg", "_dinov3")
]
_VITS += [f"vit_{size}_{form}" for size in ("base", "large") for form in ("clip", "mae", "siglip2")]
_HRNET = {"width": 4, "stem": 4, "bottlenecks": 1, "modules": [1, 1], "blocks": 1}
_EFFICIENTNET = {"width": 1.0, "depth": 1.0, "rows": [[1, 3, 4, 1, 1], [6, 5, 8, 2, 2]], "stem": 4, "divisor": 4}
_FUSED = [[1, 3, 4, 1, 1, True], [2, 3, 6, 2, 2, True], [2, 3, 8, 1, 2]]
_EFFICIENTNET_V2 = {"rows": _FUSED, "stem": 4, "divisor": 2, "last": True, "features": 8}
_V2_SIZES = ("atto", "femto", "pico", "nano", "tiny", "base", "large")
_MOBILENET_V4 = {
    "rows": [["fused", 3, 2, 2, 4], [0, 3, 2, 0, 6], [3, 3, 1, 2, 6], [3, 0, 1, 2, 6]],
    "stem": 4,
    "divisor": 2,
}
_REGNET = {"blocks": 4, "initial": 8, "slope": 8.0, "factor": 2.0, "group_width": 4, "stem": 4}
_REGNET_SIZES = ("400mf", "600mf", "800mf", "1_6gf", "3_2gf", "4gf", "6_4gf", "8gf", "12gf", "16gf")

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    "convnext_base": {"widths": [4, 6], "depths": [1, 2]},
    "convnext_large": {"widths": [4, 6], "depths": [1, 2]},
    "convnext_small": {"widths": [4, 6], "depths": [1, 2], "output_norm": True},
    "convnext_tiny": {"widths": [4, 6], "depths": [1, 2], "layer_scale": 0.1},
    **{f"convnextv2_{s}": {"widths": [4, 6], "depths": [1, 2]} for s in _V2_SIZES},
    **{f"densenet{n}": {"layers": [1, 2, 1], "growth": 3, "stem": 4} for n in (121, 161, 169, 201)},
    **{f"efficientnet_b{i}": _EFFICIENTNET for i in range(8)},
    **{f"efficientnet_lite{i}": {**_EFFICIENTNET, "features": None} for i in range(5)},
    **{f"efficientnet_v2_{size}": _EFFICIENTNET_V2 for size in "sml"},
    "hrnet_w48": {**_HRNET, "stem_stride": 2},
    **{f"hrnet_w{width}": _HRNET for width in (18, 32)},
    **{f"maxvit_{size}": _MAXVIT for size in ("small", "base", "large")},
    "maxvit_tiny": _MAXVIT | {"form": "torchvision", "trained_window": 1},
    **{f"mit_b{i}": _MIT for i in range(6)},
    "mobilenet_v2": {"rows": [[6, 8, 2, 2], [2, 12, 1, 2]], "stem": 8, "last": 16, "divisor": 4},
    "mobilenet_v3_large": {"rows": _ROWS, "stem": 4, "divisor": 4, "tap": "first"},
    "mobilenet_v3_small": {"rows": _ROWS, "stem": 4, "divisor": 4, "stem_stride": 1},
    **{f"mobilenet_v4_conv_{size}": _MOBILENET_V4 for size in ("small", "medium", "large")},
    **{f"mscan_{size}": _MSCAN for size in ("tiny", "small", "base", "large")},
    "plain": {"widths": [4, 6, 8]},
    **{f"pvt_v2_b{i}": _MIT | {"mlp_ratios": [2, 2, 1, 1]} for i in range(6)},
    **{f"regnet_{kind}_{size}": _REGNET for kind in "xy" for size in _REGNET_SIZES},
    "residual": {"widths": [4, 6, 8]},
    "resnet200d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet26": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet26d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet101": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet101d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet152d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet152": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet18": {"depths": [1, 2], "widths": [4, 6, 8]},
    "resnet18d": {"depths": [1, 2, 1, 1], "widths": [4, 4, 8, 8, 8], "output_stride": 16},
    "resnet34": {"depths": [1, 1], "widths": [4, 4, 8]},
    "resnet34d": {"depths": [1, 1], "widths": [4, 4, 8]},
    "resnet50": {"depths": [1, 1, 1, 2], "widths": [4, 8, 8, 12, 16], "output_stride": 8},
    "resnet50_three_stages": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet50d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnext101_32x8d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "resnext50_32x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "resnext101_32x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "resnext101_64x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "resnext50d_32x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "seresnet152d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnext101_32x8d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "seresnext50_32x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "seresnet101": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnet152": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnet18": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnet34": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnet50": {"depths": [1, 1], "widths": [4, 8, 8]},
    **{f"sam2_hiera_{size}": _HIERA for size in ("tiny", "small", "base_plus", "large")},
    **{f"swin_{size}": _SWIN for size in ("tiny", "small", "base", "large")},
    **{f"swinv2_{size}": _SWIN for size in ("tiny", "small", "base")},
    "swinv2_large": _SWIN | {"trained_windows": [2, 1]},
    **{f"stdc{n}": {"depths": [2, 1], "widths": [2, 4, 16, 16]} for n in (1, 2)},
    **{f"tf_efficientnet_b{i}": {**_EFFICIENTNET, "last": True} for i in range(8)},
    **{f"tf_efficientnet_v2_{size}": _EFFICIENTNET_V2 for size in "sml"},
    **{f"vgg{n}": {"channels": [4, 6, 8], "depths": [1, 2, 1]} for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": {"channels": [4, 6, 8], "depths": [1, 1, 2], "output_stride": 4} for n in (11, 13, 16, 19)},
    **{name: _VIT | ({"width": 16} if "dinov3" in name else {}) for name in _VITS},
    "wide_resnet101_2": {"depths": [1, 1], "widths": [4, 8, 8]},
    "wide_resnet50_2": {"depths": [1, 1], "widths": [4, 8, 8]},
    **{f"xception{n}": {"entry": [[4, 2]], "middle": 1, "exit": [6, 6, 8], "stem": 4} for n in (41, 65, 71)},
}


def tiny(name: str, num_classes: int = 5, **fields) -> nn.Module:
    """Returns the tiny network of this name; `fields` replace its own."""
    return models.build(name, num_classes=num_classes, **TINY[name] | fields)


class Backbone(nn.Module):
    """A pyramid that starts at stride 2 and keeps its resolution once, as an atrous network does."""

    strides = (2, 4, 4)
    norm: object = None
    act: object = None
    dtype: object = None

    @nn.compact
    def __call__(self, x, *, train=False):
        one = Conv(4, stride=2, name="a")(x)
        two = Conv(6, stride=2, name="b")(one)
        return one, two, Conv(8, name="c")(two)

"""The encoders by name: the file and the class of each, and the fields that the name fixes."""

from typing import Any

# Convolutions of the five stages (Simonyan and Zisserman 2015, Table 1: configurations A, B, D, E).
_VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_BASIC = {"block": "basic", "widths": (64, 64, 128, 256, 512)}  # ResNet-18 and 34
_GATES_OF_8: dict[str, Any] = {"squeeze_excite": True, "squeeze_divisor": 8}
_D = {"deep_stem": True, "average_shortcut": True}  # the -D form
# Multipliers of EfficientNet B0 to B7 (torchvision's), the first five of them those of Lite0 to Lite4.
_SCALES: tuple[dict[str, Any], ...] = tuple(
    {"width": width, "depth": depth}
    for width, depth in ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))
)
_EFFICIENTNET = tuple(fields | ({"epsilon": 1e-3} if n > 4 else {}) for n, fields in enumerate(_SCALES))
_LITE: dict[str, Any] = {"fixed_ends": True, "squeeze": False, "act": "relu6", "features": 1280}
_OF_TENSORFLOW: dict[str, Any] = {"epsilon": 1e-3, "padding": "same"}
_EFFICIENTNET_V2: dict[str, dict[str, Any]] = {
    size: {"variant": f"v2_{size}", "stem": stem, "features": 1280, "epsilon": 1e-3}
    for size, stem in (("s", 24), ("m", 24), ("l", 32))
}
# Width of the first stage and depths of ConvNeXt V2 (Woo 2023, appendix A.1).
_CONVNEXT_V2 = {
    "atto": (40, (2, 2, 6, 2)),
    "femto": (48, (2, 2, 6, 2)),
    "pico": (64, (2, 2, 6, 2)),
    "nano": (80, (2, 2, 8, 2)),
    "tiny": (96, (3, 3, 9, 3)),
    "base": (128, (3, 3, 27, 3)),
    "large": (192, (3, 3, 27, 3)),
}
# Blocks, w_0, w_a, w_m and group width of RegNets (Radosavovic 2020, Tables 2 and 4, and their released models).
_REGNET = {
    "x_400mf": (22, 24, 24.48, 2.54, 16),
    "x_600mf": (16, 48, 36.97, 2.24, 24),
    "x_800mf": (16, 56, 35.73, 2.28, 16),
    "x_1_6gf": (18, 80, 34.01, 2.25, 24),
    "x_3_2gf": (25, 88, 26.31, 2.25, 48),
    "x_4gf": (23, 96, 38.65, 2.43, 40),
    "x_6_4gf": (17, 184, 60.83, 2.07, 56),
    "x_8gf": (23, 80, 49.56, 2.88, 120),
    "x_12gf": (19, 168, 73.36, 2.37, 112),
    "x_16gf": (22, 216, 55.59, 2.1, 128),
    "y_400mf": (16, 48, 27.89, 2.09, 8),
    "y_600mf": (15, 48, 32.54, 2.32, 16),
    "y_800mf": (14, 56, 38.84, 2.4, 16),
    "y_1_6gf": (27, 48, 20.71, 2.65, 24),
    "y_3_2gf": (21, 80, 42.63, 2.66, 24),
    "y_4gf": (22, 96, 31.41, 2.24, 64),
    "y_6_4gf": (25, 112, 33.22, 2.27, 72),
    "y_8gf": (17, 192, 76.82, 2.19, 56),
    "y_12gf": (19, 168, 73.36, 2.37, 112),
    "y_16gf": (18, 200, 106.23, 2.48, 112),
}
_REGNET_FIELDS = ("blocks", "initial", "slope", "factor", "group_width")
_SWIN: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"depths": (2, 2, 18, 2)},
    "base": {"widths": (128, 256, 512, 1024), "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
    "large": {"widths": (192, 384, 768, 1536), "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48)},
}
_SWIN_V2: dict[str, Any] = {"v2": True, "window": 8}
# There are published weights of windows of 12x12 pixels, fine-tuned with 16x16, and none of 8x8.
_SWIN_V2_LARGE: dict[str, Any] = {"v2": True, "window": 16, "trained_windows": (12, 12, 12, 6)}
_HIERA: dict[str, dict[str, Any]] = {
    size: {"widths": (96, 192, 384, 768), "heads": (1, 2, 4, 8), "grid": (7, 7), "depths": depths, "whole": whole}
    for size, depths, whole in (("tiny", (1, 2, 7, 2), (6, 8, 10)), ("small", (1, 2, 11, 2), (8, 11, 14)))
}
_HIERA["base_plus"] = {}
_HIERA["large"] = {
    "widths": (144, 288, 576, 1152),
    "depths": (2, 6, 36, 4),
    "whole": (24, 34, 44),
    "windows": (8, 4, 16, 8),
    "grid": (7, 7),
}
# Channels of the stem and of the first stage, depths and stochastic depth of MaxViT (Tu 2022, Table 1; authors' code).
_MAXVIT: dict[str, dict[str, Any]] = {
    size: {"widths": (stem, *(width * 2**i for i in range(4))), "depths": depths, "drop_path": drop}
    for size, stem, width, depths, drop in (
        ("tiny", 64, 64, (2, 2, 5, 2), 0.2),
        ("small", 64, 96, (2, 2, 5, 2), 0.3),
        ("base", 64, 96, (2, 6, 14, 2), 0.4),
        ("large", 128, 128, (2, 6, 14, 2), 0.6),
    )
}
_MIT = {"widths": (64, 128, 320, 512), "heads": (1, 2, 5, 8)}
# Depths, widths and hidden widths of PVTv2 B0 to B5 (Wang 2022, Table 1).
_PVT_V2 = tuple(
    {"widths": widths, "heads": (1, 2, 5, 8), "depths": depths, "mlp_ratios": ratios}
    for depths, widths, ratios in (
        ((2, 2, 2, 2), (32, 64, 160, 256), (8, 8, 4, 4)),
        ((2, 2, 2, 2), _MIT["widths"], (8, 8, 4, 4)),
        ((3, 4, 6, 3), _MIT["widths"], (8, 8, 4, 4)),
        ((3, 4, 18, 3), _MIT["widths"], (8, 8, 4, 4)),
        ((3, 8, 27, 3), _MIT["widths"], (8, 8, 4, 4)),
        ((3, 6, 40, 3), _MIT["widths"], (4, 4, 4, 4)),
    )
)
_MSCAN = {"widths": (64, 128, 320, 512)}
_VIT: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "num_heads": 6},
    "base": {},
    "large": {"width": 1024, "num_heads": 16, "depth": 24},
}
_DINOV2: dict[str, Any] = {"patch": 14, "grid": (37, 37), "layer_scale": 1.0}
_DINOV3: dict[str, Any] = {
    "position": "rotary",
    "registers": 4,
    "key_bias": False,
    "layer_scale": 1.0,
    "epsilon": 1e-5,
}
_CLIP: dict[str, Any] = {"pre_norm": True, "patch_bias": False, "act": "quick_gelu", "epsilon": 1e-5}
_SIGLIP2: dict[str, Any] = {"class_token": False, "act": "gelu_tanh"}


def _vits() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The vision transformers: each pretraining has its form, and CLIP's and SigLIP 2's large ones their own grids."""
    forms = {
        "vit_{}": {size: {} for size in _VIT},
        "vit_{}_dinov2": {size: _DINOV2 for size in _VIT},
        "vit_{}_dinov2_reg": {size: _DINOV2 | {"registers": 4, "antialias": True} for size in _VIT},
        "vit_{}_dinov3": {size: _DINOV3 for size in _VIT},
        "vit_{}_mae": {"base": {}, "large": {}},
        "vit_{}_clip": {"base": _CLIP, "large": _CLIP | {"patch": 14, "grid": (16, 16)}},
        "vit_{}_siglip2": {"base": _SIGLIP2, "large": _SIGLIP2 | {"grid": (16, 16)}},
    }
    rows = ((name.format(size), _VIT[size] | form) for name, sizes in forms.items() for size, form in sizes.items())
    return {name: ("vit", "ViT", fields) for name, fields in rows}


# Name -> (file in this folder, class, fields that the name fixes).
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "convnext_base": (
        "convnext",
        "ConvNeXt",
        {"widths": (128, 256, 512, 1024), "depths": (3, 3, 27, 3), "drop": 0.5},
    ),
    "convnext_large": (
        "convnext",
        "ConvNeXt",
        {"widths": (192, 384, 768, 1536), "depths": (3, 3, 27, 3), "drop": 0.5},
    ),
    "convnext_small": ("convnext", "ConvNeXt", {"depths": (3, 3, 27, 3), "drop": 0.4}),
    "convnext_tiny": ("convnext", "ConvNeXt", {}),
    **{
        f"convnextv2_{size}": (
            "convnext",
            "ConvNeXt",
            {"widths": tuple(width * 2**i for i in range(4)), "depths": depths, "response_norm": True},
        )
        for size, (width, depths) in _CONVNEXT_V2.items()
    },
    "densenet121": ("densenet", "DenseNet", {}),
    "densenet161": ("densenet", "DenseNet", {"layers": (6, 12, 36, 24), "growth": 48, "stem": 96}),
    "densenet169": ("densenet", "DenseNet", {"layers": (6, 12, 32, 32)}),
    "densenet201": ("densenet", "DenseNet", {"layers": (6, 12, 48, 32)}),
    **{f"efficientnet_b{n}": ("efficientnet", "EfficientNet", fields) for n, fields in enumerate(_EFFICIENTNET)},
    **{
        f"efficientnet_lite{n}": ("efficientnet", "EfficientNet", _SCALES[n] | _LITE | _OF_TENSORFLOW) for n in range(5)
    },
    **{f"efficientnet_v2_{size}": ("efficientnet", "EfficientNet", rows) for size, rows in _EFFICIENTNET_V2.items()},
    "hrnet_w18": ("hrnet", "HRNet", {"width": 18}),
    "hrnet_w32": ("hrnet", "HRNet", {"width": 32}),
    "hrnet_w48": ("hrnet", "HRNet", {"width": 48}),
    **{f"maxvit_{size}": ("maxvit", "MaxViT", fields) for size, fields in _MAXVIT.items()},
    "mit_b0": ("mit", "MixTransformer", {}),
    "mit_b1": ("mit", "MixTransformer", _MIT),
    "mit_b2": ("mit", "MixTransformer", _MIT | {"depths": (3, 4, 6, 3)}),
    "mit_b3": ("mit", "MixTransformer", _MIT | {"depths": (3, 4, 18, 3)}),
    "mit_b4": ("mit", "MixTransformer", _MIT | {"depths": (3, 8, 27, 3)}),
    "mit_b5": ("mit", "MixTransformer", _MIT | {"depths": (3, 6, 40, 3)}),
    "mobilenet_v2": ("mobilenet", "MobileNetV2", {}),
    "mobilenet_v3_large": ("mobilenet", "MobileNetV3", {"variant": "large"}),
    "mobilenet_v3_small": ("mobilenet", "MobileNetV3", {"variant": "small"}),
    "mobilenet_v4_conv_large": ("mobilenet_v4", "MobileNetV4", {"variant": "large", "stem": 24}),
    "mobilenet_v4_conv_medium": ("mobilenet_v4", "MobileNetV4", {"variant": "medium"}),
    "mobilenet_v4_conv_small": ("mobilenet_v4", "MobileNetV4", {}),
    "mscan_base": ("mscan", "MSCAN", _MSCAN | {"depths": (3, 3, 12, 3)}),
    "mscan_large": ("mscan", "MSCAN", _MSCAN | {"depths": (3, 5, 27, 3), "drop_path": 0.3}),
    "mscan_small": ("mscan", "MSCAN", _MSCAN | {"depths": (2, 2, 4, 2)}),
    "mscan_tiny": ("mscan", "MSCAN", {}),
    "plain": ("plain", "PlainEncoder", {}),
    **{f"pvt_v2_b{n}": ("mit", "MixTransformer", fields) for n, fields in enumerate(_PVT_V2)},
    **{
        f"regnet_{name}": ("regnet", "RegNet", dict(zip(_REGNET_FIELDS, values)) | {"gated": name[0] == "y"})
        for name, values in _REGNET.items()
    },
    "residual": ("residual", "ResidualEncoder", {}),
    "resnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3)}),
    "resnet101d": ("resnet", "ResNet", _D | {"depths": (3, 4, 23, 3)}),
    "resnet152": ("resnet", "ResNet", {"depths": (3, 8, 36, 3)}),
    "resnet152d": ("resnet", "ResNet", _D | {"depths": (3, 8, 36, 3)}),
    "resnet200d": ("resnet", "ResNet", _D | {"depths": (3, 24, 36, 3)}),
    "resnet26": ("resnet", "ResNet", {"depths": (2, 2, 2, 2)}),
    "resnet26d": ("resnet", "ResNet", _D | {"depths": (2, 2, 2, 2)}),
    "resnet18": ("resnet", "ResNet", _BASIC | {"depths": (2, 2, 2, 2)}),
    "resnet18d": ("resnet", "ResNet", _BASIC | _D | {"depths": (2, 2, 2, 2)}),
    "resnet34": ("resnet", "ResNet", _BASIC),
    "resnet34d": ("resnet", "ResNet", _BASIC | _D),
    "resnet50": ("resnet", "ResNet", {}),
    # Of hybrids (Dosovitskiy 2021, "An Image is Worth 16x16 Words", section 4.1): stage 3 has the units of stage 4 too.
    "resnet50_three_stages": ("resnet", "ResNet", {"depths": (3, 4, 9), "widths": (64, 256, 512, 1024)}),
    "resnet50d": ("resnet", "ResNet", _D),
    "resnext101_32x4d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 2}),
    "resnext101_64x4d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 64, "ratio": 1}),
    "resnext101_32x8d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 1}),
    "resnext50_32x4d": ("resnet", "ResNet", {"groups": 32, "ratio": 2}),
    "resnext50d_32x4d": ("resnet", "ResNet", _D | {"groups": 32, "ratio": 2}),
    "seresnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "squeeze_excite": True}),
    "seresnet152": ("resnet", "ResNet", {"depths": (3, 8, 36, 3), "squeeze_excite": True}),
    "seresnet152d": ("resnet", "ResNet", _D | {"depths": (3, 8, 36, 3), "squeeze_excite": True}),
    "seresnet18": ("resnet", "ResNet", _BASIC | _GATES_OF_8 | {"depths": (2, 2, 2, 2)}),
    "seresnet34": ("resnet", "ResNet", _BASIC | _GATES_OF_8),
    "seresnet50": ("resnet", "ResNet", {"squeeze_excite": True}),
    "seresnext101_32x8d": (
        "resnet",
        "ResNet",
        {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 1, "squeeze_excite": True},
    ),
    "seresnext50_32x4d": ("resnet", "ResNet", {"groups": 32, "ratio": 2, "squeeze_excite": True}),
    **{f"sam2_hiera_{size}": ("hiera", "Hiera", fields) for size, fields in _HIERA.items()},
    **{f"swin_{size}": ("swin", "SwinTransformer", fields) for size, fields in _SWIN.items()},
    **{f"swinv2_{size}": ("swin", "SwinTransformer", _SWIN[size] | _SWIN_V2) for size in ("tiny", "small", "base")},
    "swinv2_large": ("swin", "SwinTransformer", _SWIN["large"] | _SWIN_V2_LARGE),
    "stdc1": ("stdc", "STDC", {}),
    "stdc2": ("stdc", "STDC", {"depths": (4, 5, 3)}),
    **{
        f"tf_efficientnet_b{n}": ("efficientnet", "EfficientNet", fields | _OF_TENSORFLOW)
        for n, fields in enumerate(_SCALES)
    },
    **{
        f"tf_efficientnet_v2_{size}": ("efficientnet", "EfficientNet", fields | _OF_TENSORFLOW)
        for size, fields in _EFFICIENTNET_V2.items()
    },
    **{
        f"vgg{layers}{norm}": ("vgg", "VGG", {"depths": depths, "use_norm": norm == "_bn"})
        for layers, depths in _VGG_DEPTHS.items()
        for norm in ("", "_bn")
    },
    **_vits(),
    "wide_resnet101_2": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "ratio": 2}),
    "wide_resnet50_2": ("resnet", "ResNet", {"ratio": 2}),
    "xception41": ("xception", "Xception", {}),
    "xception65": ("xception", "Xception", {"middle": 16}),
    "xception71": (
        "xception",
        "Xception",
        {"entry": ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), "middle": 16},
    ),
}

"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

_VGG = {
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": [4, 8], "depths": [1, 2], "use_bias": False},
}

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "deeplabv3": {
        "width": 16,
        "aux_width": 4,
        "head_conv": True,
        "encoder": "plain",
        "encoder_args": {"widths": [4, 6]},
    },
    "deeplabv3plus": {"width": 16, "low_width": 4, "encoder": "residual", "encoder_args": {"widths": [4, 6, 8, 8]}},
    "deeplabv1": {**_VGG, "hidden": 8},
    "deeplabv2": {**_VGG, "hidden": 8, "rates": [1, 2]},
    "encoder_decoder": {"widths": [4, 8]},
    "fcn": {**_VGG, "stride": 1, "hidden": 8, "hidden_kernel": 3, "last_up": "learned"},
    "fcn_head": {"width": 8, "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 8]}},
    "fpn": {"width": 8, "branch_width": 4, "finest": 1, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
    "linknet": {"width": 12, "finest": 1, "encoder": "residual", "encoder_args": {"widths": [12, 24, 48]}},
    "pspnet": {"width": 8, "bins": [1, 2], "aux_width": 4, "encoder": "plain", "encoder_args": {"widths": [4, 24]}},
    "resunet": {"widths": [4, 8, 8]},
    "segnet": {**_VGG, "depths": [1, 2]},
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
    "segformer": {
        "features": 8,
        "encoder": "mit_b0",
        "encoder_args": {"widths": [4, 8], "depths": [1, 2], "heads": [1, 2], "reductions": [2, 1], "steps": [2, 2]},
    },
    "unet": {"widths": [4, 8, 8]},
    "vgg_head": {**_VGG, "widths": [8, 8]},
    "unetplusplus": {"widths": [4, 8, 8], "deep_supervision": True},
    "upernet": {"width": 12, "aux_width": 4, "finest": 1, "encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}},
}

_MIT = {"widths": [4, 6, 8, 8], "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4]}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    **{f"mit_b{i}": _MIT for i in range(6)},
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
    **{f"vgg{n}": {"channels": [4, 6, 8], "depths": [1, 2, 1]} for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": {"channels": [4, 6, 8], "depths": [1, 1, 2], "output_stride": 4} for n in (11, 13, 16, 19)},
    "resnet18": {"depths": [1, 2], "widths": [4, 6, 8]},
    "resnet34": {"depths": [1, 1], "widths": [4, 4, 8]},
    "resnet50": {"depths": [1, 1, 1, 2], "widths": [4, 8, 8, 12, 16], "output_stride": 8},
    "resnet101": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet152": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet18d": {"depths": [1, 2, 1, 1], "widths": [4, 4, 8, 8, 8], "output_stride": 16},
    "resnet34d": {"depths": [1, 1], "widths": [4, 4, 8]},
    "resnet50d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnet101d": {"depths": [1, 1], "widths": [4, 8, 8]},
    "resnext50_32x4d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "resnext101_32x8d": {"depths": [1, 1], "widths": [4, 8, 16], "groups": 2},
    "seresnet50": {"depths": [1, 1], "widths": [4, 8, 8]},
    "seresnet101": {"depths": [1, 1], "widths": [4, 8, 8]},
    "wide_resnet50_2": {"depths": [1, 1], "widths": [4, 8, 8]},
    "wide_resnet101_2": {"depths": [1, 1], "widths": [4, 8, 8]},
}

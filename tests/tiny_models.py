"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "attention_unet": {"widths": [4, 8, 8], "gate_finest": True},
    "autoencoder": {"widths": [4, 8, 8]},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "encnet": {"encoder": "plain", "encoder_args": {"widths": [4, 6, 8]}, "width": 6, "codewords": 3},
    "encoder_decoder": {"widths": [4, 8]},
    "fc_densenet": {"layers": [1, 2, 1, 2, 1], "growth": 3, "stem": 4},
    "resunet": {"widths": [4, 8, 8]},
    "unet": {"widths": [4, 8, 8]},
}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
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

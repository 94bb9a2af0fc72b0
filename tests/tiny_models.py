"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

_VGG = {
    "encoder": "vgg11_bn",
    "encoder_args": {"channels": [4, 8], "depths": [1, 2], "use_bias": False},
}

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "deeplabv1": {**_VGG, "hidden": 8},
    "deeplabv2": {**_VGG, "hidden": 8, "rates": [1, 2]},
    "encoder_decoder": {"widths": [4, 8]},
    "fcn": {**_VGG, "stride": 1, "hidden": 8, "hidden_kernel": 3, "last_up": "learned"},
    "resunet": {"widths": [4, 8, 8]},
    "segnet": {**_VGG, "depths": [1, 2]},
    "unet": {"widths": [4, 8, 8]},
    "vgg_head": {**_VGG, "widths": [8, 8]},
}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
    **{f"vgg{n}": {"channels": [4, 6, 8], "depths": [1, 2, 1]} for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": {"channels": [4, 6, 8], "depths": [1, 1, 2], "output_stride": 4} for n in (11, 13, 16, 19)},
}

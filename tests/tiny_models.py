"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "encoder_decoder": {"widths": [4, 8]},
    "resunet": {"widths": [4, 8, 8]},
    "unet": {"widths": [4, 8, 8]},
}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
    **{f"vgg{n}": {"channels": [4, 6, 8], "depths": [1, 2, 1]} for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": {"channels": [4, 6, 8], "depths": [1, 1, 2], "output_stride": 4} for n in (11, 13, 16, 19)},
}

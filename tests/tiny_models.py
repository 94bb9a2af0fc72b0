"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "attention_unet": {"widths": [4, 8, 8], "gate_finest": True},
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
}

"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "encoder_decoder": {"widths": [4, 8]},
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
    "resunet": {"widths": [4, 8, 8]},
    "segformer": {
        "features": 8,
        "encoder": "mit_b0",
        "encoder_args": {"widths": [4, 8], "depths": [1, 2], "heads": [1, 2], "reductions": [2, 1], "steps": [2, 2]},
    },
    "unet": {"widths": [4, 8, 8]},
}

_MIT = {"widths": [4, 6, 8, 8], "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 4]}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    **{f"mit_b{i}": _MIT for i in range(6)},
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
}

"""Arguments that make every architecture and encoder tiny, for tests of what they all promise."""

# Blocks of a MobileNetV3, one of each kind.
_ROWS = [[3, 8, 8, False, "relu", 2], [3, 12, 8, True, "hard_swish", 1], [5, 16, 12, True, "hard_swish", 2]]

# One line a name: `models.build(name, num_classes=..., **TINY[name])`.
TINY = {
    "attention_decoder": {"widths": [4, 8, 8], "num_heads": 2},
    "cnn": {"widths": [4, 8], "hidden": 8, "hidden_kernel": 3},
    "encoder_decoder": {"widths": [4, 8]},
    "lraspp": {
        "width": 8,
        "encoder": "mobilenet_v3_small",
        "encoder_args": {"rows": _ROWS, "stem": 4, "divisor": 4, "stem_stride": 1},
        "low_stride": 2,
    },
    "ocrnet": {"width": 8, "key_width": 4, "encoder": "residual", "encoder_args": {"widths": [4, 8]}},
    "resunet": {"widths": [4, 8, 8]},
    "unet": {"widths": [4, 8, 8]},
}

_HRNET = {"width": 4, "stem": 4, "bottlenecks": 1, "modules": [1, 1], "blocks": 1}
_EFFICIENTNET = {"width": 1.0, "depth": 1.0, "rows": [[1, 3, 4, 1, 1], [6, 5, 8, 2, 2]], "stem": 4, "divisor": 4}

# `encoders.build(name, **ENCODERS[name])`.
ENCODERS = {
    "convnext_tiny": {"widths": [4, 6], "depths": [1, 2], "layer_scale": 0.1},
    "convnext_small": {"widths": [4, 6], "depths": [1, 2], "output_norm": True},
    "convnext_base": {"widths": [4, 6], "depths": [1, 2]},
    "convnext_large": {"widths": [4, 6], "depths": [1, 2]},
    **{f"efficientnet_b{i}": _EFFICIENTNET for i in range(8)},
    **{f"hrnet_w{width}": _HRNET for width in (18, 32)},
    "hrnet_w48": {**_HRNET, "stem_stride": 2},
    "mobilenet_v2": {"rows": [[6, 8, 2, 2], [2, 12, 1, 2]], "stem": 8, "last": 16, "divisor": 4},
    "mobilenet_v3_large": {"rows": _ROWS, "stem": 4, "divisor": 4, "tap": "first"},
    "mobilenet_v3_small": {"rows": _ROWS, "stem": 4, "divisor": 4, "stem_stride": 1},
    "plain": {"widths": [4, 6, 8]},
    "residual": {"widths": [4, 6, 8]},
}

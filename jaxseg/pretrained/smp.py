"""Rules for whole networks of segmentation_models_pytorch (0.5, 0.6), from the rules of their encoder.

`FORMS[name]` are the fields that give our `name` the form of theirs; widths go from coarse to fine there and from fine
to coarse here. The encoder's rules are relative to the encoder, as `jaxseg.pretrained.resnet.torchvision()` has them.

Theirs refuse images whose sides are no multiples of the encoder's stride (but `Unet`); ours pads or resizes them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxseg.pretrained.rules import Rule, Transform, conv, conv_transpose, layer, norm, prefixed

_UNET = {"up": "nearest", "full_resolution": True, "full_skip": False, "head_kernel": 3}
FORMS: dict[str, dict[str, Any]] = {
    "fpn": {"smooth": False, "align_corners": True, "dropout": 0.2},
    "linknet": {"finest": 2, "up_kernel": 4, "ending": "block"},
    "pspnet": {"fuse_kernel": 1, "head_kernel": 3, "norm_single": False, "dropout": 0.2, "aux_width": None},
    "unet": _UNET | {"widths": (16, 32, 64, 128, 256)},
    "unetplusplus": _UNET | {"widths": (16, 32, 64, 128, 256)},
    "upernet": {"width": 256, "norm_features": True, "align_corners": True, "aux_width": None},
}


def unet(encoder: Iterable[Rule], levels: int = 5, added: int = 1) -> list[Rule]:
    """`Unet`.

    Args:
        encoder: rules of the encoder.
        levels: its levels of stride 2 and more, without those of no channels.
        added: halvings between its finest level of them and the image.
    """
    last = levels - 2 + added
    rules = _center()
    for b in range(last + 1):
        name = f"full{last - b}" if last - b < added else f"stage{last - b - added}"
        rules += _convs(rf"decoder\.blocks\.{b}", f"decoder/{name}")
    return [*_encoder(encoder), *rules, *_head()]


def unetplusplus(encoder: Iterable[Rule], levels: int = 5) -> list[Rule]:
    """`UnetPlusPlus`, whose x_{d}_{l} is the node X^{i,j} with i = levels - 2 - l and j = l - d + 1."""
    bottom = levels - 1
    rules = [*_center(), *_convs(rf"decoder\.blocks\.x_0_{bottom}", "decoder/full0")]
    for row in range(bottom):
        for column in range(row + 1):
            node = f"node{bottom - 1 - row}_{row - column + 1}"
            rules += _convs(rf"decoder\.blocks\.x_{column}_{row}", f"decoder/{node}")
    return [*_encoder(encoder), *rules, *_head()]


def fpn(encoder: Iterable[Rule]) -> list[Rule]:
    """`FPN`: always four levels, p2 to p5."""
    rules = layer(r"decoder\.p5", "decoder/lateral3")
    for i in range(4):
        rules += layer(rf"decoder\.p{i + 2}\.skip_conv", f"decoder/lateral{i}")
        for n in range(max(1, i)):
            rules += _conv_norm(rf"decoder\.seg_blocks\.{3 - i}\.block\.{n}\.block", f"branch{i}/conv{n + 1}")
    return [*_encoder(encoder), *rules, *_head()]


def linknet(encoder: Iterable[Rule], levels: int = 5) -> list[Rule]:
    """`Linknet`."""
    rules = []
    for b in range(levels):
        theirs, ours = rf"decoder\.blocks\.{b}\.block\.", f"block{levels - 1 - b}" if b < levels - 1 else "full0"
        rules += _conv_norm(rf"{theirs}0", f"{ours}/reduce")
        rules += layer(rf"{theirs}1\.0", f"{ours}/up/up", conv_transpose) + norm(rf"{theirs}1\.1", f"{ours}/up/norm")
        rules += _conv_norm(rf"{theirs}2", f"{ours}/expand")
    return [*_encoder(encoder), *rules, *_head()]


def pspnet(encoder: Iterable[Rule], bins: Sequence[int] = (1, 2, 3, 6)) -> list[Rule]:
    """`PSPNet`. It reads the encoder's level of stride 8 by default; the stages after it are left out."""
    rules = []
    for i, side in enumerate(bins):
        rules += _conv_norm(rf"decoder\.psp\.blocks\.{i}\.pool\.1", f"pyramid/bin{side}")
    rules += _conv_norm(r"decoder\.conv", "fuse", _halves_exchanged)
    return [*_encoder(encoder), *rules, *_head()]


def upernet(encoder: Iterable[Rule], levels: int = 4, bins: Sequence[int] = (1, 2, 3, 6)) -> list[Rule]:
    """`UPerNet`; `levels` are the encoder's of stride 4 and more."""
    rules = _conv_norm(r"decoder\.psp\.out_conv", "decoder/bottleneck")
    for i, side in enumerate(bins):
        rules += _conv_norm(rf"decoder\.psp\.blocks\.{i}\.1", f"decoder/pyramid/bin{side}")
    for i in range(levels - 1):
        theirs = levels - 2 - i
        rules += _conv_norm(rf"decoder\.fpn_lateral_blocks\.{theirs}\.conv_norm_relu", f"decoder/lateral{i}")
        rules += _conv_norm(rf"decoder\.fpn_conv_blocks\.{theirs}", f"decoder/smooth{i}")
    rules += [*norm(r"decoder\.feature_norms\.(\d+)", "decoder/norm{1}")]
    rules += _conv_norm(r"decoder\.fusion_block", "decoder/fuse")
    return [*_encoder(encoder), *rules, *_head()]


def _encoder(rules: Iterable[Rule]) -> list[Rule]:
    return prefixed(rules, r"encoder\.", "encoder")


def _head() -> list[Rule]:
    return layer(r"segmentation_head\.0", "head")


def _conv_norm(pattern: str, path: str, weight: Transform = conv) -> list[Rule]:
    """A `Conv2dReLU`: a `ConvNormAct` here."""
    return [*layer(rf"{pattern}\.0", f"{path}/conv", weight), *norm(rf"{pattern}\.1", f"{path}/norm")]


def _convs(pattern: str, path: str) -> list[Rule]:
    """conv1 and conv2 of a decoder block."""
    return _conv_norm(rf"{pattern}\.conv1", f"{path}/conv1") + _conv_norm(rf"{pattern}\.conv2", f"{path}/conv2")


def _center() -> list[Rule]:
    """The convolutions at the bottom that theirs has for a VGG."""
    return _conv_norm(r"decoder\.center\.0", "center/conv1") + _conv_norm(r"decoder\.center\.1", "center/conv2")


def _halves_exchanged(x: np.ndarray) -> np.ndarray:
    """Theirs puts the grids before the encoder's channels, of which there are as many; ours after them."""
    return np.roll(conv(x), x.shape[1] // 2, axis=2)

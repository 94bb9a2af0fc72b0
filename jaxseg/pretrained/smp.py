"""Rules for whole networks of segmentation_models_pytorch (0.5, 0.6), from the rules and strides of their encoder.

`jaxseg.pretrained.forms` has the fields that give our networks the form of theirs; widths go from coarse to fine there
and from fine to coarse here. The encoder's rules are relative to the encoder, as `jaxseg.pretrained.resnet.torchvision`
has them. Stages of the encoder beyond the network's are left out: a shallower network of theirs keeps them unused.

Theirs refuse images whose sides are no multiples of the encoder's stride (but `Unet`); ours pads or resizes them.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxseg.pretrained.rules import Rule, conv, conv_transpose, layer, norm, prefixed, sequence

STRIDES = (2, 4, 8, 16, 32)
_STAGES = 4  # of a ResNet, after its stem, and of a MiT


def unet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """`Unet`; `strides` are those of the encoder's levels, of which those of the image's own size take no part."""
    levels, added = _levels(strides)
    last = levels - 2 + added
    rules = _center()
    for b in range(last + 1):
        name = f"full{last - b}" if last - b < added else f"stage{last - b - added}"
        rules += _convs(rf"decoder\.blocks\.{b}", f"decoder/{name}")
    return [*_encoder(encoder, strides), *rules, *_head()]


def unetplusplus(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """`UnetPlusPlus`, whose x_{d}_{l} is the node X^{i,j} with i = levels - 2 - l and j = l - d + 1."""
    levels, added = _levels(strides)
    bottom, rules = levels - 1, _center()
    for i in range(added):
        rules += _convs(rf"decoder\.blocks\.x_0_{bottom + i}", f"decoder/full{added - 1 - i}")
    for row in range(bottom):
        for column in range(row + 1):
            node = f"node{bottom - 1 - row}_{row - column + 1}"
            rules += _convs(rf"decoder\.blocks\.x_{column}_{row}", f"decoder/{node}")
    return [*_encoder(encoder, strides), *rules, *_head()]


def fpn(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """`FPN`: always four levels, p2 to p5."""
    rules = layer(r"decoder\.p5", "decoder/lateral3")
    for i in range(4):
        rules += layer(rf"decoder\.p{i + 2}\.skip_conv", f"decoder/lateral{i}")
        for n in range(max(1, i)):
            rules += sequence(rf"decoder\.seg_blocks\.{3 - i}\.block\.{n}\.block", f"branch{i}/conv{n + 1}")
    return [*_encoder(encoder, strides), *rules, *_head()]


def linknet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """`Linknet`."""
    levels, added = _levels(strides)
    last, rules = levels - 2 + added, []
    for b in range(last + 1):
        ours = f"full{last - b}" if last - b < added else f"block{last - b - added + 1}"
        theirs = rf"decoder\.blocks\.{b}\.block\."
        rules += sequence(rf"{theirs}0", f"{ours}/reduce")
        rules += layer(rf"{theirs}1\.0", f"{ours}/up/up", conv_transpose) + norm(rf"{theirs}1\.1", f"{ours}/up/norm")
        rules += sequence(rf"{theirs}2", f"{ours}/expand")
    return [*_encoder(encoder, strides), *rules, *_head()]


def pspnet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES, bins: Sequence[int] = (1, 2, 3, 6)) -> list[Rule]:
    """`PSPNet`. It reads the encoder's level of stride 8 by default, the third (encoder_depth=3)."""
    rules = []
    for i, side in enumerate(bins):
        rules += sequence(rf"decoder\.psp\.blocks\.{i}\.pool\.1", f"pyramid/bin{side}")
    rules += sequence(r"decoder\.conv", "fuse", _halves_exchanged)
    return [*_encoder(encoder, strides), *rules, *_head()]


def upernet(
    encoder: Iterable[Rule], strides: Sequence[int] = STRIDES, bins: Sequence[int] = (1, 2, 3, 6)
) -> list[Rule]:
    """`UPerNet`, which takes the encoder's levels of stride 4 and more."""
    levels = sum(stride >= 4 for stride in strides)
    rules = sequence(r"decoder\.psp\.out_conv", "decoder/bottleneck")
    for i, side in enumerate(bins):
        rules += sequence(rf"decoder\.psp\.blocks\.{i}\.1", f"decoder/pyramid/bin{side}")
    for i in range(levels - 1):
        theirs = levels - 2 - i
        rules += sequence(rf"decoder\.fpn_lateral_blocks\.{theirs}\.conv_norm_relu", f"decoder/lateral{i}")
        rules += sequence(rf"decoder\.fpn_conv_blocks\.{theirs}", f"decoder/smooth{i}")
    rules += [*norm(r"decoder\.feature_norms\.(\d+)", "decoder/norm{1}")]
    rules += sequence(r"decoder\.fusion_block", "decoder/fuse")
    return [*_encoder(encoder, strides), *rules, *_head()]


def _levels(strides: Sequence[int]) -> tuple[int, int]:
    """Returns the number of levels that their decoders walk up, and of halvings between the finest and the image."""
    halved = [stride for stride in strides if stride > 1]
    return len(halved), halved[0].bit_length() - 1


def _encoder(rules: Iterable[Rule], strides: Sequence[int]) -> list[Rule]:
    levels = len(strides)  # a ResNet's are its stem and its stages, a MiT's are its stages
    beyond = [Rule(rf"encoder\.layer{n}\..*", None) for n in range(levels, _STAGES + 1)]
    beyond += [Rule(rf"encoder\.(?:patch_embed|block|norm){n}\..*", None) for n in range(levels + 1, _STAGES + 1)]
    return [*beyond, *prefixed(rules, r"encoder\.(?:model\.)?", "encoder")]  # "model" holds those of timm ("tu-...")


def _head() -> list[Rule]:
    return [*layer(r"segmentation_head\.0", "head"), Rule(r"classification_head\..*", None)]


def _convs(pattern: str, path: str) -> list[Rule]:
    """conv1 and conv2 of a decoder block."""
    return sequence(rf"{pattern}\.conv1", f"{path}/conv1") + sequence(rf"{pattern}\.conv2", f"{path}/conv2")


def _center() -> list[Rule]:
    """The convolutions at the bottom that theirs has for a VGG."""
    return sequence(r"decoder\.center\.0", "center/conv1") + sequence(r"decoder\.center\.1", "center/conv2")


def _halves_exchanged(x: np.ndarray) -> np.ndarray:
    """Theirs puts the grids before the encoder's channels, of which there are as many; ours after them."""
    return np.roll(conv(x), x.shape[1] // 2, axis=2)

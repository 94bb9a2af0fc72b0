"""Whole networks of segmentation_models.pytorch (0.5, 0.6), over the rules and strides of their encoder.

The encoder's rules are relative to the encoder, as `jaxseg.pretrained.resnet.torchvision()` returns them; `strides` are
those of its levels. Stages of the encoder that the network does not use are left out: a network of theirs with a
smaller `encoder_depth` keeps them in its files. Their decoders list widths from coarse to fine, ours from fine to
coarse.

Theirs (except `Unet`) refuse images whose sides are not multiples of the encoder's stride; ours pad or resize them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxseg.models import encoders
from jaxseg.pretrained.family import SMP, Family, NetworkFormat, PeerForm
from jaxseg.pretrained.rules import Rule, conv, conv_norm, conv_transpose, dense, layer, norm, prefixed, sequence

STRIDES = (2, 4, 8, 16, 32)
_STAGES = 4  # of a ResNet, after its stem, and of a MiT


def unet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """Rules of `Unet`, which does not use levels of stride 1."""
    levels, added = _levels(strides)
    last = levels - 2 + added
    rules = _center()
    for b in range(last + 1):
        name = f"full{last - b}" if last - b < added else f"stage{last - b - added}"
        rules += _convs(rf"decoder\.blocks\.{b}", f"decoder/{name}")
    return [*_encoder(encoder, strides), *rules, *_head()]


def unetplusplus(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """Rules of `UnetPlusPlus`, whose x_{d}_{l} is the node X^{i,j} with i = levels - 2 - l and j = l - d + 1."""
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
    """Rules of `FPN`, which always has four levels, p2 to p5."""
    rules = layer(r"decoder\.p5", "decoder/lateral3")
    for i in range(4):
        rules += layer(rf"decoder\.p{i + 2}\.skip_conv", f"decoder/lateral{i}")
        for n in range(max(1, i)):
            rules += sequence(rf"decoder\.seg_blocks\.{3 - i}\.block\.{n}\.block", f"branch{i}/conv{n + 1}")
    return [*_encoder(encoder, strides), *rules, *_head()]


def linknet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """Rules of `Linknet`."""
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
    """Rules of `PSPNet`. By default it reads the third level of the encoder, of stride 8 (encoder_depth=3)."""
    rules = []
    for i, side in enumerate(bins):
        rules += sequence(rf"decoder\.psp\.blocks\.{i}\.pool\.1", f"pyramid/bin{side}")
    rules += sequence(r"decoder\.conv", "fuse", _halves_exchanged)
    return [*_encoder(encoder, strides), *rules, *_head()]


def upernet(
    encoder: Iterable[Rule], strides: Sequence[int] = STRIDES, bins: Sequence[int] = (1, 2, 3, 6)
) -> list[Rule]:
    """Rules of `UPerNet`, which takes the encoder's levels of stride 4 and more."""
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


def dpt(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of `DPT` over a vision transformer of timm; their fusion counts from the coarsest of four levels."""
    rules = []
    for i in range(4):
        level, theirs, fuse = f"decoder/level{i}", rf"decoder\.reassemble_blocks\.{i}\.", f"decoder/fuse{3 - i}"
        rules += layer(rf"decoder\.projection_blocks\.{i}\.project\.0", f"{level}/readout", dense)
        rules += layer(theirs + "project_to_out_channel", f"{level}/project")
        rules += layer(theirs + "upsample", f"{level}/resample", conv_transpose if i < 2 else conv)
        rules += layer(theirs + "project_to_feature_dim", f"{level}/out")
        theirs = rf"decoder\.fusion_blocks\.{i}\."
        for n in (1, 2):
            unit = theirs + rf"residual_conv_block{n}\."
            rules += conv_norm(unit + "conv_1", unit + "batch_norm_1", f"{fuse}/unit{n}/conv1")
            rules += conv_norm(unit + "conv_2", unit + "batch_norm_2", f"{fuse}/unit{n}/conv2")
        rules += layer(theirs + "project", f"{fuse}/project")
    rules += sequence(r"segmentation_head\.head", "conv") + layer(r"segmentation_head\.head\.4", "head")
    return [*prefixed(encoder, r"encoder\.model\.", "encoder"), *rules, Rule(r"classification_head\..*", None)]


def manet(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """Rules of `MAnet`, whose transposed product makes their center_conv the queries."""
    levels, added = _levels(strides)
    last, rules = levels - 2 + added, []
    for theirs, ours in (("top", "key"), ("center", "query"), ("bottom", "value"), ("out", "out")):
        rules += layer(rf"decoder\.center\.{theirs}_conv", f"attention/{ours}")
    for b in range(last + 1):
        ours = f"decoder/full{last - b}" if last - b < added else f"decoder/stage{last - b - added}"
        theirs = rf"decoder\.blocks\.{b}"
        for i in range(2):
            rules += sequence(rf"{theirs}\.hl_conv\.{i}", f"{ours}/high{i + 1}")
        for gate, name in (("SE_hl", "gate_high"), ("SE_ll", "gate_low")):
            rules += layer(rf"{theirs}\.{gate}\.1", f"{ours}/{name}/reduce")
            rules += layer(rf"{theirs}\.{gate}\.3", f"{ours}/{name}/expand")
        rules += _convs(theirs, ours)
    return [*_encoder(encoder, strides), *rules, *_head()]


def pan(encoder: Iterable[Rule], strides: Sequence[int] = STRIDES) -> list[Rule]:
    """Rules of `PAN`, which takes the encoder's levels of stride 4 and more."""

    def biased(theirs: str, ours: str) -> list[Rule]:
        return [*layer(rf"{theirs}\.conv", f"{ours}/filter"), *norm(rf"{theirs}\.bn", f"{ours}/norm")]

    places = {"branch1.1": "pool", "mid.0": "mid", "down1.1": "down1", "down2.1": "down2", "down3.1": "down3a"}
    places |= {"down3.2": "down3b", "conv2": "up2", "conv1": "up1"}
    rules = []
    for theirs, ours in places.items():
        rules += biased(rf"decoder\.fpa\.{re.escape(theirs)}", f"attention/{ours}")
    for i in range(sum(stride >= 4 for stride in strides) - 1):
        rules += biased(rf"decoder\.gau{i + 1}\.conv1\.1", f"up{i}/gate")
        rules += biased(rf"decoder\.gau{i + 1}\.conv2", f"up{i}/low")
    return [*_encoder(encoder, strides), *rules, *_head()]


def _levels(strides: Sequence[int]) -> tuple[int, int]:
    """Returns the number of levels below the image's size, and how often the image is halved for the finest of them."""
    halved = [stride for stride in strides if stride > 1]
    return len(halved), halved[0].bit_length() - 1


def _encoder(rules: Iterable[Rule], strides: Sequence[int]) -> list[Rule]:
    levels = len(strides)  # of a ResNet its stem and its stages, of a MiT its stages
    beyond = [Rule(rf"encoder\.layer{n}\..*", None) for n in range(levels, _STAGES + 1)]
    beyond += [Rule(rf"encoder\.(?:patch_embed|block|norm){n}\..*", None) for n in range(levels + 1, _STAGES + 1)]
    return [*beyond, *prefixed(rules, r"encoder\.(?:model\.)?", "encoder")]  # "model" of timm's ("tu-...")


def _head() -> list[Rule]:
    return [*layer(r"segmentation_head\.0", "head"), Rule(r"classification_head\..*", None)]


def _convs(pattern: str, path: str) -> list[Rule]:
    """Rules of conv1 and conv2 of a decoder block."""
    return sequence(rf"{pattern}\.conv1", f"{path}/conv1") + sequence(rf"{pattern}\.conv2", f"{path}/conv2")


def _center() -> list[Rule]:
    """Rules of the convolutions at the bottom, which theirs has over a VGG."""
    return sequence(r"decoder\.center\.0", "center/conv1") + sequence(r"decoder\.center\.1", "center/conv2")


def _halves_exchanged(x: np.ndarray) -> np.ndarray:
    """Convolution weight -> kernel. Theirs has the pooled grids before the encoder's channels, ours after them.

    Both are half of the channels.
    """
    return np.roll(conv(x), x.shape[1] // 2, axis=2)


_UNET = {"act": "relu", "up": "nearest", "full_resolution": True, "head_kernel": 3}


def _unet_form(encoder: str | None) -> PeerForm:
    over_vgg = {"full_skip": False, "center": True} if _family(encoder) == "vgg" else {}
    return PeerForm({**_UNET, **over_vgg}, sizes={"widths": (16, 32, 64, 128, 256)})


def _manet_form(encoder: str | None) -> PeerForm:
    over_vgg = {"full_skip": False} if _family(encoder) == "vgg" else {}
    fields = {"act": "relu", "attention": "all", "up": "nearest", "full_resolution": True, "head_kernel": 3}
    return PeerForm({**fields, **over_vgg}, sizes={"widths": (16, 32, 64, 128, 256), "attention_width": 64})


def _pspnet_form(encoder: str | None) -> PeerForm:
    fields = {"act": "relu", "fuse_kernel": 1, "head_kernel": 3, "norm_single": False, "align_corners": True}
    sizes = {} if encoder is None else _without_stages_beyond_stride_8(encoder)
    return PeerForm({**fields, "aux_width": None}, sizes)


def _without_stages_beyond_stride_8(encoder: str) -> dict[str, Any]:
    """Returns the fields of the encoder without its stages beyond stride 8, which their PSPNet does not use."""
    built: Any = encoders.build(encoder)
    if _family(encoder) == "resnet":
        return {"encoder_args": {"depths": built.depths[:2], "widths": built.widths[:3]}}
    return {"encoder_args": {"widths": built.widths[:2]}} if _family(encoder) == "mit" else {}


def _family(encoder: str | None) -> str | None:
    return None if encoder is None else encoders.family(encoder)


# Encoders that theirs has as "tu-NAME".
_OF_TIMM = re.compile(r"resnet.*d|resnet26|resnext50d.*|seresne.*|wide_resnet.*|convnext.*|vit_.*")


def names(encoder: str | None) -> str:
    """Returns the names over an encoder of their own, or over one of timm, whose sequences have underscores."""
    if encoder is None or _OF_TIMM.fullmatch(encoder) is None:
        return r"(?!encoder\.model\.).*"
    return r"(?!encoder\.).*|encoder\.model\.(?!stem\.|stages\.).*"


_TAKES = ("encoder", "strides")
_FPN = PeerForm({"act": "relu", "smooth": False, "align_corners": True}, sizes={})
_DPT = PeerForm(
    {"act": "relu", "encoder_args": {"norm_levels": False}},
    sizes={"features": 256, "widths": (256, 512, 1024, 1024), "readout": "cat"},
)
_LINKNET = PeerForm({"act": "relu", "finest": 2, "up_kernel": 4, "ending": "block"}, sizes={})
_PAN = PeerForm(
    {"act": "relu", "align_corners": True, "encoder_args": {"output_stride": 16, "first_dilated": True}},
    sizes={"width": 32},
)
_UPERNET = PeerForm(
    {"act": "relu", "norm_features": True, "align_corners": True, "aux_width": None}, sizes={"width": 256}
)

FAMILY = Family(
    network_formats=(
        NetworkFormat("dpt", SMP, dpt, ("encoder",), _DPT, names),
        NetworkFormat("fpn", SMP, fpn, _TAKES, _FPN, names),
        NetworkFormat("linknet", SMP, linknet, _TAKES, _LINKNET, names),
        NetworkFormat("manet", SMP, manet, _TAKES, _manet_form, names),
        NetworkFormat("pan", SMP, pan, _TAKES, _PAN, names),
        NetworkFormat("pspnet", SMP, pspnet, _TAKES, _pspnet_form, names),
        NetworkFormat("unet", SMP, unet, _TAKES, _unet_form, names),
        NetworkFormat("unetplusplus", SMP, unetplusplus, _TAKES, _unet_form, names),
        NetworkFormat("upernet", SMP, upernet, _TAKES, _UPERNET, names),
    ),
)

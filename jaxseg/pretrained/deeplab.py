"""Rules for DeepLabV3 and DeepLabV3+ of torchvision and segmentation_models.pytorch, from the rules of their encoder.

The encoder's rules are relative to it, as `jaxseg.pretrained.resnet.torchvision()` has them. What fields give our
models the form of theirs is written in `jaxseg.models.deeplabv3` and `jaxseg.models.deeplabv3plus`.
"""

from collections.abc import Iterable

from jaxseg.pretrained.rules import Rule, layer, norm, prefixed

_RATES = 3


def torchvision_deeplabv3(encoder: Iterable[Rule]) -> list[Rule]:
    """`deeplabv3_resnet50` and `deeplabv3_resnet101`; their files hold the auxiliary head too."""
    rules = prefixed(encoder, r"backbone\.", "encoder")
    rules += _aspp(r"classifier\.0\.") + _conv_norm(r"classifier\.1", r"classifier\.2", "conv")
    rules += layer(r"classifier\.4", "head")
    rules += _conv_norm(r"aux_classifier\.0", r"aux_classifier\.1", "aux/conv")
    return rules + layer(r"aux_classifier\.4", "aux/head")


def smp_deeplabv3(encoder: Iterable[Rule], *, separable: bool = False) -> list[Rule]:
    """`DeepLabV3` of segmentation_models.pytorch; `separable` is its decoder_aspp_separable."""
    rules = prefixed(encoder, r"encoder\.", "encoder")
    rules += _aspp(r"decoder\.aspp\.", separable) + _conv_norm(r"decoder\.conv", r"decoder\.bn", "conv")
    return rules + layer(r"segmentation_head\.0", "head")


def smp_deeplabv3plus(encoder: Iterable[Rule]) -> list[Rule]:
    """`DeepLabV3Plus` of segmentation_models.pytorch, with its separable pyramid pooling."""
    rules = prefixed(encoder, r"encoder\.", "encoder")
    rules += _aspp(r"decoder\.aspp\.0\.", True) + _separable(r"decoder\.aspp\.1", r"decoder\.aspp\.2", "conv")
    rules += _conv_norm(r"decoder\.block1\.0", r"decoder\.block1\.1", "low")
    rules += _separable(r"decoder\.block2\.0", r"decoder\.block2\.1", "fuse1")
    return rules + layer(r"segmentation_head\.0", "head")


def _aspp(theirs: str, separable: bool = False) -> list[Rule]:
    rules = _conv_norm(r"convs\.0\.0", r"convs\.0\.1", "point")
    for i in range(1, _RATES + 1):
        rules += (_separable if separable else _conv_norm)(rf"convs\.{i}\.0", rf"convs\.{i}\.1", f"atrous{i}")
    rules += _conv_norm(rf"convs\.{_RATES + 1}\.1", rf"convs\.{_RATES + 1}\.2", "pool")
    rules += _conv_norm(r"project\.0", r"project\.1", "project")
    return prefixed(rules, theirs, "aspp")


def _conv_norm(conv: str, norm_: str, path: str) -> list[Rule]:
    return [*layer(conv, f"{path}/conv"), *norm(norm_, f"{path}/norm")]


def _separable(conv: str, norm_: str, path: str) -> list[Rule]:
    halves = [*layer(rf"{conv}\.0", f"{path}/depthwise"), *layer(rf"{conv}\.1", f"{path}/pointwise")]
    return [*halves, *norm(norm_, f"{path}/norm")]

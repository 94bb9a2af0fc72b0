"""DeepLabV3 and DeepLabV3+ of torchvision and segmentation_models.pytorch, over the rules of their encoder.

The encoder's rules are relative to it, as `jaxseg.pretrained.resnet.torchvision()` returns them.
"""

from collections.abc import Iterable

from jaxseg.pretrained import fcn, smp
from jaxseg.pretrained.family import SMP, TORCHVISION, Family, NetworkFormat, PeerForm
from jaxseg.pretrained.rules import Rule, conv_norm, layer, prefixed, sequence

_RATES = 3


def torchvision_deeplabv3(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of `deeplabv3_resnet50` and `deeplabv3_resnet101`; their files hold the auxiliary head too."""
    rules = prefixed(encoder, r"backbone\.", "encoder")
    rules += _aspp(r"classifier\.0\.") + conv_norm(r"classifier\.1", r"classifier\.2", "conv")
    rules += layer(r"classifier\.4", "head")
    return rules + sequence("aux_classifier", "aux/conv") + layer(r"aux_classifier\.4", "aux/head")


def smp_deeplabv3(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of `DeepLabV3` of segmentation_models.pytorch, with or without its decoder_aspp_separable."""
    rules = prefixed(encoder, r"encoder\.", "encoder")
    rules += _aspp(r"decoder\.aspp\.") + conv_norm(r"decoder\.conv", r"decoder\.bn", "conv")
    return rules + layer(r"segmentation_head\.0", "head")


def smp_deeplabv3plus(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of `DeepLabV3Plus` of segmentation_models.pytorch, with its separable pyramid pooling."""
    rules = prefixed(encoder, r"encoder\.", "encoder")
    rules += _aspp(r"decoder\.aspp\.0\.") + _separable(r"decoder\.aspp\.1", r"decoder\.aspp\.2", "conv")
    rules += sequence(r"decoder\.block1", "low") + _separable(r"decoder\.block2\.0", r"decoder\.block2\.1", "fuse1")
    return rules + layer(r"segmentation_head\.0", "head")


def _aspp(theirs: str) -> list[Rule]:
    rules = sequence(r"convs\.0", "point")
    for i in range(1, _RATES + 1):
        rules += _separable(rf"convs\.{i}\.0", rf"convs\.{i}\.1", f"atrous{i}")
    rules += conv_norm(rf"convs\.{_RATES + 1}\.1", rf"convs\.{_RATES + 1}\.2", "pool") + sequence("project", "project")
    return prefixed(rules, theirs, "aspp")


def _separable(conv: str, norm: str, path: str) -> list[Rule]:
    """A convolution and its norm; in place of the convolution the file may have two, depthwise and pointwise."""
    halves = [*layer(rf"{conv}\.0", f"{path}/depthwise"), *layer(rf"{conv}\.1", f"{path}/pointwise")]
    return [*conv_norm(conv, norm, path), *halves]


# Our default encoders have the multi-grid of the paper, which these networks do not have.
_ONE_GRID = {"multi_grid": (1, 1, 1)}
_DEEPLAB_OF_SMP = {"act": "relu", "rates": (12, 24, 36), "head_conv": True, "align_corners": True}

FAMILY = Family(
    network_formats=(
        NetworkFormat(
            "deeplabv3",
            TORCHVISION,
            torchvision_deeplabv3,
            takes=("encoder",),
            names=fcn.names,
            form=PeerForm(
                {
                    "act": "relu",
                    "rates": (12, 24, 36),
                    "head_conv": True,
                    "align_corners": False,
                    "encoder_args": {"output_stride": 8, "first_dilated": False, **_ONE_GRID},
                },
                sizes={"aux_width": 256},
            ),
        ),
        NetworkFormat(
            "deeplabv3",
            SMP,
            smp_deeplabv3,
            takes=("encoder",),
            names=smp.names,
            form=PeerForm(
                {**_DEEPLAB_OF_SMP, "encoder_args": {"output_stride": 8, "first_dilated": True, **_ONE_GRID}},
                sizes={"aux_width": None},
            ),
        ),
        NetworkFormat(
            "deeplabv3plus",
            SMP,
            smp_deeplabv3plus,
            takes=("encoder",),
            names=smp.names,
            form=PeerForm(
                {
                    **_DEEPLAB_OF_SMP,
                    "decoder_convs": 1,
                    "encoder_args": {"output_stride": 16, "first_dilated": True, **_ONE_GRID},
                },
                sizes={},
            ),
        ),
    ),
    torchvision_files=("deeplabv3_resnet50_coco-cd0a2569", "deeplabv3_resnet101_coco-586e9e4e"),
)

"""ResNet, ResNeXt and wide ResNet of torchvision, timm and segmentation_models.pytorch, which name their layers alike.

The encoders resnet18d ... resnet152d and seresnet18 ... seresnet152 have the form of timm's. Paths are relative to our
encoder.
"""

import functools
from typing import Literal

from jaxseg.pretrained.family import (
    APACHE,
    BSD,
    SMP,
    TORCHVISION,
    TRANSFORMERS,
    EncoderFormat,
    EncoderWeights,
    Family,
    Published,
)
from jaxseg.pretrained.rules import Rule, conv_norm, layer, norm, prefixed, sequence

_MOST_BLOCKS = 36  # of a stage: ResNet-152
_OF_TIMM = (SMP, TRANSFORMERS)  # whose networks take any encoder of timm
_BASIC = ("conv1", "conv2")
_BOTTLENECK = ("reduce", "conv", "expand")


def torchvision(block: Literal["basic", "bottleneck"] = "bottleneck") -> list[Rule]:
    """Rules of a ResNet, wide ResNet or ResNeXt of torchvision, or timm's of the same form (resnet50, seresnet50)."""
    return _resnet(block, average_shortcut=False)


def timm_d(block: Literal["basic", "bottleneck"] = "bottleneck") -> list[Rule]:
    """Rules of a ResNet-D of timm (resnet50d, ...), whose shortcuts begin with a pooling layer."""
    return _resnet(block, average_shortcut=True)


def _resnet(block: str, *, average_shortcut: bool) -> list[Rule]:
    # A deep stem is convolution, norm and activation twice, then a convolution; "bn1" is the norm after it.
    rules = conv_norm(r"conv1(?:\.6)?", "bn1", "stem")
    rules += sequence("conv1", "stem1")
    rules += conv_norm(r"conv1\.3", r"conv1\.4", "stem2")
    rules += [Rule(r"fc\.(?:weight|bias)", None)]
    inside = _block(_BASIC if block == "basic" else _BOTTLENECK, average_shortcut)
    for n in range(_MOST_BLOCKS):
        rules += prefixed(inside, rf"layer(?P<stage>\d+)\.{n}\.", f"stage{{stage}}/block{n + 1}")
    return rules


def _block(names: tuple[str, ...], average_shortcut: bool) -> list[Rule]:
    rules = []
    for i, name in enumerate(names, start=1):
        rules += conv_norm(f"conv{i}", f"bn{i}", name)
    first = 1 if average_shortcut else 0
    rules += [*layer(rf"downsample\.{first}", "shortcut"), *norm(rf"downsample\.{first + 1}", "shortcut_norm")]
    return [*rules, *layer(r"se\.fc1", "squeeze/reduce"), *layer(r"se\.fc2", "squeeze/expand")]


def _imagenet(encoder: str, recipe: str, name: str = "imagenet") -> EncoderWeights:
    """Weights of timm: an encoder, trained on ImageNet-1k in one of timm's recipes."""
    of_torchvision = recipe.startswith("tv")
    return EncoderWeights(encoder, name, Published(f"timm/{encoder}.{recipe}_in1k"), BSD if of_torchvision else APACHE)


# "imagenet" are the weights that most published segmentation results start from: for ResNets torchvision's first (tv).
# "imagenet_v2" are torchvision's second (tv2), "imagenet_a1" those of "ResNet strikes back" (Wightman, Touvron and
# Jégou 2021). Both come from longer training: they are better classifiers, but not always better encoders.
FAMILY = Family(
    encoder_weights=(
        _imagenet("resnet18", "tv"),
        _imagenet("resnet34", "tv"),
        _imagenet("resnet50", "tv"),
        _imagenet("resnet101", "tv"),
        _imagenet("resnet152", "tv"),
        _imagenet("resnet18d", "ra2"),
        _imagenet("resnet34d", "ra2"),
        _imagenet("resnet50d", "ra2"),
        _imagenet("resnet101d", "ra2"),
        _imagenet("resnet152d", "ra2"),
        _imagenet("resnext50_32x4d", "tv"),
        _imagenet("resnext101_32x8d", "tv"),
        _imagenet("wide_resnet50_2", "tv"),
        _imagenet("wide_resnet101_2", "tv"),
        _imagenet("seresnet50", "ra2"),
        _imagenet("resnet26", "bt"),
        _imagenet("resnet26d", "bt"),
        _imagenet("resnet200d", "ra2"),
        _imagenet("resnext50d_32x4d", "bt"),
        _imagenet("resnext101_32x4d", "gluon"),
        _imagenet("resnext101_64x4d", "tv"),
        _imagenet("seresnet152d", "ra2"),
        _imagenet("seresnext50_32x4d", "racm"),
        _imagenet("seresnext101_32x8d", "ah"),
        _imagenet("resnet50", "tv2", "imagenet_v2"),
        _imagenet("resnet101", "tv2", "imagenet_v2"),
        _imagenet("resnet152", "tv2", "imagenet_v2"),
        _imagenet("resnext50_32x4d", "tv2", "imagenet_v2"),
        _imagenet("resnext101_32x8d", "tv2", "imagenet_v2"),
        _imagenet("wide_resnet50_2", "tv2", "imagenet_v2"),
        _imagenet("wide_resnet101_2", "tv2", "imagenet_v2"),
        _imagenet("resnet18", "a1", "imagenet_a1"),
        _imagenet("resnet34", "a1", "imagenet_a1"),
        _imagenet("resnet50", "a1", "imagenet_a1"),
        _imagenet("resnet101", "a1", "imagenet_a1"),
        _imagenet("resnet152", "a1", "imagenet_a1"),
        _imagenet("resnext50_32x4d", "a1", "imagenet_a1"),
    ),
    encoder_formats=(
        EncoderFormat(("resnet18", "resnet34"), functools.partial(torchvision, "basic"), (TORCHVISION, *_OF_TIMM)),
        EncoderFormat(("seresnet18", "seresnet34"), functools.partial(torchvision, "basic"), _OF_TIMM),
        EncoderFormat(("resnet18d", "resnet34d"), functools.partial(timm_d, "basic"), _OF_TIMM),
        EncoderFormat(
            (
                "resnet26d",
                "resnet50d",
                "resnet101d",
                "resnet152d",
                "resnet200d",
                "resnext50d_32x4d",
                "seresnet152d",
            ),
            timm_d,
            _OF_TIMM,
        ),
        EncoderFormat(
            (
                "resnet50",
                "resnet101",
                "resnet152",
                "resnext50_32x4d",
                "resnext101_32x8d",
                "resnext101_64x4d",
                "wide_resnet50_2",
                "wide_resnet101_2",
            ),
            torchvision,
            (TORCHVISION, *_OF_TIMM),
        ),
        EncoderFormat(
            (
                "resnet26",
                "resnext101_32x4d",
                "seresnet50",
                "seresnet101",
                "seresnet152",
                "seresnext50_32x4d",
                "seresnext101_32x8d",
            ),
            torchvision,
            _OF_TIMM,
        ),
    ),
    torchvision_files=(
        "resnet18-f37072fd",
        "resnet34-b627a593",
        "resnet50-0676ba61",
        "resnet50-11ad3fa6",
        "resnet101-63fe2227",
        "resnet101-cd907fc2",
        "resnet152-394f9c45",
        "resnet152-f82ba261",
        "resnext50_32x4d-1a0047aa",
        "resnext50_32x4d-7cdf4587",
        "resnext101_32x8d-110c445d",
        "resnext101_32x8d-8ba56ff5",
        "resnext101_64x4d-173b62eb",
        "wide_resnet50_2-95faca4d",
        "wide_resnet50_2-9ba9bcbe",
        "wide_resnet101_2-32ee1156",
        "wide_resnet101_2-d733dc28",
    ),
)

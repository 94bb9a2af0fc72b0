"""Rules for ResNets of torchvision, timm and segmentation_models.pytorch, which name their layers alike.

The forms resnet18d ... seresnet101 are timm's. Paths are relative to our encoder.
"""

from typing import Literal

from jaxseg.pretrained.rules import Rule, conv_norm, layer, norm, prefixed, sequence

_MOST_BLOCKS = 36  # of a stage: ResNet-152
_BASIC = ("conv1", "conv2")
_BOTTLENECK = ("reduce", "conv", "expand")


def torchvision(block: Literal["basic", "bottleneck"] = "bottleneck") -> list[Rule]:
    """A ResNet, wide ResNet or ResNeXt of torchvision, or one of its form of timm (resnet50, seresnet50, ...)."""
    return _resnet(block, average_shortcut=False)


def timm_d(block: Literal["basic", "bottleneck"] = "bottleneck") -> list[Rule]:
    """A ResNet-D of timm (resnet50d, ...), whose shortcuts begin with a pooling layer."""
    return _resnet(block, average_shortcut=True)


def _resnet(block: str, *, average_shortcut: bool) -> list[Rule]:
    # Of a deep stem: convolution, norm and activation twice, then a convolution; "bn1" is the norm after it.
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

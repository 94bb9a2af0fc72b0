"""VGGs of torchvision, timm and segmentation_models.pytorch, which name their convolutions alike."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.models import encoders
from jaxseg.pretrained.family import BSD, SMP, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv, convert, layer, norm, pointwise

DENSE = ("fc6", "fc7")  # children of an `FCN`, which the dense layers of a VGG become


def torchvision(name: str) -> list[Rule]:
    """Rules of `name` ("vgg16", "vgg16_bn", ...) relative to our encoder, without the dense layers."""
    encoder: Any = encoders.build(name)
    return [*features(encoder.depths, encoder.use_norm), Rule(r"(?:classifier|pre_logits|head)\..+", None)]


def dense_layers(arrays: Mapping[str, np.ndarray], ours: Mapping[str, Any], notes: list[str]) -> dict[str, np.ndarray]:
    """Returns {our path: array} for "fc6" and "fc7" of an `FCN`, from the first two dense layers of a VGG.

    A dense layer over 7x7 features has the weights of a 7x7 convolution (Long et al. 2015, section 3.1).

    Args:
        arrays: {name in the file: array}.
        ours: {path: array or shape} of the network.
        notes: receives a note of whether they are taken.

    Returns:
        An empty dictionary if the network or the file has no such layers, or if they do not fit: the network's may be
        narrower, or have a norm in place of biases.
    """
    found = {name: x for name, x in arrays.items() if _DENSE_NAME.fullmatch(name)}
    if not found or "params/fc6/conv/kernel" not in ours:
        return {}
    theirs = convert(found, _DENSE_RULES)
    if any(path not in ours or ours[path].shape != x.shape for path, x in theirs.items()):
        notes.append(
            "kept the initial values of fc6 and fc7: the dense layers of the file have another shape, or need norm=none"
        )
        return {}
    notes.append("took the dense layers for fc6 and fc7")
    return theirs


def features(depths: Sequence[int], use_norm: bool) -> list[Rule]:
    """Returns the rules for features.0, features.2, ... of a VGG with `depths` convolutions in its stages."""
    rules: list[Rule] = []
    index = 0
    for stage, convs in enumerate(depths):
        for i in range(1, convs + 1):
            rules += layer(rf"features\.{index}", f"stage{stage}/conv{i}")
            if use_norm:
                rules += norm(rf"features\.{index + 1}", f"stage{stage}/norm{i}")
            index += 3 if use_norm else 2  # convolution, norm, activation
        index += 1  # pooling
    return rules


def _dense_over_map(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c*7*7] -> kernel f[7,7,c,o]; f[o,c] of another length -> kernel f[1,1,c,o]."""
    return conv(x.reshape(len(x), -1, 7, 7)) if x.shape[1] % 49 == 0 else pointwise(x)


_DENSE_NAME = re.compile(r"(?:classifier\.[03]|pre_logits\.fc[12])\.(?:weight|bias)")
_DENSE_RULES = [  # of torchvision, and of timm, where they are convolutions
    *layer(r"classifier\.0", "fc6/conv", _dense_over_map),
    *layer(r"classifier\.3", "fc7/conv", pointwise),
    *layer(r"pre_logits\.fc1", "fc6/conv", conv),
    *layer(r"pre_logits\.fc2", "fc7/conv", conv),
]
_ENCODERS = tuple(f"vgg{layers}{norm}" for layers in (11, 13, 16, 19) for norm in ("", "_bn"))

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(name, "imagenet", Published(f"timm/{name}.tv_in1k"), BSD) for name in _ENCODERS
    ),
    encoder_formats=tuple(EncoderFormat((name,), functools.partial(torchvision, name), (SMP,)) for name in _ENCODERS),
    torchvision_files=(
        "vgg11-8a719046",
        "vgg11_bn-6002323d",
        "vgg13-19584684",
        "vgg13_bn-abd245e5",
        "vgg16-397923af",
        "vgg16_bn-6c64b313",
        "vgg19-dcbb9e9d",
        "vgg19_bn-c79401a0",
    ),
)

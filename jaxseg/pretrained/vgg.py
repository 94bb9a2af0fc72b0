"""Rules for the VGGs of torchvision, timm and segmentation_models.pytorch, which name their convolutions alike."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.models import encoders
from jaxseg.pretrained.rules import Rule, conv, convert, dense, layer, norm

DENSE = ("fc6", "fc7")  # children of an `FCN`


def torchvision(name: str) -> list[Rule]:
    """`name` ("vgg16", "vgg16_bn", ...) relative to our encoder, without the dense layers."""
    encoder = encoders.build(name)
    return [*features(encoder.depths, encoder.use_norm), Rule(r"(?:classifier|pre_logits|head)\..+", None)]


def dense_layers(arrays: Mapping[str, np.ndarray], ours: Mapping[str, Any], notes: list[str]) -> dict[str, np.ndarray]:
    """Returns {our path: array} for "fc6" and "fc7" of an `FCN`, which the first two dense layers of a VGG become.

    The weights of a dense layer over 7x7 features are those of a 7x7 convolution (Long et al. 2015, section 3.1).

    Args:
        arrays: of a file under its own names.
        ours: {path: array or shape} of the network.
        notes: is told whether they are taken.

    Returns:
        Nothing where the network has no such layers or the file none; or where they do not fit, since the network's
        are narrower, or have a norm and so no biases.
    """
    found = {name: x for name, x in arrays.items() if _DENSE_NAME.fullmatch(name)}
    if not found or "params/fc6/conv/kernel" not in ours:
        return {}
    theirs = convert(found, _DENSE_RULES)
    if any(path not in ours or ours[path].shape != x.shape for path, x in theirs.items()):
        notes.append("left fc6 and fc7 new: the dense layers of the file are of another shape, or need norm=none")
        return {}
    notes.append("took the dense layers for fc6 and fc7")
    return theirs


def features(depths: Sequence[int], use_norm: bool) -> list[Rule]:
    """Rules for features.0, features.2, ... of a VGG with `depths` convolutions in its stages."""
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
    """Linear weight f[o,c*7*7] -> kernel f[7,7,c,o]; of another length, which no map of 7x7 has -> f[1,1,c,o]."""
    return conv(x.reshape(len(x), -1, 7, 7)) if x.shape[1] % 49 == 0 else _dense_over_pixel(x)


def _dense_over_pixel(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c] -> kernel f[1,1,c,o]."""
    return dense(x)[None, None]


_DENSE_NAME = re.compile(r"(?:classifier\.[03]|pre_logits\.fc[12])\.(?:weight|bias)")
_DENSE_RULES = [  # of torchvision, and of timm, which has them as convolutions
    *layer(r"classifier\.0", "fc6/conv", _dense_over_map),
    *layer(r"classifier\.3", "fc7/conv", _dense_over_pixel),
    *layer(r"pre_logits\.fc1", "fc6/conv", conv),
    *layer(r"pre_logits\.fc2", "fc7/conv", conv),
]

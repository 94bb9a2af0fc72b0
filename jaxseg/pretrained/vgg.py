"""Rules for the VGGs of torchvision, timm and segmentation_models.pytorch, which name their convolutions alike."""

from collections.abc import Sequence

import numpy as np

from jaxseg.models import encoders
from jaxseg.pretrained.rules import Rule, conv, dense, layer, norm, prefixed


def torchvision(name: str) -> list[Rule]:
    """`name` ("vgg16", "vgg16_bn", ...) relative to our encoder, without the dense layers."""
    encoder = encoders.build(name)
    return [*features(encoder.depths, encoder.use_norm), Rule(r"(?:classifier|pre_logits|head)\..+", None)]


def fully_convolutional(name: str) -> list[Rule]:
    """The same for a whole `FCN` without norms in "fc6" and "fc7", which the first two dense layers become.

    The weights of a dense layer over 7x7 features are those of a 7x7 convolution (Long et al. 2015, section 3.1).
    """
    encoder = encoders.build(name)
    return [
        *prefixed(features(encoder.depths, encoder.use_norm), "", "encoder"),
        *layer(r"classifier\.0", "fc6/conv", _dense_over_map),
        *layer(r"classifier\.3", "fc7/conv", _dense_over_pixel),
        *layer(r"pre_logits\.fc1", "fc6/conv", conv),
        *layer(r"pre_logits\.fc2", "fc7/conv", conv),
        Rule(r"(?:classifier\.6|head\.fc)\..+", None),
    ]


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
    """Linear weight f[o,c*7*7] -> kernel f[7,7,c,o]."""
    return conv(x.reshape(x.shape[0], -1, 7, 7))


def _dense_over_pixel(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c] -> kernel f[1,1,c,o]."""
    return dense(x)[None, None]

"""Foreign weights: renaming a `state_dict` into our parameters, and merging it with nothing lost in silence."""

from jaxseg.pretrained.rules import (
    Rule,
    conv,
    conv_transpose,
    convert,
    dense,
    flatten,
    keep,
    layer,
    merge,
    norm,
    prefixed,
)

__all__ = [
    "Rule",
    "conv",
    "conv_transpose",
    "convert",
    "dense",
    "flatten",
    "keep",
    "layer",
    "merge",
    "norm",
    "prefixed",
]

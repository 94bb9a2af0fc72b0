"""Foreign weights: reading files and published weights, renaming them, merging them with nothing lost in silence."""

from jaxseg.errors import WeightsError
from jaxseg.pretrained.files import WeightsFile, read
from jaxseg.pretrained.fitting import adapt_input, fit, remade_heads
from jaxseg.pretrained.loading import Loaded, find, load
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
    "Loaded",
    "Rule",
    "WeightsError",
    "WeightsFile",
    "adapt_input",
    "conv",
    "conv_transpose",
    "convert",
    "dense",
    "find",
    "fit",
    "flatten",
    "keep",
    "layer",
    "load",
    "merge",
    "norm",
    "prefixed",
    "read",
    "remade_heads",
]

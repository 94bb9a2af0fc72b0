"""Pretrained weights: finds, fetches and reads them, and merges them into a network with every name accounted for.

`load` does all of it. A family of encoders or networks has one file here (`resnet`, `mit`, `smp`, ...) with its rules,
addresses and formats; `family` defines these objects and `catalogue` collects them.
"""

from jaxseg.errors import WeightsError
from jaxseg.pretrained.family import HUB_FILES
from jaxseg.pretrained.files import WeightsFile, read
from jaxseg.pretrained.loading import Loaded, load
from jaxseg.pretrained.merging import adapt_and_merge, adapt_input, flatten, merge, new_classifiers
from jaxseg.pretrained.renaming import rename, rename_encoder
from jaxseg.pretrained.rules import Rule, conv, conv_transpose, convert, dense, layer, norm, prefixed, unchanged
from jaxseg.pretrained.sources import Source, file_in, find

__all__ = [
    "HUB_FILES",
    "Loaded",
    "Rule",
    "Source",
    "WeightsError",
    "WeightsFile",
    "adapt_and_merge",
    "adapt_input",
    "conv",
    "conv_transpose",
    "convert",
    "dense",
    "file_in",
    "find",
    "flatten",
    "layer",
    "load",
    "merge",
    "new_classifiers",
    "norm",
    "prefixed",
    "read",
    "rename",
    "rename_encoder",
    "unchanged",
]

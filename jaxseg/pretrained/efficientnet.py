"""torchvision's names of EfficientNet B0 to B7; classifiers are left out."""

import math

from jaxseg.models.encoders.efficientnet import B0
from jaxseg.models.encoders.mobilenet import places
from jaxseg.pretrained.mobilenet import ending, inverted
from jaxseg.pretrained.rules import Rule, sequence


def torchvision(depth: float = 1.0, *, last: bool = False) -> list[Rule]:
    """Rules of torchvision's `efficientnet_b*`, whose rows have `depth` times the blocks of B0.

    Args:
        depth: the encoder's field of that name: 1, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1 for B0 to B7.
        last: whether the encoder has the last convolution; it is left out otherwise.
    """
    blocks = [(row, i) for row in range(len(B0)) for i in range(math.ceil(B0[row][3] * depth))]
    where = places([B0[row][4] if i == 0 else 1 for row, i in blocks], 32)
    rules = sequence(r"features\.0", "stem")
    for place, (row, i) in zip(where, blocks):
        # Only the first block of the first row does not widen.
        theirs, ours = rf"features\.{row + 1}\.{i}\.block", f"stage{place.level}/block{place.number}"
        rules += inverted(theirs, ours, expand=B0[row][0] != 1, squeeze=True)
    return rules + ending(len(B0) + 1, last) + [Rule(r"classifier\..*", None)]

"""EfficientNet B0 to B7 of torchvision; classifiers are left out."""

import functools
import math

from jaxseg.models.encoders.efficientnet import B0
from jaxseg.models.encoders.mobilenet import places
from jaxseg.pretrained.family import EncoderFormat, Family
from jaxseg.pretrained.mobilenet import ending, inverted
from jaxseg.pretrained.rules import Rule, sequence


def torchvision(depth: float = 1.0, *, last: bool = False) -> list[Rule]:
    """Rules of torchvision's `efficientnet_b*`, whose rows have `depth` times the blocks of B0.

    Args:
        depth: the encoder's field of that name: 1, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1 for B0 to B7.
        last: whether the encoder has the last convolution, which is left out otherwise.
    """
    blocks = [(row, i) for row in range(len(B0)) for i in range(math.ceil(B0[row][3] * depth))]
    where = places([B0[row][4] if i == 0 else 1 for row, i in blocks], 32)
    rules = sequence(r"features\.0", "stem")
    for place, (row, i) in zip(where, blocks):
        # Only the first block of the first row does not widen.
        theirs, ours = rf"features\.{row + 1}\.{i}\.block", f"stage{place.level}/block{place.number}"
        rules += inverted(theirs, ours, expand=B0[row][0] != 1, squeeze=True)
    return rules + ending(len(B0) + 1, last) + [Rule(r"classifier\..*", None)]


_DEPTHS = (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1)  # of B0 to B7

FAMILY = Family(
    encoder_formats=tuple(
        EncoderFormat((f"efficientnet_b{n}",), functools.partial(torchvision, depth)) for n, depth in enumerate(_DEPTHS)
    ),
    torchvision_files=(
        "efficientnet_b0_rwightman-7f5810bc",
        "efficientnet_b1-c27df63c",
        "efficientnet_b1_rwightman-bac287d4",
        "efficientnet_b2_rwightman-c35c1473",
        "efficientnet_b3_rwightman-b3899882",
        "efficientnet_b4_rwightman-23ab8bcd",
        "efficientnet_b5_lukemelas-1a07897c",
        "efficientnet_b6_lukemelas-24a108a5",
        "efficientnet_b7_lukemelas-c5b4e57e",
    ),
)

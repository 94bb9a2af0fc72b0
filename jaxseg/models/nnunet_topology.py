"""How nnU-Net chooses its network from the size of a patch, in 2-D.

Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18, and its version 2.

`topology` is its rule for how often each axis of a patch is halved and what kernels the convolutions have,
`stage_widths` that of the features, and `supervision_weights` that of the losses of the decoder's levels.
"""

import math
from typing import NamedTuple

from jaxseg.arguments import Count, Positive, checked

Pair = tuple[int, int]


class Topology(NamedTuple):
    """What nnU-Net derives from the size of a patch.

    Attributes:
        poolings: how often each axis is halved.
        factors: by how much each stage reduces height and width, from the first, (1, 1).
        kernels: height and width of the kernels of each stage.
        patch: the size, enlarged to a multiple of what the poolings divide by.
    """

    poolings: Pair
    factors: tuple[Pair, ...]
    kernels: tuple[Pair, ...]
    patch: Pair


@checked
def topology(
    patch: tuple[Count, Count],
    spacing: tuple[Positive, Positive] = (1.0, 1.0),
    *,
    least: Count = 4,
    most: Count | None = None,
) -> Topology:
    """Returns the factors and kernels of nnU-Net's stages for a patch.

    The rule of the paper's supplementary information, as version 2 has it (`get_pool_and_conv_props`):
    An axis is halved while at least 2 * least pixels of it are left. While the spacings of the axes differ by a factor
    of 2 or more, only the finer is halved. A single axis is halved only from 3 * least pixels on. The kernel is 3 along
    an axis as soon as its spacing is within the factor 2 of the finest, and 1 before; in the last stage it is 3x3.

    Args:
        patch: height and width in pixels.
        spacing: distance between pixels along each axis, in any unit.
        least: pixels that remain of each axis at least, 4.
        most: poolings of an axis at most; None: any number.

    Raises:
        ArgumentError: for a patch or spacing that is not positive.
    """
    size, distance = list(patch), list(spacing)
    poolings, kernel = [0, 0], [1, 1]
    factors, kernels = [(1, 1)], []
    while True:
        large = [i for i in (0, 1) if size[i] >= 2 * least]
        finest = min((distance[i] for i in large), default=math.inf)
        halved = [i for i in large if distance[i] < 2 * finest and (most is None or poolings[i] < most)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * least):
            break
        kernel = [3 if distance[i] < 2 * min(distance) else kernel[i] for i in (0, 1)]
        kernels.append((kernel[0], kernel[1]))
        factors.append((2 if 0 in halved else 1, 2 if 1 in halved else 1))
        for i in halved:
            poolings[i] += 1
            distance[i] *= 2
            size[i] = -(-size[i] // 2)
    height, width = (-(-side // 2**n) * 2**n for side, n in zip(patch, poolings))
    return Topology((poolings[0], poolings[1]), tuple(factors), (*kernels, (3, 3)), (height, width))


@checked
def stage_widths(stages: Count, first: Count = 32, most: Count = 512) -> tuple[int, ...]:
    """Returns the features of each stage: doubled from stage to stage, at most 512 in two dimensions."""
    return tuple(min(most, first * 2**i) for i in range(stages))


@checked
def supervision_weights(levels: Count) -> tuple[float, ...]:
    """Returns the weights of the losses of a decoder's levels, finest first: 1, 1/2, 1/4, ... divided by their sum.

    The coarsest level has no loss, unless it is the only one, and no weight here: of n levels n - 1 have one.
    """
    weights = [0.5**i for i in range(max(1, levels - 1))]
    return tuple(weight / sum(weights) for weight in weights)

"""The evaluation in tiles inside a training (`eval.tiles`): its predictor, and whether memory holds it."""

import dataclasses
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from jaxseg.build import Parts
from jaxseg.data.transforms import Size
from jaxseg.errors import ConfigError
from jaxseg.inference import fitting, tiles
from jaxseg.inference.networks import Member, Networks
from jaxseg.inference.predictor import Predictor, Tiling
from jaxseg.types import PyTree


def tiled_predictor(parts: Parts) -> Predictor:
    """Returns a predictor that scores images in tiles, as `eval.tiles` and `eval.overlap` say; it has no variables yet.

    Give it those of a state by `Predictor.with_variables`.

    Raises:
        ConfigError: if the tiles are smaller than the stride of the network.
    """
    size = tiles.parse_tiles(parts.config.eval.tiles)
    assert size is not None and size != "auto"
    member = Member(parts, parts.model)
    variables = jax.eval_shape(lambda: parts.init(jax.random.key(0)).variables)
    stride = fitting.stride_of(member, variables)
    if min(size) < stride:
        raise ConfigError(
            f"eval.tiles={parts.config.eval.tiles} is smaller than the stride of the network, {stride} pixels; give "
            "larger tiles."
        )
    return Predictor(Networks((member,)), (), Tiling(size, parts.config.eval.overlap))


def require_memory(predictor: Predictor, size: Size, dtype: Any, variables: PyTree) -> None:
    """Raises OutOfMemoryError unless memory holds the `scores` of an image in tiles; nothing is computed.

    The program of the network is kept for these scores. All processes call it for the same image, and decide alike.

    Args:
        predictor: of `tiled_predictor`.
        size: (h, w) of the image.
        dtype: of the image.
        variables: of the network, or their shapes.
    """
    networks, place = predictor.networks, SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), variables)
    predictor = dataclasses.replace(predictor, variables=(placed,))
    image = jax.ShapeDtypeStruct((*size, networks.channels), dtype)
    predictor.require_memory_of_tiles(image, option="eval.tiles=", agreed=True)

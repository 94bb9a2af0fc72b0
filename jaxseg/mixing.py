"""Mixing the images of a batch on the device, with their labels: a box of another image, or its objects.

Images are mixed in pairs, (0, 1), (2, 3) and so on; each of the two gives a part of itself to the other. Micro-batches
do not divide them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.errors import ArgumentError
from jaxseg.types import IGNORE, Array, Key

_BOX = 0.5  # share of the image that a box covers
# Streams of an example's key for whether, where and what; see `jaxseg.data.augment` for the others.
_MIX_STREAMS = (7, 8, 9)


def make_mix(
    augment: Callable[[Key, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    cutmix: float = 0.0,
    classmix: float = 0.0,
    ignore: int = IGNORE,
) -> Callable[[Mapping[str, jax.Array], Any], tuple[jax.Array, jax.Array, None]]:
    """Returns `mix({image, label, key of each example}, _) -> (network input, label, None)`, a `step.Teach`.

    Args:
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input f32[h,w,c], label) of one example.
        cutmix: probability that a box of half the area shows the partner, with its labels (Yun et al. 2019, "CutMix";
            for segmentation French et al. 2020). Its height is drawn evenly in its logarithm.
        classmix: probability that the pixels of half of the partner's classes, drawn from those in its label, are put
            over the image (Olsson et al. 2021, "ClassMix"), where a box is not.
        ignore: the label of an ignored pixel. A box takes such pixels with it; they belong to no class.

    Tracing raises ArgumentError for an odd number of images.
    """

    def mix(batch: Mapping[str, jax.Array], _: Any) -> tuple[jax.Array, jax.Array, None]:
        keys, label = batch["keys"], batch["label"].astype(jnp.int32)
        image, label = jax.lax.optimization_barrier(jax.vmap(augment)(keys, batch["image"], label))
        deciding, of_box, of_classes = (
            jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream) for stream in _MIX_STREAMS
        )
        draw = jax.vmap(jax.random.uniform)(deciding)[:, None, None]
        taken = jax.vmap(lambda key: box(key, label.shape[1:], 1.0))(of_box) & (draw < cutmix)
        if classmix:
            chosen = jax.vmap(lambda key, of: half_of_classes(key, of, ignore))(of_classes, partner(label))
            taken |= chosen & (draw >= cutmix) & (draw < cutmix + classmix)
        image, label = jax.lax.optimization_barrier((pasted(taken, image), pasted(taken, label)))
        return image, label, None

    return mix


def box(key: Key, size: tuple[int, ...], probability: float) -> jax.Array:
    """Returns bool[h,w], True in a random box of half the area, or nowhere."""
    draw = jax.random.uniform(key, (4,))
    inside = jnp.ones(size, bool)
    for axis, (share, place) in enumerate(((_BOX ** draw[0], draw[1]), (_BOX ** (1.0 - draw[0]), draw[2]))):
        centres = jnp.arange(size[axis]) + 0.5
        first = place * (1.0 - share) * size[axis]
        along = (centres >= first) & (centres < first + share * size[axis])
        inside &= along[:, None] if axis == 0 else along[None, :]
    return inside & (draw[3] < probability)


def half_of_classes(key: Key, label: Array, ignore: int = IGNORE) -> jax.Array:
    """Returns bool[h,w], True at the pixels of half of the classes in a label i[h,w], of an odd number one more."""
    flat = jnp.asarray(label).reshape(-1)
    present = jnp.zeros(ignore + 1, bool).at[flat].set(True, mode="promise_in_bounds").at[ignore].set(False)
    order = jnp.argsort(jnp.where(present, jax.random.uniform(key, (ignore + 1,)), 2.0))
    place = jnp.zeros(ignore + 1, jnp.int32).at[order].set(jnp.arange(ignore + 1))
    chosen = present & (2 * place < jnp.sum(present))
    return chosen[jnp.asarray(label)]


def partner(own: Array) -> jax.Array:
    """[b,...] -> the other example of each pair.

    Raises:
        ArgumentError: for an odd number of images.
    """
    size = own.shape[0]
    if size % 2:
        raise ArgumentError(
            f"Mixing takes pairs of images, but a device has {size} of them at once; give a batch_size that is a "
            "multiple of twice accumulate on each device."
        )
    return jnp.asarray(own).reshape(size // 2, 2, *own.shape[1:])[:, ::-1].reshape(own.shape)


def pasted(taken: Array, own: Array) -> jax.Array:
    """bool[b,h,w], [b,h,w,...] -> each example with the taken pixels of its partner; ArgumentError as of `partner`."""
    return jnp.where(taken.reshape(*taken.shape, *(1,) * (own.ndim - 3)), partner(own), own)

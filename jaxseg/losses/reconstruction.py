"""The loss of an autoencoder: the squared error of its reconstruction."""

from collections.abc import Mapping

import jax.numpy as jnp

from jaxseg.losses.pixels import SumWeight
from jaxseg.types import Array


def reconstruction(pair: Mapping[str, Array], inside: Array | None = None) -> SumWeight:
    """Squared error of images, {"prediction", "target"} f32[b,h,w,c] each -> (sum f32[], weight f32[]).

    A pixel adds its mean squared error over the channels to the sum and 1 to the weight. Labels are not used: the
    target is the image, and images without labels count like all others.

    Args:
        pair: the images.
        inside: bool[b,h,w], False for pixels that pad an image, which add to neither sum nor weight; None: all count.

    Raises:
        ValueError: if the shapes disagree.
    """
    prediction, target = (jnp.asarray(pair[name], jnp.float32) for name in ("prediction", "target"))
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(
            f"A reconstruction and its target are images of one shape [b,h,w,c], got {prediction.shape} and "
            f"{target.shape}."
        )
    pixel = jnp.mean(jnp.square(prediction - target), axis=-1)
    if inside is None:
        return jnp.sum(pixel), jnp.float32(pixel.size)
    if inside.shape != pixel.shape:
        raise ValueError(f"inside needs the images' shape {pixel.shape}, got {inside.shape}.")
    return jnp.sum(jnp.where(inside, pixel, 0.0)), jnp.sum(inside, dtype=jnp.float32)

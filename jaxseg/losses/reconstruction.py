"""The loss of an autoencoder: the squared error of its reconstruction."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxseg.types import Array


def reconstruction(pair: Mapping[str, Array], labels: Array) -> tuple[jax.Array, jax.Array]:
    """Squared error of images, {"prediction", "target"} f32[b,h,w,c] each -> (sum f32[], weight f32[]).

    A pixel adds its mean square over the channels to the sum and 1 to the weight. Labels have no part in it: the target
    is the image, and images without labels count as all others.

    Raises:
        ValueError: if the shapes disagree.
    """
    del labels
    prediction, target = (jnp.asarray(pair[name], jnp.float32) for name in ("prediction", "target"))
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(
            f"A reconstruction and its target are images of one shape [b,h,w,c], got {prediction.shape} and "
            f"{target.shape}."
        )
    pixel = jnp.mean(jnp.square(prediction - target), axis=-1)
    return jnp.sum(pixel), jnp.float32(pixel.size)

"""Vectors of length 1, whose gradients are finite for vectors without a length too."""

import jax
import jax.numpy as jnp


def unit_vectors(x: jax.Array, axis: int = -1, least: float = 1e-12) -> jax.Array:
    """x / max(‖x‖, least) along an axis: f[...] -> f32[...].

    Vectors shorter than `least` have no gradient, as their direction is not known. That of x / least would be so large
    that half precision turns it into infinity, and its product with the zeros of a padded image into NaN.
    """
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    short = squares < least**2
    # The gradient of a root at zero is infinite, in the branch that `where` does not take as well.
    return jnp.where(short, jax.lax.stop_gradient(x / least), x * jax.lax.rsqrt(jnp.where(short, 1, squares)))

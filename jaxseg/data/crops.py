"""Windows around the pixels of one class, so that rare classes are in as many crops as frequent ones."""

import jax
import jax.numpy as jnp

from jaxseg.types import IGNORE, Array, Key


def balanced_origins(
    key: Key, origins: Array, label: Array, size: tuple[int, ...], probability: float, ignore: int = IGNORE
) -> jax.Array:
    """With a probability, puts windows around pixels of one class: (row, column) i32[n,2] -> i32[n,2].

    The class is drawn uniformly from those of the label (`ignore` is none), for each window one of its pixels, and the
    place of this pixel in the window, as far as the border of the image allows. nnU-Net takes a third of its patches in
    this way, around a voxel of a random class of the case (Isensee et al., nnU-Net, 2021).

    Args:
        key: of this use.
        origins: the windows that stay as they are otherwise, and in an image that has only `ignore`.
        label: i[h,w].
        size: (height, width) of the windows; at most that of the label.
        probability: in [0, 1].
        ignore: the label of an ignored pixel, larger than every class.
    """
    label = jnp.asarray(label, jnp.int32)
    n = len(origins)
    draws = jax.random.uniform(key, (2 + 3 * n,))
    counts = jnp.zeros(ignore + 1, jnp.int32).at[label.reshape(-1)].add(1, mode="promise_in_bounds")[:ignore]
    present = counts > 0
    kind = jnp.argmax(jnp.cumsum(present) > _below(draws[0], jnp.sum(present)))
    member = label == kind
    of_row = jnp.cumsum(jnp.sum(member, axis=1))

    def around(draw: jax.Array) -> jax.Array:
        """f32[3] -> i32[2]: finds the n-th pixel of the class by its row, then in it, and places the window."""
        nth = _below(draw[0], counts[kind])
        row = jnp.argmax(of_row > nth)
        line = jnp.cumsum(member[row])
        column = jnp.argmax(line > nth - (of_row[row] - line[-1]))
        pixel, sides = jnp.array([row, column], jnp.int32), jnp.array(size, jnp.int32)
        inside = jnp.minimum((draw[1:] * sides).astype(jnp.int32), sides - 1)
        return jnp.clip(pixel - inside, 0, jnp.array(label.shape, jnp.int32) - sides)

    chosen = (draws[1] < probability) & jnp.any(present)
    return jnp.where(chosen, jax.vmap(around)(draws[2:].reshape(n, 3)), origins)


def _below(draw: jax.Array, count: jax.Array) -> jax.Array:
    """A draw in [0, 1) -> a whole number in 0..count-1."""
    return jnp.minimum((draw * count).astype(jnp.int32), count - 1)

"""Connected components of a map of classes, on the device."""

import jax
import jax.numpy as jnp

from jaxseg.types import Array

_STEPS = ((0, 1), (1, -1), (1, 0), (1, 1))  # to half of the eight neighbours; the others are seen from the other side


def connected_components(label: Array) -> jax.Array:
    """i[h,w] -> i32[h,w], the number of each pixel's component: the first of its pixels, counted row by row.

    Two pixels of one label are connected if they share an edge or a corner. Each pixel points to one of its component
    with a smaller number; it takes the smallest that a neighbour points to, and so does the pixel that it pointed to,
    until nothing changes (the hooking and short cuts of Shiloach and Vishkin 1982). The number of rounds grows with the
    logarithm of the longest way through a component, in most maps.
    """
    height, width = label.shape
    flat = jnp.arange(height * width, dtype=jnp.int32)
    known = jnp.asarray(label)
    links = []
    for down, right in _STEPS:
        # The pixel (y, x) and the one at (y + down, x + right), where both are inside and of one label.
        columns = jnp.arange(width) + right
        inside = (jnp.arange(height) + down < height)[:, None] & ((columns >= 0) & (columns < width))[None]
        links.append(inside & (known == jnp.roll(known, (-down, -right), (0, 1))))

    def smallest_near(to: jax.Array) -> jax.Array:
        best = to
        for (down, right), linked in zip(_STEPS, links):
            ahead = jnp.where(linked, jnp.roll(to, (-down, -right), (0, 1)), to)
            behind = jnp.roll(jnp.where(linked, to, height * width), (down, right), (0, 1))
            best = jnp.minimum(best, jnp.minimum(ahead, behind))
        return best

    def round_of(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        to, _ = state
        near = smallest_near(to).reshape(-1)
        hooked = jnp.minimum(to.reshape(-1), near).at[to.reshape(-1)].min(near, mode="promise_in_bounds")
        shorter = hooked.at[hooked].get(mode="promise_in_bounds").reshape(height, width)
        return shorter, jnp.any(shorter != to)

    start = flat.reshape(height, width)
    return jax.lax.while_loop(lambda state: state[1], round_of, (start, jnp.asarray(True)))[0]

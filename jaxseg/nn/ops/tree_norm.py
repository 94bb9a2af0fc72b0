"""The norm of many arrays at once, in a form that XLA compiles quickly."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.by_device import mesh_axes
from jaxseg.types import PyTree

_SMALL = 4096  # values; larger arrays are summed one by one, which takes XLA one or two operations each


def tree_norm(tree: PyTree) -> jax.Array:
    """Returns the Euclidean norm f32[] of all values of a pytree of arrays, as one vector.

    XLA on CPUs makes three operations of the sum of a small array, and compiles each by itself: for the scales, biases
    and statistics of a network's norms these were a third of all operations of a training step. The small arrays are
    therefore joined before they are summed. Over a mesh, where each device may hold a part of an array, they are not.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.reshape(-1) for leaf in leaves if leaf.size <= _SMALL] if not mesh_axes() else []
    parts = leaves if len(small) < 2 else [leaf for leaf in leaves if leaf.size > _SMALL] + [_joined(small)]
    return jnp.sqrt(sum((jnp.sum(part * part) for part in parts), jnp.float32(0.0)))


def _joined(vectors: list[jax.Array]) -> jax.Array:
    """[f[n1], f[n2], ...] -> f[n1 + n2 + ...], computed by an operation of its own."""
    return lax.optimization_barrier(jnp.concatenate(lax.optimization_barrier(vectors)))

"""Adds the sums of a loss strip by strip, for logits of many classes on a CPU.

The sums of a loss such as Dice read probabilities, their squares and the one-hot truth, each of them of the size of the
logits. XLA on a CPU keeps several of these arrays: for cross-entropy and Dice six times the memory of the logits, and
most of the time goes into filling them. In a strip of few pixels they stay in the cache of the processor.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.types import PyTree, ignore_label

MANY_CLASSES = 100
"""From this number of classes on the sums are added in strips. Cross-entropy with Dice of 150 classes takes a third of
the time so; cross-entropy alone gains with several images, or with several hundred classes."""

_ELEMENTS = 1 << 17  # logits of a strip; their arrays fit into the cache, and are large enough for several cores
_LEAST = 16  # pixels of each image in a strip

Sums = Callable[[jax.Array, jax.Array], PyTree]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def add_in_strips(sums: Sums, logits: jax.Array, labels: jax.Array) -> PyTree:
    """sums(logits f[b,...,k], labels i[b,...]) -> pytree of f32, computed in strips on a CPU and at once elsewhere.

    The result differs from `sums(logits, labels)` in the order of the additions alone. It has a gradient, whose
    derivatives have both modes, but no forward-mode derivative itself.

    Args:
        sums: adds over pixels, and a pixel with the label IGNORE adds nothing.
        logits: any number of axes between the first and the last.
        labels: their classes.
    """
    return _add(sums, logits, labels)


def _add(sums: Sums, logits: jax.Array, labels: jax.Array) -> PyTree:
    strips = functools.partial(_sums_of_strips, sums)
    return jax.lax.platform_dependent(logits, labels, cpu=strips, default=sums)


def _forward(sums: Sums, logits: jax.Array, labels: jax.Array) -> tuple[PyTree, tuple[jax.Array, jax.Array]]:
    return _add(sums, logits, labels), (logits, labels)


def _backward(sums: Sums, kept: tuple[jax.Array, jax.Array], cotangent: PyTree) -> tuple[jax.Array, None]:
    strips, once = (functools.partial(form, sums) for form in (_gradient_of_strips, _gradient))
    return jax.lax.platform_dependent(*kept, cotangent, cpu=strips, default=once), None


add_in_strips.defvjp(_forward, _backward)


def _sums_of_strips(sums: Sums, logits: jax.Array, labels: jax.Array) -> PyTree:
    z, y, width = _flat(logits, labels)

    def each(z: jax.Array, y: jax.Array) -> PyTree:
        """The sums of each image. They are added after the loop, in which several devices would wait for one another.

        XLA takes four times as long for a single image where its axis is not added over.
        """
        return jax.vmap(sums)(z, y) if len(z) > 1 else jax.tree.map(lambda x: x[None], sums(z, y))

    def add(i: jax.Array, total: PyTree) -> PyTree:
        strip, classes = _cut(z, i, width), _cut(y, i, width)
        if y.shape[1] % width:  # the last strip begins among the pixels of the one before
            place = jnp.minimum(i * width, y.shape[1] - width) + jnp.arange(width)
            classes = jnp.where((place < i * width)[None], ignore_label(z.shape[-1]), classes)
        return jax.tree.map(jnp.add, total, each(strip, classes))

    shapes = jax.eval_shape(each, _cut(z, 0, width), _cut(y, 0, width))
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total = jax.lax.fori_loop(0, -(-y.shape[1] // width), add, start)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), total)


def _gradient_of_strips(sums: Sums, logits: jax.Array, labels: jax.Array, cotangent: PyTree) -> jax.Array:
    z, y, width = _flat(logits, labels)
    each = jax.vmap(functools.partial(_gradient, sums), in_axes=(0, 0, None))

    def write(i: jax.Array, gradient: jax.Array) -> jax.Array:
        part = each(_cut(z, i, width), _cut(y, i, width), cotangent)
        return jax.lax.dynamic_update_slice_in_dim(gradient, part, i * width, axis=1)

    gradient = jax.lax.fori_loop(0, -(-y.shape[1] // width), write, jnp.zeros_like(z))
    return gradient.reshape(logits.shape)


def _gradient(sums: Sums, logits: jax.Array, labels: jax.Array, cotangent: PyTree) -> jax.Array:
    """f[b,...,k] -> f[b,...,k], the gradient of the sums, weighted by their cotangent."""
    _, pull_back = jax.vjp(lambda z: sums(z, labels), logits)
    return pull_back(cotangent)[0]


def _flat(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, int]:
    """f[b,...,k], i[b,...] -> f[b,n,k], i[b,n] and the pixels of each image in a strip."""
    b, k = logits.shape[0], logits.shape[-1]
    y = jnp.asarray(labels, jnp.int32).reshape(b, -1)
    return logits.reshape(b, -1, k), y, min(y.shape[1], max(_LEAST, _ELEMENTS // max(1, b * k)))


def _cut(x: jax.Array, i: jax.Array | int, width: int) -> jax.Array:
    """Strip i of [b,n,...]: [b,width,...]. The start of the last one is moved back to where it has the whole width."""
    return jax.lax.dynamic_slice_in_dim(x, i * width, width, axis=1)

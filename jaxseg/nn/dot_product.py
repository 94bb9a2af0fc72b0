"""Scaled dot-product attention, in the form that XLA computes fastest on the device at hand.

On CPUs the scores, a number for each query and key, are what takes the time. There the gradient computes them again
instead of keeping them, and where those of one head are too many for the processor's cache, heads are computed one
after the other: half of the time of the usual formulas, and the memory of one head. On other devices it is
`jax.nn.dot_product_attention`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_IN_CACHE = 2**18  # scores of a head; measured, from twice as many on one head at a time is faster


def dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v for each head (Vaswani 2017, eq. 1): f[b,q,n,d], f[b,t,n,d], f[b,t,n,d] -> f[b,q,n,d].

    Args:
        query: f[b,q,n,d].
        key: f[b,t,n,d].
        value: f[b,t,n,d].
        mask: bool[b,n,q,t] or bool[b,1,q,t], False where a query must not look.
    """
    if mask is not None:
        return jax.nn.dot_product_attention(query, key, value, mask=mask)
    return lax.platform_dependent(query, key, value, cpu=_attend, default=jax.nn.dot_product_attention)


@jax.custom_vjp
def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _merge(_over_heads(_head, query.shape[1] * key.shape[1])(*map(_split, (query, key, value))), len(query))


def _forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = _attend(query, key, value)
    return y, (query, key, value, y)


def _backward(saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    gradients = _over_heads(_head_gradients, saved[0].shape[1] * saved[1].shape[1])(*map(_split, (*saved, dy)))
    return tuple(_merge(gradient, len(dy)) for gradient in gradients)


_attend.defvjp(_forward, _backward)


def _over_heads(function: Callable[..., Any], scores: int) -> Callable[..., Any]:
    """Returns `function` of one head as one of f[b n,t,d], of all at once or one after the other."""
    return jax.vmap(function) if scores <= _IN_CACHE else lambda *heads: lax.map(lambda head: function(*head), heads)


def _head(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """One head, f[q,d], f[t,d], f[t,d] -> f[q,d]; the softmax is float32, and divides after the second product."""
    scores = _product(query, key.T) / math.sqrt(query.shape[-1])
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    y = _product(weights.astype(value.dtype), value) / weights.sum(-1, keepdims=True)
    return y.astype(query.dtype)


def _head_gradients(
    query: jax.Array, key: jax.Array, value: jax.Array, y: jax.Array, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    scale = 1 / math.sqrt(query.shape[-1])
    weights = jax.nn.softmax(_product(query, key.T) * scale, axis=-1)
    own = (dy.astype(jnp.float32) * y.astype(jnp.float32)).sum(-1, keepdims=True)
    dscores = (weights * (_product(dy, value.T) - own) * scale).astype(query.dtype)
    dvalue = _product(weights.astype(dy.dtype).T, dy)
    dquery, dkey = _product(dscores, key), _product(dscores.T, query)
    return dquery.astype(query.dtype), dkey.astype(key.dtype), dvalue.astype(value.dtype)


_product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)


def _split(x: jax.Array) -> jax.Array:
    """f[b,t,n,d] -> f[b n,t,d]."""
    b, t, n, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b * n, t, d)


def _merge(x: jax.Array, b: int) -> jax.Array:
    """f[b n,t,d] -> f[b,t,n,d]."""
    return x.reshape(b, len(x) // b, *x.shape[1:]).transpose(0, 2, 1, 3)

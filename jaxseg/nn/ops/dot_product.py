"""Scaled dot-product attention, in the form that XLA computes fastest on the device at hand.

On CPUs heads come before tokens, so that the products read matrices in their order in memory, and the gradient is
written out; `benchmarks/primitives.py` compares it with the usual formulas. On other devices, and with a mask, it is
`jax.nn.dot_product_attention`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax


def dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v for each head (Vaswani 2017, eq. 1): f[b,q,n,d], f[b,t,n,d], f[b,t,n,e] -> f[b,q,n,e].

    The softmax is float32.

    Args:
        query: f[b,q,n,d].
        key: f[b,t,n,d], of the same dtype.
        value: f[b,t,n,e], of the same dtype; e is d with a mask.
        mask: bool[b,n,q,t] or bool[b,1,q,t], False where a query must not attend.

    Raises:
        ValueError: if the shapes or dtypes do not agree, or there is no key.
    """
    b, _, n, d = query.shape
    t = key.shape[1]
    if key.shape != (b, t, n, d) or value.shape[:3] != (b, t, n) or not t:
        raise ValueError(
            "dot_product_attention takes [b,q,n,d], [b,t,n,d] and [b,t,n,e] with t >= 1, "
            f"got {query.shape}, {key.shape} and {value.shape}."
        )
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"dot_product_attention takes arrays of one dtype, got {query.dtype}, {key.dtype} and {value.dtype}."
        )
    if mask is not None:
        return jax.nn.dot_product_attention(query, key, value, mask=mask)
    # That of jax.nn requires values of the keys' width.
    default = jax.nn.dot_product_attention if value.shape[-1] == d else _attend
    return lax.platform_dependent(query, key, value, cpu=_attend, default=default)


def _forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    q, k, v = (_split(x) for x in (query, key, value))
    scores = _product("hqd,htd->hqt", q, k) * (1 / math.sqrt(q.shape[-1]))
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    y = _product("hqt,hte->hqe", weights, v)
    return _merge(y.astype(query.dtype), query.shape[2]), (q, k, v, weights, y)


def _backward(saved: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    q, k, v, weights, y = saved
    heads, scale = dy.shape[2], 1 / math.sqrt(q.shape[-1])
    dy = _split(dy)
    # The gradient of the softmax is weights (dweights - sum(weights dweights)), and that sum equals the sum of y dy.
    sums = (dy.astype(jnp.float32) * y).sum(-1, keepdims=True)
    dscores = (weights * (_product("hqe,hte->hqt", dy, v) - sums)).astype(q.dtype)
    gradients = (
        _product("hqt,htd->hqd", dscores, k) * scale,
        _product("hqt,hqd->htd", dscores, q) * scale,
        _product("hqt,hqe->hte", weights, dy),
    )
    return tuple(_merge(gradient.astype(q.dtype), heads) for gradient in gradients)


_attend = jax.custom_vjp(lambda query, key, value: _forward(query, key, value)[0])
_attend.defvjp(_forward, _backward)

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _split(x: jax.Array) -> jax.Array:
    """f[b,t,n,d] -> f[b n,t,d]."""
    b, t, n, d = x.shape
    return x.swapaxes(1, 2).reshape(b * n, t, d)


def _merge(x: jax.Array, heads: int) -> jax.Array:
    """f[b n,t,d] -> f[b,t,n,d]."""
    return x.reshape(x.shape[0] // heads, heads, *x.shape[1:]).swapaxes(1, 2)

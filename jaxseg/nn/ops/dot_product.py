"""Scaled dot-product attention, in a form for each kind of device.

On CPUs heads come before tokens, so that the products read matrices in their order in memory, and the gradient is
written out; `benchmarks/primitives.py` compares it with the usual formulas. With a mask it is
`jax.nn.dot_product_attention`. On other devices it is `jax.nn.dot_product_attention` in float32, and in half precision
the written-out gradient, with a mask too: the automatic one multiplies matrices of float32, as large as the scores.
With a bias it is the written-out gradient on all devices. On an NVIDIA GPU in half precision, without mask and bias, it
is one call of cuDNN where `fused_attention` finds that this works. On a GPU none of this was run or measured.
"""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn.ops.fused_attention import fused_attention, refusal
from jaxseg.nn.ops.tracing import traced_once

NEVER = -1e30
"""The score of a key that a query must not attend to: its weight is zero, and finite where a query has no other key."""


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(d) + bias) v for each head: f[b,q,n,d], f[b,t,n,d], f[b,t,n,e] -> f[b,q,n,e].

    That is equation 1 of Vaswani 2017. The softmax is float32.

    Args:
        query: f[b,q,n,d].
        key: f[b,t,n,d], of the same dtype.
        value: f[b,t,n,e], of the same dtype; e is d with a mask.
        mask: bool[b,n,q,t] or bool[b,1,q,t], False where a query must not attend.
        bias: f32[n,q,t], added to the scores of all examples.

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
    if bias is not None:
        if bias.shape != (n, query.shape[1], t):
            raise ValueError(f"The bias of these scores must be [{n},{query.shape[1]},{t}], got {bias.shape}.")
        return _attend(query, key, value, mask, bias)
    half = query.dtype != jnp.float32
    if mask is None and half and not refusal(query, key, value):
        return lax.platform_dependent(query, key, value, cuda=fused_attention, default=_attend)
    if mask is None:
        # That of jax.nn requires values of the keys' width.
        default = _attend if half or value.shape[-1] != d else jax.nn.dot_product_attention
        return lax.platform_dependent(query, key, value, cpu=_attend, default=default)
    if not half:
        return _masked(query, key, value, mask)
    return lax.platform_dependent(query, key, value, mask, cpu=_masked, default=_attend)


def _masked(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, mask=mask)


_Masks: TypeAlias = tuple[jax.Array | None, jax.Array | None]  # mask and bias
_Saved: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, _Masks]


@traced_once()
def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> tuple[jax.Array, _Saved]:
    q, k, v = (_split(x) for x in (query, key, value))
    scores = _product("hqd,htd->hqt", q, k) * (1 / math.sqrt(q.shape[-1]))
    if bias is not None:
        scores = (scores.reshape(query.shape[0], *bias.shape) + bias[None]).reshape(scores.shape)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (query.shape[0], query.shape[2], *scores.shape[1:])).reshape(scores.shape)
        scores = jnp.where(mask, scores, NEVER)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    y = _product("hqt,hte->hqe", weights, v)
    return _merge(y.astype(query.dtype), query.shape[2]), (q, k, v, weights, y, (mask, bias))


@traced_once()
def _backward(saved: _Saved, dy: jax.Array) -> tuple[jax.Array | None, ...]:
    q, k, v, weights, y, (mask, bias) = saved
    heads, scale = dy.shape[2], 1 / math.sqrt(q.shape[-1])
    dy = _split(dy)
    # The gradient of the softmax is weights (dweights - sum(weights dweights)), and that sum equals the sum of y dy.
    sums = (dy.astype(jnp.float32) * y).sum(-1, keepdims=True)
    dscores = weights * (_product("hqe,hte->hqt", dy, v) - sums)
    if mask is not None:  # of a query that attends to no key, all weights are equal
        dscores = jnp.where(mask, dscores, jnp.zeros((), dscores.dtype))
    dbias = None if bias is None else dscores.reshape(-1, *bias.shape).sum(0)
    dscores = dscores.astype(q.dtype)
    gradients = (
        _product("hqt,htd->hqd", dscores, k) * scale,
        _product("hqt,hqd->htd", dscores, q) * scale,
        _product("hqt,hqe->hte", weights, dy),
    )
    return *(_merge(gradient.astype(q.dtype), heads) for gradient in gradients), None, dbias


_attend = jax.custom_vjp(lambda query, key, value, mask=None, bias=None: _forward(query, key, value, mask, bias)[0])
_attend.defvjp(_forward, _backward)

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _split(x: jax.Array) -> jax.Array:
    """f[b,t,n,d] -> f[b n,t,d]."""
    b, t, n, d = x.shape
    return x.swapaxes(1, 2).reshape(b * n, t, d)


def _merge(x: jax.Array, heads: int) -> jax.Array:
    """f[b n,t,d] -> f[b,t,n,d]."""
    return x.reshape(x.shape[0] // heads, heads, *x.shape[1:]).swapaxes(1, 2)

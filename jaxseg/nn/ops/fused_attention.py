"""Attention by one call of cuDNN, which keeps no scores in memory: on NVIDIA GPUs, in half precision.

`jax.nn.dot_product_attention` offers it, for some sizes and some GPUs. Whether it works here is asked and not assumed:
`refusal` compiles attention and its gradients by cuDNN, and compares their numbers with those of the definition, before
a program gets such a call. Any error or difference means no. None of this was ever run on a GPU: the calls were read in
programs that a CPU lowered for CUDA, and what surrounds them was run with another function in their place.

The environment variable JAXSEG_CUDNN_ATTENTION=off turns it off. It is off too where operations have to give the same
bits every time (`xla_gpu_deterministic_ops`): that was not tested of cuDNN's gradient.
"""

import functools
import logging
import math
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import zero_from_primal
from jax.sharding import AxisType, get_abstract_mesh

from jaxseg.nn.ops.by_device import BATCH_AXIS, STATE_AXIS, by_device, mesh_axes
from jaxseg.nn.ops.forms import convolution_forms, may_call_cudnn

SWITCH = "JAXSEG_CUDNN_ATTENTION"
"""The environment variable that turns cuDNN's attention off, by the value "off"."""

# Widths of heads that cuDNN has on every GPU that it supports, with gradients (jax's `check_is_flash_attention`).
_WIDEST, _MULTIPLE = 128, 8
_FEWEST = 16  # queries and keys; with fewer, the numbers compared would be too small to tell right from wrong
_MOST_SCORES = 2**20  # up to here the numbers are compared at the sizes asked for, by NumPy
_FLAGS = re.compile(r"--xla_gpu_(deterministic|exclude_nondeterministic)_ops(=(true|1))?(\s|$)", re.IGNORECASE)
_logger = logging.getLogger("jaxseg")


def refusal(query: jax.Array, key: jax.Array, value: jax.Array) -> str:
    """Returns why cuDNN is not called for this attention, without mask and bias; "" if it is.

    The first call for a dtype and a size compiles programs; later ones read the answer.
    It may be called while a program is traced. With several processes cuDNN is not called, since their answers could
    differ.

    Under a mesh that `compiler.jit` knows of, each device calls cuDNN for its own images; where it holds only a part of
    an image, cuDNN is not called. Nor is it with several devices and no mesh that is known while tracing: XLA cannot
    divide the call by tokens, or queries otherwise than keys, and jax raises an error then. A program that is lowered
    for several platforms at once must be traced in `forms.traced_for(..., cudnn=False)`, or with the variable above:
    jax lowers all branches of `lax.platform_dependent` for each of them.

    Args:
        query: f[b,q,n,d].
        key: f[b,t,n,d].
        value: f[b,t,n,e].
    """
    (b, queries, heads, width), keys = query.shape, key.shape[1]
    if not all(isinstance(size, int) and size for size in (b, queries, keys, heads, width)):
        return "a size is 0 or not known"
    if width != value.shape[-1] or width % _MULTIPLE or width > _WIDEST:
        return f"the width of a head is no multiple of {_MULTIPLE} up to {_WIDEST}, or not that of the values"
    if min(queries, keys) < _FEWEST or queries % 2 or keys % 2:
        return f"there are fewer than {_FEWEST} queries or keys, or an odd number, of which jax takes no gradient"
    if convolution_forms() == "plain" or not may_call_cudnn():
        return "the program has to do without it"
    if not _devices_have_whole_images(b):
        return "an image may be split over devices"
    return general_refusal(query.dtype.name) or _answer(query.dtype.name, queries, keys, width)


def general_refusal(dtype: str, same_bits: bool = False) -> str:
    """Returns why cuDNN is not called for attention of any size here; "" if it may be, size by size.

    Args:
        dtype: the name of a dtype.
        same_bits: whether the program has to give the same bits in every run.
    """
    if dtype not in ("bfloat16", "float16"):
        return f"cuDNN has no attention in {dtype}"
    if not _on_cuda():
        return "there is no NVIDIA GPU"
    if SWITCH in os.environ and os.environ[SWITCH].lower() == "off":
        return f"{SWITCH}=off"
    if jax.process_count() > 1:  # each would ask for itself, and all have to compile one program
        return "there are several processes"
    if same_bits or ("XLA_FLAGS" in os.environ and _FLAGS.search(os.environ["XLA_FLAGS"])):
        return "the same bits are asked for in every run"
    return ""


def fused_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v by cuDNN: f[b,q,n,d], f[b,t,n,d], f[b,t,n,d] -> f[b,q,n,d].

    Only a GPU compiles it, and only where `refusal` is "".
    """
    return by_device(_fused, query, key, value, axes=(0, 0, 0))


def _on_cuda() -> bool:
    return jax.default_backend() == "gpu" and "cuda" in jax.local_devices()[0].client.platform_version


def _devices_have_whole_images(count: int) -> bool:
    """Whether each device computes the attention of whole images, `by_device` or because there is no other device."""
    mesh = get_abstract_mesh()
    if mesh.empty:
        return jax.device_count() == 1
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    split = {name for name, kind in types if kind != AxisType.Manual and mesh.shape[name] > 1}
    sizes = mesh_axes()
    devices = math.prod(sizes[name] for name in (BATCH_AXIS, STATE_AXIS) if name in sizes)
    return not split or (split <= {BATCH_AXIS, STATE_AXIS} & set(sizes) and count % devices == 0)


# What cuDNN computes, and its place in JAX's transformations. The derivative of its call is another call, which has no
# derivative: derivatives of derivatives are those of the formula.


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _formula(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, implementation="xla")


@custom_vmap
def _together(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The identity, whose results `vmap` maps all or none: that of cuDNN's call in jax 0.10 knows nothing between."""
    return arrays


@_together.def_vmap
def _together_mapped(
    size: int, mapped: tuple[bool, ...], *arrays: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[bool, ...]]:
    each = (a if own else jnp.broadcast_to(a, (size, *a.shape)) for a, own in zip(arrays, mapped, strict=True))
    return tuple(each), (True,) * len(arrays)


@jax.custom_vjp
def _fused(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _cudnn(*_together(query, key, value))


@jax.custom_jvp
def _forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Attention, and what its gradient reads, without the empty arrays that jax passes on for a mask and the like."""
    y, pull_back = jax.vjp(_cudnn, *_together(query, key, value))
    return y, [a for a in jax.tree.leaves(pull_back) if a.size]


@_forward.defjvp
def _forward_tangents(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    y, saved = _forward(*primals)
    return (y, saved), (jax.jvp(_formula, primals, tangents)[1], [zero_from_primal(a) for a in saved])


@jax.custom_jvp
def _backward(inputs: tuple[jax.Array, ...], y: jax.Array, saved: list[jax.Array], dy: jax.Array) -> Any:
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda *arrays: jax.vjp(_cudnn, *arrays)[1], *inputs))
    kept = iter(saved)
    leaves = [next(kept) if shape.size else jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    _, dy = _together(y, dy)
    return jax.tree.unflatten(structure, leaves)(dy)


@_backward.defjvp
def _backward_tangents(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    (inputs, _, _, dy), (dinputs, _, _, ddy) = primals, tangents
    formula = lambda inputs, dy: jax.vjp(_formula, *inputs)[1](dy)  # noqa: E731
    return _backward(*primals), jax.jvp(formula, (inputs, dy), (dinputs, ddy))[1]


def _fused_forward(*inputs: jax.Array) -> tuple[jax.Array, Any]:
    y, saved = _forward(*inputs)
    return y, (inputs, y, saved)


_fused.defvjp(_fused_forward, lambda saved, dy: _backward(*saved, dy))


# The question.


@functools.cache
def _answer(dtype: str, queries: int, keys: int, width: int) -> str:
    """Returns why cuDNN is not called for these sizes; "" if it gives the numbers of the definition."""
    # A thread of its own has no part in the trace, the mesh and the settings of the caller.
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_ask, dtype, queries, keys, width).result()
    if answer:
        _logger.warning("cuDNN is not used for %d queries, %d keys, width %d: %s.", queries, keys, width, answer)
    return answer


def _ask(dtype: str, queries: int, keys: int, width: int) -> str:
    """Compiles attention and its gradients by cuDNN, for one image and two heads, and compares the numbers."""
    try:
        shapes = [(1, length, 2, width) for length in (queries, keys, keys, queries)]
        program = jax.jit(lambda *arrays: _value_and_gradients(_fused, *arrays))
        compiled = program.lower(*(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape in shapes)).compile()
        if queries * keys > _MOST_SCORES:
            return ""
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(shape).astype(jnp.dtype(dtype)) for shape in shapes]
        found = jax.device_get(compiled(*jax.device_put(arrays, jax.local_devices()[0])))
        for name, a, b in zip(("result", "dq", "dk", "dv"), found, _defined(*arrays), strict=True):
            difference = np.abs(a.astype(np.float32) - b).max() / np.abs(b).max()
            if not difference <= 4 * float(jnp.finfo(dtype).eps):
                return f"its {name} in {dtype} differs by {difference:.2g} of the largest value"
    except Exception as error:  # jax raises RuntimeError, ValueError and NotImplementedError, XLA its own
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    return ""


def _value_and_gradients(function: Callable[..., jax.Array], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    y, pull_back = jax.vjp(function, *arrays[:3])
    return y, *pull_back(arrays[3])


def _defined(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Attention and its gradients from the definition, in float32."""
    q, k, v, dy = (np.asarray(a, np.float32)[0].swapaxes(0, 1) for a in arrays)  # f[n,t,d]
    scale = q.shape[-1] ** -0.5
    scores = q @ k.swapaxes(1, 2) * scale
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dy @ v.swapaxes(1, 2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
    results = (p @ v, ds @ k, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ dy)
    return tuple(each.swapaxes(0, 1)[None] for each in results)

"""Times one function of an image by itself: jaxseg's implementation, a naive one, and torch's."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from lib.timing import compile_jit, interleave, torch_device

from jaxseg import nn as ours

# The largest difference between two implementations of one function, as a share of the largest value. TensorFloat-32
# has 10 bits.
ALLOWED = {"float32": 2e-3, "bfloat16": 2e-2}


class Primitive(NamedTuple):
    """One function in up to three implementations.

    Attributes:
        ours: (parameters, x) -> y.
        naive: the same function of the same parameters; None where there is no naive implementation.
        torch: (torch, parameters as tensors in torch's layout, x f[b,c,h,w]) -> y; None where torch has no such
            function.
        parameters: arrays.
        to_torch: parameters -> parameters for torch.
        shape: of x, f[b,h,w,c].
    """

    ours: Callable[..., jax.Array]
    naive: Callable[..., jax.Array] | None
    torch: Callable[..., Any] | None
    parameters: tuple[np.ndarray, ...]
    to_torch: Callable[..., tuple[np.ndarray, ...]]
    shape: tuple[int, int, int, int]


def channels_last(kernel: np.ndarray) -> np.ndarray:
    """Kernel f[u,v,c,o] -> torch's weight f[o,c,u,v], channels-last in memory."""
    return np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)).transpose(0, 3, 1, 2)


def batch_norm(layer: nn.Module, scale: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    stats = {"mean": jnp.zeros_like(bias), "var": jnp.ones_like(bias)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    train = {"train": True} if isinstance(layer, ours.BatchNorm) else {}
    return layer.apply(variables, x, mutable=["batch_stats"], **train)[0]


def measure(primitive: Primitive, repeats: int, dtype: Any) -> dict[str, Any]:
    """Returns {"forward": {implementation: median seconds}, "step": {...}, "difference": ...}.

    The difference is the largest one between ours and the naive implementation, of results and gradients, as a share of
    the largest value; None where there is no naive implementation.
    """
    rng = np.random.default_rng(1)
    image = rng.standard_normal(primitive.shape, np.float32)
    x = jnp.asarray(image, dtype)
    parameters = tuple(jnp.asarray(p, dtype) for p in primitive.parameters)
    y = jax.eval_shape(primitive.ours, *parameters, x)
    cotangent = jnp.asarray(rng.standard_normal(y.shape, np.float32), y.dtype)

    def step(function: Callable[..., jax.Array]) -> Callable[..., Any]:
        def result_and_gradients(cotangent: jax.Array, *args: jax.Array) -> Any:
            y, pull_back = jax.vjp(function, *args)
            return y, pull_back(cotangent.astype(y.dtype))

        return result_and_gradients

    forward, both = {}, {}
    for name, function in (("ours", primitive.ours), ("naive", primitive.naive)):
        if function is not None:
            program, _ = compile_jit(function, *parameters, x)
            gradient, _ = compile_jit(step(function), cotangent, *parameters, x)
            forward[name] = functools.partial(program, *parameters, x)
            both[name] = functools.partial(gradient, cotangent, *parameters, x)
    difference = None if primitive.naive is None else float(largest_difference(both["ours"](), both["naive"]()))
    if primitive.torch is not None and importlib.util.find_spec("torch") is not None:
        forward["torch"], both["torch"] = torch_calls(primitive, image, dtype)
    return {
        "forward": interleave(forward, repeats),
        "step": interleave(both, repeats),
        "difference": difference,
    }


@jax.jit  # on the device: a GPU's arrays are large, and the host is slow
def largest_difference(ours: Any, naive: Any) -> jax.Array:
    """The largest difference between two trees of arrays, each as a share of the largest value of its array: f32[]."""
    shares = []
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(naive), strict=True):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        shares.append(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
    return jnp.max(jnp.stack(shares))


def torch_calls(primitive: Primitive, x: np.ndarray, dtype: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns torch's forward call, and its call with gradients, for x f[b,h,w,c] in channels-last memory."""
    import torch

    place = {"device": torch_device(), "dtype": torch.bfloat16 if dtype == jnp.bfloat16 else torch.float32}
    image = torch.from_numpy(x).permute(0, 3, 1, 2).to(**place).requires_grad_()
    weights = [torch.from_numpy(p).to(**place).requires_grad_() for p in primitive.to_torch(*primitive.parameters)]

    def forward() -> Any:
        with torch.no_grad():
            return primitive.torch(torch, *weights, image)

    cotangent = torch.randn_like(forward())

    def step() -> Any:
        y = primitive.torch(torch, *weights, image)
        return y.detach(), torch.autograd.grad(y, [*weights, image], cotangent)

    return forward, step

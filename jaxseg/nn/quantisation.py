"""Numbers of few bits in place of float32: kernels, and what convolutions and dense layers read.

A kernel K has one scale for each output channel, s = max|K| / (2^(b-1) - 1), and is s q with whole numbers q
(symmetric, Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2.4). What a
layer reads is s (q - z) with one range [low, high] that includes 0 and q in [0, 2^b - 1], so that zero padding is exact
(affine, Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", equation 1).

Fake quantisation computes s q in floating point; its gradient is that of the identity (straight-through, Bengio et al.
2013, "Estimating or Propagating Gradients Through Stochastic Neurons", section 5), and 0 outside the range. It is the
arithmetic of whole numbers up to the rounding of float32 (of bfloat16, whose 8 digits do not hold every whole number of
8 bits, where `dtype` is that): no layer, and no form in which a layer is computed, knows of
it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxseg.errors import ConfigError
from jaxseg.nn.conv import Conv, ConvTranspose
from jaxseg.nn.dense import Dense
from jaxseg.nn.joined import whole
from jaxseg.nn.strips import StripConv
from jaxseg.types import PyTree

RANGE = "input_range"
"""The name in a layer's statistics of the range f32[2] of what it reads."""

MOMENTUM = 0.99  # of the moving average of the ranges

_STORED = {"values", "scales"}  # what a stored kernel is made of


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """What of a network has few bits.

    Attributes:
        weights: bits of the kernels of all convolutions and dense layers, 2 to 8; 0: float32.
        activations: bits of what these layers read, 2 to 8; 0: float32.
        skip: regular expressions, found anywhere in the path of a layer that stays in float32.
    """

    weights: int = 8
    activations: int = 0
    skip: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether the layer, or the parameter of a layer, at a path such as "encoder/stage1/conv" has few bits."""
        return not any(re.search(pattern, path) for pattern in self.skip)


def kernel_scales(kernel: jax.Array, bits: int) -> jax.Array:
    """f32[...,features] -> f32[features]: the step between the numbers of each channel; 1 where a kernel is 0."""
    top = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    return jnp.where(top > 0, top / _most(bits), 1.0)


def quantise_kernel(kernel: jax.Array, bits: int) -> tuple[jax.Array, jax.Array]:
    """f32[...,features] -> whole numbers i8[...,features] of `bits` bits, and their scales f32[features]."""
    scales = kernel_scales(kernel, bits)
    return jnp.round(kernel / _along(scales, kernel)).astype(jnp.int8), scales


def fake_kernel(kernel: jax.Array, bits: int) -> jax.Array:
    """f32[...,features] -> f32[...,features]: the kernel on the grid of its channels; the gradient is the identity."""
    rounded = restored_kernel(*quantise_kernel(jax.lax.stop_gradient(kernel), bits))
    return _straight_through(kernel, rounded)


def restored_kernel(values: jax.Array, scales: jax.Array) -> jax.Array:
    """i8[...,features], f32[features] -> f32[...,features]."""
    return values.astype(jnp.float32) * _along(scales, values)


def fake_input(x: jax.Array, span: jax.Array, bits: int) -> jax.Array:
    """f[...] -> f[...]: values on the grid of a range; the gradient is the identity inside it and 0 outside.

    Args:
        x: what a layer reads.
        span: f32[2], low <= 0 <= high; where the two are equal, as before any training, x is returned as it is.
        bits: of the numbers.
    """
    low, high = jax.lax.stop_gradient(span)
    steps = 2**bits - 1
    scale = jnp.where(high > low, (high - low) / steps, 1.0)
    zero = jnp.round(-low / scale)
    exact = x.astype(jnp.float32)
    q = jnp.round(jax.lax.stop_gradient(exact) / scale) + zero
    value = (jnp.clip(q, 0, steps) - zero) * scale
    inside = (q >= 0) & (q <= steps)
    passed = jnp.where(inside, exact, jax.lax.stop_gradient(exact))
    return jnp.where(high > low, _straight_through(passed, value), exact).astype(x.dtype)


def quantised_kernels(params: PyTree, quantisation: Quantisation) -> tuple[str, ...]:
    """Returns the paths of the kernels with few bits, such as "encoder/stage1/conv/kernel".

    Raises:
        ConfigError: for a pattern that is no regular expression or is found in no path of a kernel, or if no kernel is
            left.
    """
    kernels = [path for path in _flat(params) if path.rpartition("/")[2] == "kernel"]
    for pattern in quantisation.skip:
        try:
            found = any(re.search(pattern, path) for path in kernels)
        except re.error as error:
            raise ConfigError(f"quantise.skip must be regular expressions, got {pattern!r}: {error}.") from error
        if not found:
            raise ConfigError(f"quantise.skip={pattern} is found in no path of a kernel; one is {sorted(kernels)[0]}.")
    chosen = tuple(path for path in kernels if quantisation.covers(path))
    if not chosen:
        raise ConfigError("quantise.skip leaves no layer whose kernel has few bits; leave out a pattern.")
    return chosen


def with_fake_kernels(params: PyTree, quantisation: Quantisation) -> PyTree:
    """Returns the parameters with the kernels on their grids, for the network to be applied with."""
    flat = _flat(params)
    for path in quantised_kernels(params, quantisation):
        flat[path] = fake_kernel(flat[path], quantisation.weights)
    return unflatten_dict(flat, sep="/")


def stored_kernels(params: PyTree, quantisation: Quantisation) -> PyTree:
    """Returns the parameters with {"values": i8[...,features], "scales": f32[features]} in place of each kernel."""
    flat = _flat(params)
    for path in quantised_kernels(params, quantisation):
        values, scales = quantise_kernel(flat.pop(path), quantisation.weights)
        flat |= {f"{path}/values": values, f"{path}/scales": scales}
    return unflatten_dict(flat, sep="/")


def restored_kernels(stored: PyTree) -> PyTree:
    """Returns the parameters, with the kernels that `stored_kernels` has stored as float32."""
    if not isinstance(stored, Mapping):
        return stored
    if set(stored) == _STORED:
        return restored_kernel(stored["values"], stored["scales"])
    return {name: restored_kernels(child) for name, child in stored.items()}


class WithQuantisedInputs(nn.Module):
    """A network whose convolutions and dense layers read numbers of few bits: f[b,h,w,c] -> (f32[b,h,w,k], out).

    Each layer has its range in the statistics, f32[2] under the name `RANGE`: the mean over the images of a batch of
    the least and the greatest value of each. Training uses that of the batch, as batch norm has the batch's mean, and
    evaluation the moving average, with the momentum .99 and the first batch as its start. Parameters keep their paths.
    Products of two activations, as of attention, stay as they are.

    Attributes:
        model: a model of `jaxseg.models`, or a module around one.
        quantisation: the bits, and the layers that stay as they are.
        axis_name: the mapped axis that the batch is split over: the range is that of the whole batch.
        observe: the share of an image's values that its range includes, 1 for all. With it, nothing has few bits: with
            `mutable=["batch_stats"]` each call widens the ranges to include those of its own batch.
    """

    model: nn.Module  # not `network`, which a `WithCRF` inside has in the same scope
    quantisation: Quantisation
    axis_name: str | None = None
    observe: float | None = None

    def setup(self) -> None:
        nn.share_scope(self, self.model)

    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, Mapping[str, Any]]:
        def read(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            layer = context.module
            if context.method_name != "__call__" or not isinstance(layer, Conv | ConvTranspose | Dense | StripConv):
                return call(*args, **kwargs)
            if not self.quantisation.covers("/".join(layer.path)):
                return call(*args, **kwargs)
            return call(self._read(layer, whole(args[0]), train), *args[1:], **kwargs)

        with nn.intercept_methods(read):
            return self.model(image, train=train)

    def _read(self, layer: nn.Module, x: jax.Array, train: bool) -> jax.Array:
        """Returns what a layer reads, and keeps its range."""
        before = layer.get_variable("batch_stats", RANGE)
        writes = layer.is_mutable_collection("batch_stats")
        if layer.is_initializing():
            layer.put_variable("batch_stats", RANGE, jnp.zeros(2, jnp.float32))
            return x
        if before is None:
            raise ValueError(f"The layer {'/'.join(layer.path)} has no range; give the statistics of this network.")
        if self.observe is not None:
            if writes:
                span = _span(x, self.observe)
                wider = jnp.stack([jnp.minimum(before[0], span[0]), jnp.maximum(before[1], span[1])])
                layer.put_variable("batch_stats", RANGE, wider)
            return x
        if not train:
            return fake_input(x, before, self.quantisation.activations)
        span = _span(x, 1.0)
        if self.axis_name is not None:
            span = jax.lax.pmean(span, self.axis_name)
        if writes:
            unset = before[0] == before[1]
            average = jnp.where(unset, span, MOMENTUM * before + (1 - MOMENTUM) * span)
            layer.put_variable("batch_stats", RANGE, average)
        return fake_input(x, span, self.quantisation.activations)


def _span(x: jax.Array, share: float) -> jax.Array:
    """f[b,...] -> f32[2]: the range of this share of an image's values, with 0 inside; the mean over the batch."""
    x = jax.lax.stop_gradient(x).astype(jnp.float32).reshape(x.shape[0], -1)
    if share < 1:
        low, high = jnp.quantile(x, jnp.asarray([(1 - share) / 2, (1 + share) / 2]), axis=1)
    else:
        low, high = jnp.min(x, axis=1), jnp.max(x, axis=1)
    return jnp.stack([jnp.mean(jnp.minimum(low, 0.0)), jnp.mean(jnp.maximum(high, 0.0))])


def without_ranges(batch_stats: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statistics without the ranges of `WithQuantisedInputs`."""
    flat = {path: leaf for path, leaf in _flat(batch_stats).items() if path.rpartition("/")[2] != RANGE}
    return unflatten_dict(flat, sep="/")


def without_quantised_inputs(model: nn.Module) -> nn.Module:
    """Returns the network inside a `WithQuantisedInputs`, and any other module as it is."""
    return model.model if isinstance(model, WithQuantisedInputs) else model


@jax.custom_jvp
def _straight_through(x: jax.Array, rounded: jax.Array) -> jax.Array:
    """Returns `rounded`, bit for bit, with the gradient of `x`."""
    del x
    return rounded


@_straight_through.defjvp
def _straight_through_tangent(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return primals[1], tangents[0]


def _along(scales: jax.Array, kernel: jax.Array) -> jax.Array:
    """f[features] -> f[1,...,features], for a kernel f[...,features]."""
    return scales.reshape((1,) * (kernel.ndim - 1) + (-1,))


def _most(bits: int) -> int:
    """The largest whole number: 127 for 8 bits, so that the numbers are as many below 0 as above."""
    return 2 ** (bits - 1) - 1


def _flat(tree: PyTree) -> dict[str, Any]:
    return flatten_dict(tree, sep="/")

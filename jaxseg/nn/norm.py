"""Batch, instance, group and layer normalisation, chosen by name.

A network takes a norm as a `NormSpec`, which builds a layer at each place: `norm(name="norm1")(x, train=train)`. Scale
and bias are float32. Statistics are computed in float32, whatever the dtype of the input. The output has the dtype of
the input, or `dtype` if that is set.
"""

import dataclasses
import functools
import logging
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxseg.arguments import NotNegative, Share, WholeNotNegative, check, check_value
from jaxseg.errors import ArgumentError
from jaxseg.nn.dense import parameter
from jaxseg.nn.joined import Features, Joined
from jaxseg.nn.ops.batch_norm import batch_norm
from jaxseg.nn.ops.group_norm import group_norm
from jaxseg.nn.ops.layer_norm import layer_norm
from jaxseg.types import NormFactory

_LOG = logging.getLogger(__name__)


class _Norm(nn.Module):
    """The fields and parameters that all norms share."""

    dtype: Any = None
    epsilon: NotNegative = 1e-5

    def _affine(self, c: int) -> tuple[jax.Array, jax.Array]:
        scale = parameter(self, "scale", nn.initializers.ones_init(), (c,))
        return scale, parameter(self, "bias", nn.initializers.zeros_init(), (c,))


class BatchNorm(_Norm):
    """Batch normalisation of f[...,c] over all axes but the last (Ioffe & Szegedy 2015, Algorithm 1).

    `Joined` features stay in two parts.

    Training uses the statistics of the batch and moves the running statistics (collection "batch_stats": mean and
    biased variance, f32[c]) towards them by 1 - momentum; evaluation uses the running statistics. Under one `jit` over
    a sharded batch, the statistics are those of the global batch; under `pmap` or `vmap`, `axis_name` makes them so.

    Attributes:
        axis_name: mapped axis (or axes) to average the statistics over.
        momentum: share of the running statistics that is kept at each step (torch's momentum .1 is .9 here).
        epsilon: added to the variance.

    Raises:
        ArgumentError: in training on a single value a channel: it would return its bias, and its running variance
            would go to 0, by which evaluation divides.
    """

    axis_name: Any = None
    momentum: Share = 0.9

    @nn.compact
    def __call__(self, x: Features, *, train: bool = False) -> Any:
        c = x.shape[-1]
        scale, bias = self._affine(c)
        mean_ = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        var_ = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        if train:
            if not self.is_initializing() and not several_values(x, self.axis_name):
                raise ArgumentError(
                    f"The batch norm {'/'.join(self.path)} would have a single value a channel in training (one image "
                    "of 1x1 pixels there), whose variance is 0; give norm=group, a larger data.size, or more images in "
                    "a micro-batch (batch_size / accumulate)."
                )
            # The running mean is close to the mean; around it the one-pass variance loses no digits.
            centre = lax.stop_gradient(mean_.value)
            axis_name = None if self.is_initializing() else self.axis_name
            y, mean, var = self._with_statistics(x, scale, bias, centre, axis_name)
            if not self.is_initializing():
                mean_.value = self.momentum * mean_.value + (1 - self.momentum) * mean
                var_.value = self.momentum * var_.value + (1 - self.momentum) * var
            return y
        multiplier = lax.rsqrt(var_.value + self.epsilon) * scale
        if isinstance(x, Joined):
            return x.apply(self._shift, mean_.value, multiplier, bias)
        return self._shift(x, mean_.value, multiplier, bias)

    def _with_statistics(
        self, x: Features, scale: jax.Array, bias: jax.Array, centre: jax.Array, axis_name: Any
    ) -> tuple[Any, jax.Array, jax.Array]:
        """`batch_norm`; of `Joined` features, that of the two parts, since to repeat values changes no statistic."""
        if not isinstance(x, Joined):
            return batch_norm(x, scale, bias, centre, self.epsilon, axis_name, self.dtype)
        c = x.coarse.shape[-1]
        coarse = self._with_statistics(x.coarse, scale[:c], bias[:c], centre[:c], axis_name)
        fine = self._with_statistics(x.fine, scale[c:], bias[c:], centre[c:], axis_name)
        mean, var = (jnp.concatenate(both) for both in zip(coarse[1:], fine[1:]))
        return Joined(coarse[0], fine[0]), mean, var

    def _shift(self, x: jax.Array, mean: jax.Array, multiplier: jax.Array, bias: jax.Array) -> jax.Array:
        """(x - mean) multiplier + bias of f[...,c] and f32[c]."""
        mean, multiplier, bias = (each.reshape((1,) * (x.ndim - 1) + (-1,)) for each in (mean, multiplier, bias))
        y = (x.astype(jnp.float32) - mean) * multiplier + bias
        return y.astype(self.dtype or x.dtype)


@functools.cache  # a training traces its step several times
def _note_single_values(path: str) -> None:
    _LOG.warning(
        "The norm %s has a single value in each group of an image in training (1x1 pixels there), so that it returns "
        "its bias whatever its input is; give fewer groups (model.args.norm=group), or a larger data.size where the "
        "pixels grow with it.",
        path,
    )


class GroupNorm(_Norm):
    """Group normalisation of f[b,...,c] over the space and channels of each group (Wu & He 2018, eq. 7).

    Attributes:
        num_groups: groups of consecutive channels; where it does not divide c, the greatest common divisor of the two
            replaces it. 0 puts every channel into its own group, which is instance normalisation (Ulyanov 2016).
        epsilon: added to the variance.
    """

    num_groups: WholeNotNegative = 8

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        scale, bias = self._affine(c)
        groups = math.gcd(self.num_groups, c)  # gcd(0, c) = c
        if train and not self.is_initializing() and math.prod(x.shape[1:-1]) * c == groups:
            _note_single_values("/".join(self.path))
        return group_norm(x, scale, bias, groups, self.epsilon).astype(self.dtype or x.dtype)


class LayerNorm(_Norm):
    """Layer normalisation of f[...,c] over the channels of each position (Ba 2016, as in ViT and ConvNeXt)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        scale, bias = self._affine(x.shape[-1])
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)


class Identity(nn.Module):
    """No normalisation: returns its input."""

    def __call__(self, x: Features, *, train: bool = False) -> Any:
        del train
        return x


NormName = Literal["batch", "instance", "group", "layer", "none"]
_LAYERS: dict[str, type[nn.Module]] = {
    "batch": BatchNorm,
    "instance": GroupNorm,
    "group": GroupNorm,
    "layer": LayerNorm,
    "none": Identity,
}


@dataclasses.dataclass(frozen=True)
class NormSpec:
    """A norm by its name, and fields of its layer: `spec(name="norm1")` builds the layer.

    Specs are equal, and of equal hash, if name and fields are, so that equal networks share a compilation.

    Attributes:
        name: "batch", "instance", "group", "layer" or "none".
        fields: pairs of a field of the layer and its value, sorted.
    """

    name: str
    fields: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *, name: str | None = None, **defaults: Any) -> nn.Module:
        """Builds the layer, with those of `defaults` (epsilon, momentum) that `with_defaults` takes."""
        return _LAYERS[self.name](**dict(self.with_defaults(**defaults).fields), name=name)

    def with_defaults(self, **defaults: Any) -> "NormSpec":
        """Returns the spec with those of `defaults` that the layer has as fields and `fields` does not set."""
        known = {f.name for f in dataclasses.fields(_LAYERS[self.name])}
        fields = {key: value for key, value in defaults.items() if key in known} | dict(self.fields)
        return NormSpec(self.name, tuple(sorted(fields.items())))


def make_norm(name: str, *, axis_name: Any = None, dtype: Any = None, **kwargs: Any) -> NormSpec:
    """Returns what builds a norm layer: `norm(name="norm1")(x, train=train)`.

    A network whose paper has its own epsilon or momentum passes `norm(name="norm1", epsilon=1e-3)`. Norms without such
    a field ignore it, and an argument that is given here has precedence.

    Args:
        name: "batch" (over batch and space), "instance", "group" (8 groups by default), "layer" (over the channels of
            each pixel) or "none".
        axis_name: mapped axis over which batch statistics are synchronised; the other norms ignore it.
        dtype: dtype of the output; None keeps the dtype of the input.
        **kwargs: further fields of the layer: epsilon, momentum (batch), num_groups (group).

    Raises:
        ArgumentError: for an unknown name or argument, naming the nearest known one, or an invalid value.
    """
    check_value("norm", name, NormName)
    given = ("parent", "name", "dtype", "axis_name", *(("num_groups",) if name == "instance" else ()))
    hints = {f.name: f.type for f in dataclasses.fields(_LAYERS[name]) if f.name not in given}
    fields = check(f"the norm {name}", kwargs, hints)
    if name == "batch":
        fields["axis_name"] = axis_name
    if name == "instance":
        fields["num_groups"] = 0
    if name != "none":
        fields["dtype"] = dtype
    return NormSpec(name, tuple(sorted(fields.items())))


def with_defaults(norm: NormFactory | None, **defaults: Any) -> NormFactory | None:
    """Returns `norm` with a default epsilon, momentum, ... for every layer that it builds; None stays None."""
    if norm is None or isinstance(norm, NormSpec):
        return norm if norm is None else norm.with_defaults(**defaults)
    return functools.partial(norm, **defaults)


def several_values(x: Features, axis_name: Any) -> bool:
    """Whether f[b,...,c], over the mapped axis (or axes) too, has more than one value per channel to normalise.

    For a single value, batch norm would return its bias and move its running variance to zero, so it raises an error;
    where a branch pools the image to one value, the caller passes `train=False` for the running statistics.
    """
    parts = 1 if axis_name is None else lax.axis_size(axis_name)
    return math.prod(x.shape[:-1]) * parts > 1


def uses_batch(block: nn.Module, x: jax.Array, axis_name: Any, *, train: bool) -> bool:
    """Whether norms of f[b,...,c] in `block` take the statistics of the batch: in training, of several values.

    While variables are made no axis is mapped, and `axis_name` is left out.
    """
    return train and several_values(x, None if block.is_initializing() else axis_name)


def is_identity(norm: NormFactory | None) -> bool:
    """Whether `norm` normalises nothing, so that the convolution before it needs a bias."""
    if isinstance(norm, functools.partial):
        norm = norm.func
    return norm is None or norm is Identity or (isinstance(norm, NormSpec) and norm.name == "none")

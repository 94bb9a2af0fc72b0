"""Dropout of entries, of channels, of tokens and of whole residual branches.

The mask of an example depends only on the "dropout" key and on the index of the example in the global batch. One
program over the whole batch, and one replica per device (with the `axis_name` of the `pmap`), draw the same masks.

Monte-Carlo dropout (Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation", section 4) predicts with dropout, but
with the running statistics of batch norm. A key of the stream `MONTE_CARLO` asks for it, whatever the network:

    model.apply(variables, image, train=False, rngs={"monte_carlo": key})

Stochastic depth stays off there, unless there is also a key of the stream `MONTE_CARLO_DEPTH`.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxseg.errors import ArgumentError

MONTE_CARLO = "monte_carlo"
"""The stream of keys that switches `Dropout` on where `train` is False."""

MONTE_CARLO_DEPTH = "monte_carlo_depth"
"""The stream of keys that switches `StochasticDepth` on where `train` is False."""


class Dropout(nn.Module):
    """f[b,...,c], same shape: in training, entries are zero with probability `rate`, and the rest times 1 / (1 - rate).

    Srivastava et al. 2014.

    It draws from the stream "dropout". Without `train` it draws from the stream `MONTE_CARLO` if `apply` is given a key
    of it, and otherwise returns its input.

    Attributes:
        rate: probability of dropping, in [0, 1].
        axis_name: the mapped axis that the batch is split over, if any.
        spatial: whether whole channels are dropped (Tompson 2015), not single entries.
        tokens: whether whole tokens (or pixels) are dropped, each with all of its channels.

    Raises:
        ValueError: for a rate outside of [0, 1], or with both `spatial` and `tokens`.
    """

    rate: float
    axis_name: str | None = None
    spatial: bool = False
    tokens: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if self.spatial and self.tokens:
            raise ArgumentError("Dropout drops whole channels (spatial) or whole tokens (tokens), not both.")
        shape = (*(1 for _ in x.shape[1:-1]), x.shape[-1]) if self.spatial else x.shape[1:]
        shape = (*x.shape[1:-1], 1) if self.tokens else shape
        monte_carlo = not train and self.has_rng(MONTE_CARLO)
        return _drop(self, x, shape, MONTE_CARLO if monte_carlo else "dropout" if train else None)


class StochasticDepth(nn.Module):
    """Drops the residual branch f[b,...] of whole examples with probability `rate` when `train` (Huang 2016).

    A branch that is kept is scaled by 1 / (1 - rate), so that evaluation needs no scale. Call it on the branch, before
    the sum: `x + StochasticDepth(rate, name="drop")(branch, train=train)`. Without `train` it draws from the stream
    `MONTE_CARLO_DEPTH` if `apply` is given a key of it, and otherwise returns its input.

    Attributes:
        rate: probability of dropping, in [0, 1].
        axis_name: the mapped axis that the batch is split over, if any.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        monte_carlo = not train and self.has_rng(MONTE_CARLO_DEPTH)
        return _drop(self, x, (1,) * (x.ndim - 1), MONTE_CARLO_DEPTH if monte_carlo else "dropout" if train else None)


def _drop(module: Dropout | StochasticDepth, x: jax.Array, shape: tuple[int, ...], stream: str | None) -> jax.Array:
    """f[b,...] -> f[b,...]: each example has its own mask, of a `shape` that broadcasts to that of the example.

    The masks are drawn from `stream`; None drops nothing.
    """
    rate = module.rate
    if not (isinstance(rate, int | float | np.number) and 0.0 <= rate <= 1.0):
        raise ArgumentError(f"{type(module).__name__}.rate must be a number in [0, 1], got {rate!r}.")
    if stream is None or rate == 0.0:
        return x
    if rate == 1.0:
        return jnp.zeros_like(x)
    keep = draw_of_examples(module, stream, x.shape[0], 1.0 - rate, shape, module.axis_name)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros_like(x))


def draw_of_examples(
    module: nn.Module,
    stream: str,
    examples: int,
    probability: float | jax.Array,
    shape: tuple[int, ...],
    axis_name: str | None,
) -> jax.Array:
    """Returns bool[examples,*shape], True with this probability, drawn from the place of each in the global batch.

    Args:
        module: the compact module that calls this, whose key of `stream` is used.
        stream: name of the stream of keys.
        examples: their number on this device.
        probability: of True, a number or f32[].
        shape: of what is drawn for each example.
        axis_name: the mapped axis that the batch is split over, if any.
    """
    keys = keys_of_examples(module, stream, examples, axis_name)
    # The bits of an example are drawn in one row: the same bits, but for those of its shape XLA on CPUs unrolls the
    # generator over the channels, which takes 5 to 15 s of compilation for each layer.
    drawn = jax.vmap(lambda key: jax.random.bernoulli(key, probability, (math.prod(shape),)))(keys)
    return drawn.reshape(-1, *shape)


def keys_of_examples(module: nn.Module, stream: str, examples: int, axis_name: str | None) -> jax.Array:
    """Returns a key for each example, from its place in the global batch: Key[examples]. See `draw_of_examples`."""
    index = jnp.arange(examples)
    if axis_name is not None and not module.is_initializing():
        index = index + lax.axis_index(axis_name) * examples
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(module.make_rng(stream), index)


def drop_rates(greatest: float, depths: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Returns the rate of stochastic depth of each block of each stage, `depths[i]` blocks in stage i.

    It grows linearly over the blocks of the whole network, from 0 at the first to `greatest` at the last.
    """
    total = sum(depths)
    rates = iter([greatest * i / max(total - 1, 1) for i in range(total)])
    return tuple(tuple(itertools.islice(rates, depth)) for depth in depths)

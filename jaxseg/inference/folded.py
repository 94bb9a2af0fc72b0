"""A trained network with its batch norms folded into its convolutions, which predicts and is scored faster."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.folding import Pair, find_pairs, fold, folded
from jaxseg.run.load import Run
from jaxseg.state import TrainState
from jaxseg.types import PyTree


@dataclasses.dataclass(frozen=True)
class FoldedModel:
    """A model in inference without the batch norms of `pairs`; it takes the variables of `nn.folding.fold`.

    Attributes:
        model: the model with all its batch norms.
        pairs: the batch norms and the convolutions before them.
    """

    model: nn.Module
    pairs: tuple[Pair, ...]

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> (logits, out)."""
        return folded(self.model.apply, self.pairs)(variables, image, **arguments)


def fold_run(run: Run) -> tuple[FoldedModel, TrainState]:
    """Returns the network of a run for inference, and its state, with the parameters that evaluation uses.

    Its logits are those of the run up to rounding.
    """
    model, variables = run.parts.model, run.variables
    image = jax.ShapeDtypeStruct((1, *run.parts.image_shape), jnp.float32)
    shapes = jax.eval_shape(lambda: variables)
    pairs = find_pairs(lambda variables, image: model.apply(variables, image, train=False), shapes, image)
    params = fold(variables, pairs)["params"]
    return FoldedModel(model, pairs), dataclasses.replace(run.state, params=params, ema_params=None)

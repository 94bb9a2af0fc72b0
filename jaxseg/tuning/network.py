"""A network of which a part trains: what a training step applies in its place."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import jax
from flax import linen as nn

from jaxseg.nn.draws import initialise
from jaxseg.nn.norm import BatchNorm
from jaxseg.nn.quantisation import Quantisation, with_fake_kernels
from jaxseg.tuning.lora import Lora, init_adapters, merged
from jaxseg.tuning.selection import EVERYTHING, Selection
from jaxseg.types import ENCODER, LORA, Key, PyTree

FrozenNorms: TypeAlias = Literal["none", "encoder", "all"]
_LORA_STREAM = 2  # of the key that the parameters are drawn from; a discriminator has stream 1


@dataclasses.dataclass(frozen=True)
class TunedNetwork:
    """A network with frozen parts, adapters or few bits: the `init` and `apply` of a model (`state.Learner`).

    The gradient of a frozen parameter is 0, and what only it would need of the backward pass is not computed: with a
    frozen encoder the pass ends where the decoder reads its features.

    Attributes:
        network: a model of `jaxseg.models`, or any Linen module with the same arguments.
        selection: the parameters that train.
        frozen_norms: "encoder" or "all": the batch norms of the encoder, or all, use their running statistics in
            training, and these stay as they are. Scale and bias are parameters, which `selection` freezes or not.
        lora: the adapters, in the child "lora" of the parameters; None: there are none.
        quantisation: the kernels that have few bits, with the adapters in them; None: none has.
    """

    network: nn.Module
    selection: Selection = EVERYTHING
    frozen_norms: FrozenNorms = "none"
    lora: Lora | None = None
    quantisation: Quantisation | None = None

    def init(self, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> dict[str, PyTree]:
        """f32[b,h,w,c] -> the network's variables, with the adapters under params/lora.

        Raises:
            ConfigError: if the network has no layer for an adapter.
        """
        variables = dict(initialise(self.network, rngs, image, **arguments))
        if self.lora is None:
            return variables
        key = jax.random.fold_in(rngs["params"], _LORA_STREAM)
        adapters = init_adapters(key, variables["params"], self.lora, self.selection.trains)
        return {**variables, "params": {**variables["params"], LORA: adapters}}

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> what the network's `apply` returns."""
        params = self._stopped(variables["params"])
        if self.lora is not None:
            params = merged(params, self.lora)
        if self.quantisation is not None:
            params = with_fake_kernels(params, self.quantisation)
        with _norms_in_evaluation(self.frozen_norms):
            return self.network.apply({**variables, "params": params}, image, **arguments)

    def _stopped(self, params: PyTree) -> PyTree:
        if self.selection.everything:
            return params

        def stop(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return leaf if self.selection.trains(name) else jax.lax.stop_gradient(leaf)

        return jax.tree_util.tree_map_with_path(stop, params)


@contextlib.contextmanager
def _norms_in_evaluation(which: FrozenNorms) -> Iterator[None]:
    """Applies the batch norms of the encoder, or all, with their running statistics, whatever `train` is."""

    def evaluated(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        frozen = isinstance(layer, BatchNorm) and (which == "all" or layer.path[:1] == (ENCODER,))
        if frozen and context.method_name == "__call__":
            return call(*args, **{**kwargs, "train": False})
        return call(*args, **kwargs)

    with contextlib.nullcontext() if which == "none" else nn.intercept_methods(evaluated):
        yield

"""Rematerialisation (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, section 4).

The backward pass of a network needs what the forward pass has computed. Kept from stage to stage alone, and computed
anew for one stage at a time (the paper's segments), it takes the memory of the borders and of the largest stage.
One `jax.checkpoint` of the whole network that saves the named borders is no substitute: XLA may compute all stages anew
before the first is used. Measured on a CPU, that saved a U-Net nothing, where this halves what a step needs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

# Children of a network that are made of stages; every other child is a stage itself.
_PATHS_OF_STAGES = ("encoder", "decoder")


def is_stage(path: tuple[str, ...]) -> bool:
    """Whether the module at `path` in a network is a stage: a child of its encoder, of its decoder, or of its own."""
    return len(path) == (2 if path and path[0] in _PATHS_OF_STAGES else 1)


def rematerialised(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the `apply` of a network with every stage under `jax.checkpoint`: same results, variables and dropout.

    It asks nothing of a network but the names of its children, so any Linen module may be given.
    """

    @functools.wraps(apply)
    def applied(*args: Any, **kwargs: Any) -> Any:
        inside = False

        def interceptor(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            nonlocal inside
            if inside or context.method_name != "__call__" or not is_stage(context.module.path):
                return call(*args, **kwargs)
            leaves, tree = jax.tree.flatten((args, kwargs))
            # What is no array (train=True, the size of an image) must stay what it is, and not be traced.
            arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}

            def stage(module: nn.Module, arrays: dict[int, jax.Array]) -> Any:
                args, kwargs = tree.unflatten([arrays[i] if i in arrays else leaf for i, leaf in enumerate(leaves)])
                return module(*args, **kwargs)

            inside = True
            try:
                return nn.remat(stage)(context.module, arrays)
            finally:
                inside = False

        with nn.intercept_methods(interceptor):
            return apply(*args, **kwargs)

    return applied

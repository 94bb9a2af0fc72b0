"""Rematerialisation (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, section 4).

The backward pass of a network needs the results of the forward pass. If only the results of whole stages are kept, and
those inside a stage are computed again, one stage at a time (the paper's segments), a step needs the memory of the
stages' results and of the largest stage. One `jax.checkpoint` of the whole network that saves the stages' results does
not do this: XLA may compute all stages again before it uses the first. Measured on a CPU, that saved no memory for a
U-Net, while one `jax.checkpoint` for each stage halves the memory of a step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

# Children of a network that consist of stages; every other child is a stage itself.
_PATHS_OF_STAGES = ("encoder", "adapter", "decoder", "transformer")


def is_stage(path: tuple[str, ...]) -> bool:
    """Whether the module at `path` in a network is a stage: a child of one of `_PATHS_OF_STAGES`, or another child."""
    return len(path) == (2 if path and path[0] in _PATHS_OF_STAGES else 1)


def rematerialised(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the `apply` of a network with every stage under `jax.checkpoint`: same results, variables and dropout.

    It uses only the names of the network's children, so it works for any Linen module.
    """

    @functools.wraps(apply)
    def applied(*args: Any, **kwargs: Any) -> Any:
        inside = False

        def interceptor(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            nonlocal inside
            if inside or context.method_name != "__call__" or not is_stage(context.module.path):
                return call(*args, **kwargs)
            leaves, tree = jax.tree.flatten((args, kwargs))
            # Values that are not arrays (train=True, the size of an image) must not be traced.
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

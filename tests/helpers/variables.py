"""The variables of a module: their shapes, their paths, random values for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def shapes(model: nn.Module, image: tuple[int, ...], train: bool = False):
    """Returns (variables, logits, out) as shapes, without computing anything.

    One trace gives all three: the outputs are those of the call that makes the variables, auxiliary logits included.
    """
    (logits, out), variables = jax.tree.map(lambda leaf: leaf, initialised(model, (image,), train))
    return variables, logits, out


def applied_shapes(model: nn.Module, variables, image: tuple[int, ...], train: bool = False):
    """Returns (logits, out) as shapes, of a call with these variables."""
    apply = functools.partial(model.apply, train=train, mutable=["batch_stats"], rngs=_rngs())
    return jax.eval_shape(apply, variables, jax.ShapeDtypeStruct(image, jnp.float32))[0]


def variable_shapes(model: nn.Module, image: tuple[int, ...]):
    """Returns the variables as shapes."""
    return jax.tree.map(lambda leaf: leaf, initialised(model, (image,))[1])


@functools.cache
def initialised(module: nn.Module, inputs: tuple[tuple[int, ...], ...], train: bool = False):
    """Returns (outputs, variables) as shapes; equal modules and inputs of a test process are traced once."""
    call = functools.partial(module.init_with_output, **({"train": True} if train else {}))
    return jax.eval_shape(call, _rngs(), *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs))


def _rngs() -> dict[str, jax.Array]:
    return {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def drawn(module: nn.Module, *inputs):
    """Variables with every leaf random, so that no scale of one or bias of zero hides a mistake."""
    if all(np.ndim(x) and x.dtype == jnp.float32 for x in inputs):
        _, variables = initialised(module, tuple(x.shape for x in inputs))
    else:
        variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def paths(tree) -> set[str]:
    """Returns the paths of a tree's leaves, as "encoder/stage0/conv/kernel"."""
    return {"/".join(p.key for p in path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


def count_parameters(model: nn.Module, channels: int = 3) -> int:
    """Returns the number of parameters of a model or an encoder."""
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(model, (1, 64, 64, channels))["params"]))

"""The variables of a module: their shapes, their paths, random values for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def shapes(model: nn.Module, image: tuple[int, ...], train: bool = False):
    """Returns (variables, logits, out) as shapes, without computing anything."""
    variables = variable_shapes(model, image)
    logits, out = jax.tree.map(lambda leaf: leaf, _output_shapes(model, image, train))
    return jax.tree.map(lambda leaf: leaf, variables), logits, out


@functools.cache
def variable_shapes(model: nn.Module, image: tuple[int, ...]):
    """The variables as shapes; traced once for each network and image of a test process."""
    x = jax.ShapeDtypeStruct(image, jnp.float32)
    return jax.eval_shape(lambda x: model.init(_rngs(), x), x)


@functools.cache
def _output_shapes(model: nn.Module, image: tuple[int, ...], train: bool):
    x = jax.ShapeDtypeStruct(image, jnp.float32)
    apply = functools.partial(model.apply, train=train, mutable=["batch_stats"], rngs=_rngs())
    outputs, _ = jax.eval_shape(apply, variable_shapes(model, image), x)
    return outputs


def _rngs() -> dict[str, jax.Array]:
    return {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def drawn(module: nn.Module, *inputs):
    """Variables with every leaf random, so that no scale of one or bias of zero hides a mistake."""
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
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))

"""The parameters that are drawn together are those that Linen draws one by one."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import tiny

from jaxseg.nn import initialise, initializers
from jaxseg.nn.dense import parameter

DRAWS = {
    "he_normal": (initializers.he_normal, jax.nn.initializers.he_normal()),
    "he_uniform": (initializers.he_uniform, jax.nn.initializers.he_uniform()),
    "lecun_normal": (initializers.lecun_normal, jax.nn.initializers.lecun_normal()),
    "xavier_uniform": (initializers.xavier_uniform, jax.nn.initializers.xavier_uniform()),
    "fan_out": (
        initializers.variance_scaling(2.0, "fan_out", "normal"),
        jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    ),
    "normal": (initializers.normal(0.02), jax.nn.initializers.normal(0.02)),
    "truncated_normal": (initializers.truncated_normal(0.02), jax.nn.initializers.truncated_normal(0.02)),
}


class Kernels(nn.Module):
    """A parameter of each shape, with one initialiser."""

    draw: initializers.Draw
    shapes: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, shape in enumerate(self.shapes):
            parameter(self, f"kernel{i}", self.draw, shape)
        return x


# Of values up to 3. Older versions of jax round programs that are fused otherwise in another way.
ROUNDING = 0.0 if jax.__version_info__ >= (0, 12) else 2.5e-7


def same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=ROUNDING, rtol=0, strict=True), a, b)


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_that_of_jax(name: str, key) -> None:
    ours, theirs = DRAWS[name]
    for shape in ((3, 3, 2, 4), (5, 7)):
        same(ours(key, shape), theirs(key, shape))


@pytest.mark.parametrize("name", DRAWS)
def test_many_draws_at_once_are_those_of_linen(name: str, key, monkeypatch) -> None:
    """Sizes of a row, one more and one less, of several parts of the loop, and of more than one flat array."""
    module = importlib.import_module("jaxseg.nn.initialise")
    row = module._ROW
    monkeypatch.setattr(module, "_TOGETHER", 2)
    monkeypatch.setattr(module, "_MOST", 4 * row)
    network = Kernels(DRAWS[name][0], ((1, 1), (1, row), (row + 1, 1), (3, 5, 1, row // 15), (2, row), (2, 3)))
    x = jnp.zeros((1, 2, 2, 3))
    linen = jax.jit(network.init)({"params": key}, x)
    same(jax.jit(lambda key: initialise(network, {"params": key}, x))(key), linen)


# The scan over shared units, the positions of a transformer, its queries, and the constants of a norm.
@pytest.mark.parametrize("name", ["segformer", "mask2former", "recurrent"])
def test_a_network_starts_as_linen_starts_it(name: str, key) -> None:
    network = tiny("resunet", blocks=3, shared=True) if name == "recurrent" else tiny(name)
    x = jnp.zeros((1, 32, 32, 3))
    linen = jax.jit(lambda key: network.init({"params": key}, x, train=False))(key)
    same(jax.jit(lambda key: initialise(network, {"params": key}, x, train=False))(key), linen)


@pytest.mark.parametrize("kind", ["rbg", "legacy", "counted otherwise"])
def test_other_keys_are_left_to_linen(kind: str) -> None:
    network, x = Kernels(initializers.he_normal, ((2, 3), (3, 4))), jnp.zeros((1, 2, 2, 3))
    key = jax.random.key(3, impl="rbg") if kind == "rbg" else jax.random.key(3)
    if kind == "legacy":
        key = jax.random.PRNGKey(3)
    with jax.threefry_partitionable(kind != "counted otherwise"):
        same(initialise(network, {"params": key}, x), network.init({"params": key}, x))


class Scaled(nn.Module):
    """A network that changes its parameters on their way to the variables."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        halve = nn.map_variables(
            Kernels,
            "params",
            trans_in_fn=lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree),
            trans_out_fn=lambda tree: jax.tree.map(lambda leaf: leaf / 2, tree),
            init=True,
            mutable=True,
        )
        return halve(initializers.he_normal, ((2, 3),), name="halved")(x)


def test_a_changed_parameter_is_left_to_linen(key) -> None:
    x = jnp.zeros((1, 2, 2, 3))
    same(initialise(Scaled(), {"params": key}, x), Scaled().init({"params": key}, x))


def test_a_constant_counts_as_linen_counts_it(key) -> None:
    """The key of a parameter depends on how many came before it in its module."""

    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            parameter(self, "scale", nn.initializers.ones_init(), (3,))
            parameter(self, "kernel", initializers.he_normal, (3, 4))
            parameter(self, "free", lambda key, shape, dtype: jax.random.normal(key, shape, dtype), (3,))
            parameter(self, "bias", nn.initializers.zeros_init(), (3,))
            parameter(self, "last", initializers.normal(1.0), (3, 4))
            return x

    x = jnp.zeros((1, 2, 2, 3))
    same(initialise(Mixed(), {"params": key}, x), Mixed().init({"params": key}, x))


def test_the_program_has_one_draw_for_each_distribution(key) -> None:
    x = jnp.zeros((1, 32, 32, 3))
    network = tiny("unet")
    program = jax.jit(lambda key: initialise(network, {"params": key}, x, train=False)).lower(key).as_text()
    assert program.count("stablehlo.while") <= 3
    assert jax.jit(lambda key: network.init({"params": key}, x, train=False)).lower(key).as_text().count("threefry") > 3

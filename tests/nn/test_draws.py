"""The parameters that are drawn together are those that Linen draws one by one."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import tiny

from jaxseg.nn import Dense, draws, initialise, initializers

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


def chain(draw: initializers.Draw, *widths: int) -> nn.Sequential:
    """Affine maps, whose kernels are [3,w], [w,w'] and so on."""
    return nn.Sequential([Dense(width, kernel_init=draw) for width in widths])


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """How many parameters each call of `initialise` has drawn together."""
    counts: list[int] = []
    together = draws._drawn

    def count(key: Any, noted: Any) -> Any:
        counts.append(len(noted))
        return together(key, noted)

    monkeypatch.setattr(draws, "_drawn", count)
    return counts


@pytest.mark.parametrize("name", DRAWS)
def test_many_draws_at_once_are_those_of_linen(name: str, key, monkeypatch, drawn) -> None:
    """Sizes of a row, one more and one less, of several parts of the loop, and of more than one flat array."""
    row = draws._ROW
    monkeypatch.setattr(draws, "_TOGETHER", 2)
    monkeypatch.setattr(draws, "_MOST", 4 * row)
    network = chain(DRAWS[name][0], 1, row, 1, row + 1, 1, row - 1, 2, 3)
    x = jnp.zeros((1, 2, 2, 3))
    linen = jax.jit(network.init)({"params": key}, x)
    same(jax.jit(lambda key: initialise(network, {"params": key}, x))(key), linen)
    assert drawn == [8]


@pytest.mark.parametrize("name", ["segformer", "segmenter", "mask2former", "recurrent"])
def test_a_network_starts_as_linen_starts_it(name: str, key, drawn) -> None:
    """Also what Linen makes in between: the places of deformable attention, and the units of a scan."""
    network = tiny("resunet", blocks=3, shared=True) if name == "recurrent" else tiny(name)
    x = jnp.zeros((1, 32, 32, 3))
    linen = jax.jit(lambda key: network.init({"params": key}, x, train=False))
    same(jax.jit(lambda key: initialise(network, {"params": key}, x, train=False))(key), linen(key))
    other = linen(jax.random.key(1))
    random = sum(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), linen(key), other)))
    units = 10 if name == "recurrent" else 0  # two kernels of the unit that each of five stages repeats
    assert drawn == [random - units] and random > 20


def test_seeds_side_by_side_are_those_of_each(key) -> None:
    network, x = chain(initializers.he_normal, 4, 5), jnp.zeros((1, 2, 2, 3))
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda key: initialise(network, {"params": key}, x))(keys)
    for i, each in enumerate(keys):
        alone = network.init({"params": each}, x)
        same(jax.tree.map(operator.itemgetter(i), together), alone)


@pytest.mark.parametrize("kind", ["rbg", "legacy", "counted otherwise"])
def test_other_keys_are_left_to_linen(kind: str, drawn) -> None:
    network, x = chain(initializers.he_normal, 4), jnp.zeros((1, 2, 2, 3))
    key = jax.random.key(3, impl="rbg") if kind == "rbg" else jax.random.key(3)
    if kind == "legacy":
        key = jax.random.PRNGKey(3)
    with jax.threefry_partitionable(kind != "counted otherwise"):
        same(initialise(network, {"params": key}, x), network.init({"params": key}, x))
    assert not drawn


class Normalised(nn.Module):
    """A parameter that starts as the norm of another, as in weight normalisation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Dense(4, name="dense")(x)
        kernel = self.variables["params"]["dense"]["kernel"]
        self.param("gain", lambda key: jnp.linalg.norm(kernel))
        return y


def test_a_network_from_elsewhere_is_left_to_linen(key, drawn) -> None:
    x = jnp.zeros((1, 2, 2, 3))
    network = nn.Sequential([Dense(2), Normalised()])
    found = initialise(network, {"params": key}, x)
    same(found, network.init({"params": key}, x))
    assert found["params"]["layers_1"]["gain"] > 0 and not drawn


def test_what_has_no_fan_or_no_values_is_left_to_linen(key) -> None:
    assert initializers.normal(1.0).can_draw((3,)) and not initializers.he_normal.can_draw((3,))
    assert not initializers.normal(1.0).can_draw((3, 0))
    x = jnp.zeros((1, 2, 2, 3))
    network = chain(initializers.normal(1.0), 0)
    same(initialise(network, {"params": key}, x), network.init({"params": key}, x))
    with pytest.raises(ValueError, match="uniform Draw takes its variance"):
        initializers.Draw("uniform", 0.1)


def test_draws_that_nobody_reads_are_left_out_one_by_one(key) -> None:
    """Weights of a large encoder leave the head to draw, whose program does not draw the encoder."""
    network, x = chain(initializers.he_normal, 512, 2**13, 2), jnp.zeros((1, 2, 2, 3))
    shapes = {"head": np.zeros((2**13, 2)), "encoder": np.zeros((512, 2**14))}

    def head(key: jax.Array) -> jax.Array:
        return initialise(network, {"params": key}, x)["params"]["layers_2"]["kernel"]

    with draws.drawn_alone(["head"], shapes):
        singly = jax.jit(head).lower(key).compile()
    with draws.drawn_alone(["encoder"], shapes):
        together = jax.jit(lambda key: head(key)).lower(key).compile()  # a function of its own, with a trace of its own
    same(singly(key), together(key))
    sizes = [getattr(each.memory_analysis(), "temp_size_in_bytes") for each in (singly, together)]  # noqa: B009
    assert 20 * sizes[0] < sizes[1]


def test_the_program_has_less_than_a_quarter_of_linens_draws(key) -> None:
    x, network = jnp.zeros((1, 32, 32, 3)), tiny("unet")
    program = jax.jit(lambda key: initialise(network, {"params": key}, x, train=False)).lower(key).as_text()
    linen = jax.jit(lambda key: network.init({"params": key}, x, train=False)).lower(key).as_text()
    assert program.count("erf_inv") < linen.count("erf_inv") / 4

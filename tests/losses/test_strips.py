"""Losses of many classes add their sums in strips of pixels: the same numbers in less memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import losses
from jaxseg.errors import ArgumentError
from jaxseg.losses import strips
from jaxseg.losses.strips import MANY_CLASSES, add_in_strips
from jaxseg.losses.table import LOSSES
from jaxseg.types import IGNORE, IGNORE_16

K = 5


def make_batch(shape, k: int = K):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, shape)
    labels = np.where(rng.random(shape) < 0.2, IGNORE, labels).astype(np.int32)
    return rng.normal(size=(*shape, k)).astype(np.float32), labels


def sums(logits, labels):
    both = losses.make_loss("cross_entropy + dice", num_classes=K, class_weights=(1.0, 2.0, 0.5, 1.0, 3.0))
    return both.stats(logits, labels)


def both_halves(function, logits, labels):
    """The sums, and the gradient of the logits for one cotangent of the sums."""
    stats, pull = jax.vjp(partial(function, labels=labels), logits)
    cotangent = jax.tree.map(lambda x: jnp.linspace(0.5, 1.5, x.size).reshape(x.shape), stats)
    return stats, pull(cotangent)[0]


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 5, 4)])  # strips of 16 pixels, the last one of 4
def test_sums_and_gradient_are_those_of_all_pixels(shape, monkeypatch):
    monkeypatch.setattr(strips, "_ELEMENTS", 1)
    logits, labels = make_batch(shape)
    forms = sums, partial(add_in_strips, sums)
    expected, found = jax.jit(lambda z, y: [both_halves(form, z, y) for form in forms])(logits, labels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-7), found, expected)
    assert np.all(np.asarray(found[1])[labels == IGNORE] == 0)


def test_many_classes_take_strips_and_few_do_not():
    def loops(loss, k):
        shapes = jax.ShapeDtypeStruct((2, 8, 8, k), jnp.float32), jax.ShapeDtypeStruct((2, 8, 8), jnp.int32)
        return jax.jit(loss.stats).lower(*shapes).as_text().count("stablehlo.while")

    for terms in ("cross_entropy", "cross_entropy + dice", "focal + jaccard"):  # the terms share one loop
        assert loops(losses.make_loss(terms, num_classes=MANY_CLASSES), MANY_CLASSES) == 1, terms
        assert loops(losses.make_loss(terms, num_classes=MANY_CLASSES - 1), MANY_CLASSES - 1) == 0, terms
    per_image = losses.make_loss("dice", num_classes=MANY_CLASSES, args={"dice": {"per_image": True}})
    assert loops(per_image, MANY_CLASSES) == 0


def test_the_value_of_many_classes_is_that_of_the_function():
    logits, labels = make_batch((2, 7, 5), MANY_CLASSES)
    loss = losses.make_loss("cross_entropy + 0.5 * dice", num_classes=MANY_CLASSES)

    def plain(logits):
        terms = losses.cross_entropy(logits, labels), losses.dice(logits, labels)
        return losses.divide(*terms[0]) + 0.5 * losses.divide(*terms[1])

    found, expected = jax.jit(lambda z: (jax.value_and_grad(loss)(z, labels), jax.value_and_grad(plain)(z)))(logits)
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-5, atol=1e-9)
    wrong = labels.copy()
    wrong[0, 0, 0] = MANY_CLASSES
    assert np.isnan(loss(logits, wrong))
    with pytest.raises(ValueError, match="shape of the logits"):
        loss(logits, labels[:, :-1])


def test_a_gradient_needs_no_array_of_the_size_of_the_logits_beside_itself():
    loss = losses.make_loss("cross_entropy + dice", num_classes=150)
    shapes = jax.ShapeDtypeStruct((2, 64, 64, 150), jnp.float32), jax.ShapeDtypeStruct((2, 64, 64), jnp.int32)
    memory = jax.jit(jax.grad(loss)).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.0 * memory.output_size_in_bytes  # without strips six times as much


def test_a_batch_that_is_split_over_devices_stays_split(monkeypatch):
    monkeypatch.setattr(strips, "_ELEMENTS", 1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    arrays = make_batch((8, 5, 4))
    placed = [jax.device_put(array, split) for array in arrays]

    def program(logits, labels):
        return both_halves(partial(add_in_strips, sums), logits, labels)

    compiled = jax.jit(program, out_shardings=(None, split)).lower(*placed).compile()
    expected = jax.jit(partial(both_halves, sums))(*arrays)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=5e-6, atol=1e-7), compiled(*placed), expected)
    text = compiled.as_text()
    assert "all-gather" not in text
    entry = text[text.index("ENTRY ") :]
    assert text.count("all-reduce(") == entry.count("all-reduce(")  # none in a loop


def test_every_loss_of_pixels_says_so():
    found = {name for name, definition in LOSSES.items() if definition.by_pixel}
    overlaps = {"dice", "generalised_dice", "jaccard", "tversky"}
    others = {"binary_cross_entropy", "cross_entropy", "entropy", "focal", "hierarchical_cross_entropy", "mse"}
    assert found == others | overlaps

    @jax.jit
    def each(logits, labels):
        return {name: LOSSES[name].sums(logits, labels) for name in found}

    logits, labels = make_batch((1, 8, 6))
    halves = [each(logits[:, part], labels[:, part]) for part in (np.s_[:4], np.s_[4:])]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), jax.tree.map(jnp.add, *halves), each(logits, labels))


def test_more_classes_than_a_mask_holds_are_refused():
    with pytest.raises(ArgumentError, match="num_classes"):
        losses.make_loss(num_classes=IGNORE_16 + 1)
    assert losses.make_loss(num_classes=IGNORE_16).num_classes == IGNORE_16

"""What a look is worth, against formulas in float64, brute force and the gradient of JAX."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg.errors import ArgumentError
from jaxseg.explain.stages import default_layer, layer_shapes
from jaxseg.inference.last_layer import last_layer
from jaxseg.nn import Conv
from jaxseg.propose import criteria
from jaxseg.propose.embeddings import gradients, pooled_features, sketch


def shares_of(rng, *shape):
    p = rng.random(shape)
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def surprise(p):
    p = np.asarray(p, np.float64)
    return -(p * np.log(p)).sum(-1)


def test_entropy_and_margin_by_hand():
    p = np.array([[[0.5, 0.5, 0.0], [0.7, 0.2, 0.1]]], np.float32)
    of_second = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    assert criteria.entropy(p) == pytest.approx((np.log(2) + of_second) / 2, rel=1e-6)
    assert criteria.margin(p) == pytest.approx((1 + 0.5) / 2, rel=1e-6)


def test_one_question_is_two_classes():
    p = np.array([[[0.9], [0.3]]], np.float32)
    both = np.concatenate([1 - p, p], -1)
    for score in (criteria.entropy, criteria.margin):
        assert score(p) == pytest.approx(score(both), rel=1e-5)
    of_each = [criteria.margin(p[:, i : i + 1]) for i in range(2)]
    assert criteria.margin(p.reshape(1, 1, 2), one_vs_rest=True) == pytest.approx(np.mean(of_each), rel=1e-6)


def test_mutual_information_is_the_entropy_of_the_mean_less_the_mean_entropy():
    members = shares_of(np.random.default_rng(0), 5, 4, 3, 6)
    expected = (surprise(members.mean(0)) - surprise(members).mean(0)).mean()
    assert criteria.mutual_information(iter(members)) == pytest.approx(expected, rel=1e-5)
    assert criteria.mutual_information([members[0]] * 3) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ArgumentError, match="at least one member"):
        criteria.mutual_information([])


@pytest.mark.parametrize("given", [0, 2])
def test_core_set_takes_the_farthest_each_time(given):
    rng = np.random.default_rng(1)
    rows, centres = rng.normal(size=(9, 3)), rng.normal(size=(given, 3))
    found = criteria.core_set(rows, 6, centres)
    chosen, have = [], list(centres)
    if not given:
        chosen = [int(np.linalg.norm(rows - rows.mean(0), axis=1).argmin())]
        have = [rows[chosen[0]]]
    while len(chosen) < 6:
        distance = [-1 if i in chosen else min(np.linalg.norm(rows[i] - c) for c in have) for i in range(9)]
        chosen.append(int(np.argmax(distance)))
        have.append(rows[chosen[-1]])
        assert found.distances[len(chosen) - 1] == pytest.approx(max(distance), rel=1e-9)
    assert found.indices.tolist() == chosen
    assert np.isnan(found.distances[0]) == (not given)


def test_core_set_covers_within_twice_the_best():
    rows = np.random.default_rng(2).normal(size=(10, 2))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    best = min(apart[list(three)].min(0).max() for three in itertools.combinations(range(10), 3))
    found = criteria.core_set(rows, 3).indices
    assert apart[found].min(0).max() <= 2 * best


def test_badge_draws_in_proportion_to_squared_distances():
    rows = np.array([[3.0, 0.0], [0.0, 0.0], [3.0, 1.0], [3.0, 3.0]])
    draws = [criteria.badge(rows, 2, seed).indices.tolist() for seed in range(2000)]
    assert {first for first, _ in draws} == {3}  # the longest
    squares = np.array([9.0, 18.0, 4.0, 0.0])  # from (3, 3)
    shares = np.bincount([second for _, second in draws], minlength=4) / 2000
    np.testing.assert_allclose(shares, squares / squares.sum(), atol=0.04)  # three standard deviations are .034


def test_badge_with_a_centre_draws_none_that_equals_it_before_the_others():
    rows = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0], [5.0, 0.0]])
    for seed in range(20):
        found = criteria.badge(rows, 4, seed, rows[:1])
        assert set(found.indices[:2].tolist()) == {2, 3} and sorted(found.indices.tolist()) == [0, 1, 2, 3]
        assert found.distances[2:].tolist() == [0, 0]
    assert criteria.badge(rows, 3, 7).indices.tolist() == criteria.badge(rows, 3, 7).indices.tolist()


@pytest.mark.parametrize("order", [criteria.core_set, lambda *a: criteria.badge(a[0], a[1], 0, *a[2:])])
def test_counts_and_shapes_that_do_not_fit(order):
    with pytest.raises(ArgumentError, match="5 images cannot be chosen"):
        order(np.zeros((4, 2)), 5)
    with pytest.raises(ArgumentError, match="The centres have the shape"):
        order(np.zeros((4, 2)), 1, np.zeros((1, 3)))


class Linear(nn.Module):
    """A feature layer and a 1x1 head."""

    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        features = jnp.tanh(Conv(5, 3, name="body")(x))
        return Conv(self.classes, 1, name="head")(features), {"features": features}


@pytest.mark.parametrize(("classes", "one_vs_rest"), [(3, False), (3, True), (1, False)])
def test_rows_of_images_are_the_closed_form(classes, one_vs_rest):
    model, rng = Linear(classes), np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 6, 7, 3)), jnp.float32)
    variables = model.init(jax.random.key(1), images, train=False)
    weights = np.full((2, 6, 7), 1 / 42, np.float32)
    layer = last_layer(model, variables, images)
    found = gradients(model, layer, variables, images, weights, one_vs_rest)
    logits, out = model.apply(variables, images, train=False)
    z, f = np.asarray(logits, np.float64), np.asarray(out["features"], np.float64)
    if classes == 1:
        p, hot = 1 / (1 + np.exp(-z)), z > 0
    else:
        p = 1 / (1 + np.exp(-z)) if one_vs_rest else np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        hot = np.eye(classes)[z.argmax(-1)]
    kernel = np.einsum("byxf,byxk->bfk", f, p - hot) / 42
    expected = np.concatenate([(p - hot).mean((1, 2)), kernel.reshape(2, -1)], -1)  # bias, then kernel
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    pooled = default_layer(layer_shapes(model, variables, images))
    np.testing.assert_allclose(pooled_features(model, "features", variables, images), f.mean((1, 2)), rtol=1e-5)
    assert pooled in ("body", "features")


def test_a_sketch_keeps_distances_in_the_mean():
    rows = np.random.default_rng(0).normal(size=(12, 4000)).astype(np.float32)
    short = np.stack([np.asarray(sketch(jnp.asarray(row), 1024)) for row in rows])
    assert short.shape == (12, 1024) and np.array_equal(sketch(jnp.asarray(short[0])), short[0])
    ratios = [
        np.linalg.norm(short[i] - short[j]) / np.linalg.norm(rows[i] - rows[j]) for i in range(12) for j in range(i)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.02) and min(ratios) > 0.85 and max(ratios) < 1.15

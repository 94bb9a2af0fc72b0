"""Sampled classes: what the estimate converges to, what it is equal to, what it costs, and what it is refused with."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.loss_references import make_batch, weights_of
from sampled_classes import gradient_cost

from jaxseg import losses
from jaxseg.errors import ArgumentError
from jaxseg.nn import ClassHead, of_classes
from jaxseg.types import IGNORE

UNIFORM = {"sampled_cross_entropy": {"sampling": "uniform", "samples": 4}}


@partial(jax.jit, static_argnums=(1, 2))
def draw(labels, classes, samples, seed=0):
    return losses.sample_classes(jax.random.key(seed), losses.present_classes(labels, classes), samples)


def test_the_set_holds_each_true_class_and_no_class_twice():
    labels = jnp.array([[[3, 3, IGNORE], [7, 0, 3]]])
    np.testing.assert_array_equal(losses.present_classes(labels, 9), [1, 0, 0, 1, 0, 0, 0, 1, 0])
    drawn = jax.vmap(lambda seed: draw(labels, 9, 5, seed))(jnp.arange(50))
    for classes, shift, place in zip(*drawn):
        assert {0, 3, 7} <= set(classes.tolist()) and len(set(classes.tolist())) == 5
        # Two of the other six: each is in with the probability 1/3.
        np.testing.assert_allclose(shift, np.where(np.isin(classes, (0, 3, 7)), 0.0, np.log(3.0)), rtol=1e-6)
        np.testing.assert_array_equal(place[classes], np.arange(5))
        assert np.sum(np.asarray(place) < 0) == 4
    seldom = np.bincount(np.concatenate(drawn.classes), minlength=9)[[1, 2, 4, 5, 6, 8]]
    assert np.all(seldom > 0)  # uniform: none of the six is left out for ever


def test_more_true_classes_than_samples():
    labels = jnp.array([[[0, 1, 2, IGNORE, -1, 9]]])
    chosen = draw(labels, 9, 2)
    assert set(chosen.classes.tolist()) < {0, 1, 2} and not np.any(chosen.shift)
    local = np.asarray(jax.jit(losses.ClassSample.local_labels)(chosen, labels))[0, 0]
    np.testing.assert_array_equal(np.sort(local[:3]), [0, 1, IGNORE])
    np.testing.assert_array_equal(local[3:], [IGNORE, -1, -1])  # no class: the loss is NaN, as everywhere


def test_the_expected_sum_over_the_set_is_that_over_all_classes():
    """E[Σ_C exp(z - log π)] = Σ exp z, and the mean loss is below cross-entropy and nearer to it with more samples."""
    logits, labels = make_batch(12, shape=(1, 1, 4))
    logits, labels = jnp.asarray(logits[0, 0]), jnp.array([2, 5, 5, IGNORE])
    exact = np.exp(np.asarray(logits, np.float64)).sum(-1)

    @partial(jax.jit, static_argnums=1)
    @partial(jax.vmap, in_axes=(0, None))
    def estimate(seed, samples):
        chosen = draw(labels, 12, samples, seed)
        z = logits[:, chosen.classes]
        total, weight = losses.sampled_cross_entropy(z, labels, chosen, sampling="uniform")
        return jnp.exp(z + chosen.shift[None]).sum(-1), total / weight

    full = losses.divide(*losses.cross_entropy(logits, labels))
    means = []
    for samples in (4, 8):
        sums, values = (np.asarray(each, np.float64) for each in estimate(jnp.arange(4000), samples))
        error = sums.std(0) / np.sqrt(len(sums))
        assert np.all(np.abs(sums.mean(0) - exact) < 4 * error), samples
        means.append(values.mean())
    assert means[0] < means[1] < full < means[0] + 0.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_classes_sampled_is_cross_entropy(dtype):
    """The value, and the gradient of features, kernel and bias, under jax.checkpoint too."""
    labels = np.asarray(make_batch(7, shape=(2, 3, 5))[1])
    head = ClassHead(7, kernel_size=1, dtype=dtype)
    features = jax.random.normal(jax.random.key(1), (2, 3, 5, 6))
    variables = head.init(jax.random.key(2), features)
    weights = weights_of(7)

    def full(variables, features):
        logits = head.apply(variables, features).astype(jnp.float32)
        return losses.divide(*losses.cross_entropy(logits, labels, class_weights=weights))

    @jax.checkpoint
    def sampled(variables, features):
        chosen = draw(labels, 7, 20)
        logits = of_classes(head.apply, chosen.classes)(variables, features).astype(jnp.float32)
        loss = losses.sampled_cross_entropy(logits, labels, chosen, sampling="uniform", class_weights=weights)
        return losses.divide(*loss)

    expected, given = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(variables, features) for f in (full, sampled))
    rtol, atol = (2e-5, 1e-7) if dtype == jnp.float32 else (2e-2, 1e-3)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), given, expected)


def test_ignored_pixels_do_nothing():
    labels = jnp.array([[[1, IGNORE], [2, IGNORE]]])
    chosen = draw(labels, 9, 4)
    logits = jax.random.normal(jax.random.key(0), (1, 2, 2, 4))

    @jax.jit
    @jax.value_and_grad
    def loss(logits):
        return losses.divide(*losses.sampled_cross_entropy(logits, labels, chosen, sampling="uniform"))

    value, gradient = loss(logits)
    assert np.all(gradient[:, :, 1] == 0) and np.all(gradient[:, :, 0] != 0)
    np.testing.assert_array_equal(loss(logits.at[:, :, 1].set(37.0))[0], value)
    assert not np.any(losses.present_classes(jnp.full((1, 2), IGNORE), 9))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_gradient_needs_less_memory_and_fewer_operations(stride):
    sizes = {"channels": 8, "stride": stride}
    full, sampled = gradient_cost(16, 60, None, **sizes), gradient_cost(16, 60, 12, **sizes)
    assert sampled.memory < 0.5 * full.memory and sampled.flops < 0.5 * full.flops


def test_make_loss_with_sampled_classes():
    loss = losses.make_loss("0.5 * sampled_cross_entropy + semantic_encoding", num_classes=9, args=UNIFORM)
    assert loss.class_samples == loss.of_logits.class_samples == 4
    assert losses.make_loss("sampled_cross_entropy", num_classes=3, args=UNIFORM).class_samples == 3
    assert losses.make_loss("sampled_cross_entropy", num_classes=9).class_samples is None
    # Without a set, as in evaluation, it is the loss that it stands for.
    logits, labels = make_batch(9)
    alone = losses.make_loss("sampled_cross_entropy", num_classes=9, args=UNIFORM)
    np.testing.assert_allclose(alone(logits, labels), losses.make_loss(num_classes=9)(logits, labels))
    for terms, classes, samples, message in (
        ("sampled_cross_entropy + dice", 9, 4, "the term dice needs those of all classes"),
        ("sampled_cross_entropy + boundary_awareness", 9, 4, "the term boundary_awareness needs those of all classes"),
        ("sampled_cross_entropy + 0.1 * gated_crf", 9, 4, "the term gated_crf needs those of all classes"),
        ("sampled_cross_entropy + mask_classification", 9, 4, "the term mask_classification needs those of all"),
        ("sampled_cross_entropy", 1, 4, "at least two classes"),
        ("sampled_cross_entropy", 9, 1, "samples of at least 2"),
    ):
        args = {"sampled_cross_entropy": {"sampling": "uniform", "samples": samples}}
        with pytest.raises(ArgumentError, match=message):
            losses.make_loss(terms, num_classes=classes, args=args)
    with pytest.raises(ArgumentError, match=r"sampling must be.*'uniform'"):
        losses.make_loss("sampled_cross_entropy", num_classes=9, args={"sampled_cross_entropy": {"sampling": "x"}})

"""Weights by the effective number, and the adjustment of logits: values by hand, float64 references, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import losses
from jaxseg.errors import ArgumentError
from jaxseg.types import IGNORE


def test_effective_number_weights_by_hand():
    """β = .5: E of 1 and 2 examples is 1 and 1.5, so that the weights are as 1 : 2/3, with the mean 1: 1.2 and .8."""
    weights = losses.effective_number_weights(np.array([1.0, 0.0, 2.0]), 0.5)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [1.2, 0.0, 0.8], rtol=1e-6)


def test_effective_number_weights_lie_between_equal_ones_and_inverse_frequencies():
    amounts = np.array([0.3, 4.0, 90.0])
    np.testing.assert_array_equal(losses.effective_number_weights(amounts, 0.0), [1, 1, 1])
    inverse = 1 / amounts
    nearly = losses.effective_number_weights(amounts, 1 - 1e-9)  # 1 - β^n would have one digit left in float32
    np.testing.assert_allclose(nearly, inverse / inverse.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "amounts, beta, words",
    [
        ([1.0, -1.0], 0.9, "finite numbers of at least 0"),
        ([[1.0]], 0.9, "finite numbers"),
        ([0.0, 0.0], 0.9, "every class count is 0"),
        ([1.0, 2.0], 1.0, r"beta must be in \[0, 1\), got 1"),
    ],
)
def test_effective_numbers_that_cannot_be(amounts, beta, words):
    with pytest.raises(ValueError, match=words):
        losses.effective_number_weights(np.array(amounts), beta)


def test_the_shift_is_tau_times_the_log_of_the_prior_and_nothing_for_a_class_that_never_occurs():
    shift = losses.logit_shift(np.array([3, 0, 1]), 2.0)
    np.testing.assert_allclose(shift, [2 * np.log(0.75), 0.0, 2 * np.log(0.25)], rtol=1e-6)
    for wrong in ([0, 0], [-1, 2], [np.nan, 1]):
        with pytest.raises(ValueError, match="share of at least 0"):
            losses.logit_shift(np.array(wrong), 1.0)


def batch(k, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(k, 2), (2, 3, 4)).astype(np.int32)
    labels[0, 0, :2] = IGNORE
    return rng.normal(size=(2, 3, 4, k)).astype(np.float32), labels


def adjusted64(logits, labels, prior, tau):
    """-log(π_y^τ e^z_y / Σ π_c^τ e^z_c), the mean over the pixels that count: Menon et al. 2021, equation 10."""
    z = np.asarray(logits, np.float64)
    z = np.concatenate([np.zeros_like(z), z], -1) if z.shape[-1] == 1 else z
    odds = np.asarray(prior, np.float64) ** tau * np.exp(z)
    inside = labels != IGNORE
    p = np.take_along_axis(odds / odds.sum(-1, keepdims=True), np.where(inside, labels, 0)[..., None], -1)[..., 0]
    return -np.log(p[inside]).mean()


@pytest.mark.parametrize("k, prior", [(3, (0.7, 0.2, 0.1)), (1, (0.9, 0.1))])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_adjusted_cross_entropy(k, prior, tau):
    logits, labels = batch(k)
    loss = losses.make_loss(num_classes=k, class_prior=prior, logit_adjustment=tau)
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), adjusted64(logits, labels, prior, tau), rtol=2e-6)


@pytest.mark.parametrize("terms, args", [("ohem", {"min_kept": 1.0}), ("sampled_cross_entropy", {"samples": 3})])
def test_cross_entropies_of_all_pixels_and_classes_have_the_same_adjustment(terms, args):
    logits, labels = batch(3)
    given = {"num_classes": 3, "class_prior": (0.7, 0.2, 0.1), "logit_adjustment": 1.0}
    loss, plain = losses.make_loss(terms, args={terms: args}, **given), losses.make_loss(**given)
    gradients = [jax.grad(each)(jnp.asarray(logits), labels) for each in (loss, plain)]
    np.testing.assert_allclose(loss(logits, labels), plain(logits, labels), rtol=1e-6)
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)


def test_sampled_classes_keep_the_adjustment_of_each_class():
    """All classes in the sample, in another order: the loss is that of all classes."""
    logits, labels = batch(4)
    given = {"num_classes": 4, "class_prior": (0.5, 0.3, 0.15, 0.05), "logit_adjustment": 1.0}
    present = losses.present_classes(labels, 4)
    chosen = losses.sample_classes(jax.random.key(3), present, 4)
    args = {"sampled_cross_entropy": {"sampling": "uniform", "samples": 4}}
    loss = losses.make_loss("sampled_cross_entropy", args=args, **given)
    [term] = loss.terms
    total, weight = term.definition.stats(logits[..., chosen.classes], labels, dict(term.options), chosen)
    np.testing.assert_allclose(total / weight, losses.make_loss(**given)(logits, labels), rtol=1e-6)


def test_the_adjusted_network_predicts_by_balanced_accuracy():
    """One pixel value, where class 1 is seen in 30 of 100 pixels, but in all of its own: its share of each class's
    pixels is 30/30 against 70/970, so that its balanced odds are higher. The minimum of the adjusted loss has it."""
    prior = np.array([0.97, 0.03])
    labels = np.array([0] * 70 + [1] * 30, np.int32)[None]
    loss = losses.make_loss(num_classes=2, class_prior=prior, logit_adjustment=1.0)
    descend = jax.jit(lambda z: z - 2.0 * jax.grad(lambda z: loss(jnp.broadcast_to(z, (1, 100, 2)), labels))(z))
    z = jnp.zeros(2)
    for _ in range(200):
        z = descend(z)
    np.testing.assert_allclose(z[1] - z[0], np.log(0.30 / 0.03) - np.log(0.70 / 0.97), atol=1e-3)
    assert z[1] > z[0]


def test_adjustments_that_no_term_can_make():
    with pytest.raises(ArgumentError, match="No term of the loss 'dice' takes logit_adjustment"):
        losses.make_loss("dice", num_classes=2, class_prior=(1, 1), logit_adjustment=1.0)
    with pytest.raises(ArgumentError, match="class_prior must be 3 numbers"):
        losses.make_loss(num_classes=3, class_prior=(1, 1), logit_adjustment=1.0)
    with pytest.raises(ArgumentError, match="logit_shift must be 3 finite numbers"):
        losses.make_loss(num_classes=3, args={"cross_entropy": {"logit_shift": (1.0, 2.0)}})
    with pytest.raises(ValueError, match="logit_shift must be 3 numbers"):
        losses.cross_entropy(np.zeros((1, 3), np.float32), np.zeros(1, np.int32), logit_shift=(1.0,))
    assert losses.make_loss(num_classes=3, class_prior=(1, 1, 1)) == losses.make_loss(num_classes=3)  # tau is 0

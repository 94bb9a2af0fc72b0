"""Adversarial training: unlabelled images and label maps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_adversarial import LOSS, SEMI, make_batch, make_pair, moved, one_step, players, quick, start
from helpers.tiny_step import K, assert_same

from jaxseg.adversarial import AdversarialLoss, Discriminator, label_maps, true_maps
from jaxseg.data.augment import to_float
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def test_unlabelled_images_teach_the_segmenter_alone(batch):
    void = {**batch, "label": np.full_like(batch["label"], IGNORE)}
    before, after, _ = one_step(void)
    of_s, of_d = moved(before, after)
    assert all((x == 0).all() for x in jax.tree.leaves(of_d))
    assert any((x != 0).any() for x in jax.tree.leaves(of_s))
    before, after, metrics = one_step(void, AdversarialLoss(LOSS, weight=0.3))
    assert metrics["loss"] == 0
    assert_same(after.params, before.params, rtol=0)


def test_unlabelled_images_begin_to_teach_at_their_step(batch):
    """The terms of unlabelled images are zero before the step `unlabelled_from`."""
    later = dataclasses.replace(SEMI, unlabelled_from=2)

    def step_at(objective):
        made = quick(make_train_step(make_pair(), players(), objective, prepare=to_float, aux_weight=0.0))
        return lambda number: made(start(players()).replace(step=jnp.int32(number)), batch, jax.random.key(2))

    without, both, gated = map(step_at, (AdversarialLoss(LOSS, weight=0.3), SEMI, later))
    for number, same in ((0, without), (1, without), (2, both), (7, both)):
        (state, metrics), (expected, measured) = gated(number), same(number)
        assert_same(state.params, expected.params)
        terms = dict(metrics["terms"])
        if same is without:  # which has no such terms
            assert terms.pop("semi") == terms.pop("adversarial_unlabelled") == 0
        assert_same({**metrics, "terms": terms}, measured)
    assert abs(both(0)[1]["loss"] - without(0)[1]["loss"]) > 1e-3


def test_void_pixels_of_labelled_images_change_nothing():
    """The output of S at ignored pixels of labelled images has no effect on D or the losses."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, K, (2, 4, 4))
    labels[0, 0] = IGNORE
    logits = rng.normal(size=(2, 4, 4, K)).astype(np.float32)
    other = logits.copy()
    other[0, 0] += rng.normal(size=(4, K))
    params = Discriminator((4,)).init(jax.random.key(0), jnp.zeros((1, 4, 4, K)))
    out = {"discriminator": lambda maps, frozen: Discriminator((4,)).apply(params, maps)}
    assert_same(SEMI.stats(logits, labels, out), SEMI.stats(other, labels, out), rtol=0)


def test_threshold_chooses_what_is_taught():
    labels, logits = np.full((1, 1, 4), IGNORE), np.zeros((1, 1, 4, K), np.float32)
    logits[..., 1] = [[[1.0, 2.0, 3.0, 4.0]]]
    verdict = jnp.asarray([[[-2.0, -1.0, 0.1, 3.0]]])
    for threshold, taught in ((0.2, [1, 2, 3]), (0.5, [2, 3]), (0.0, [0, 1, 2, 3]), (0.99, [])):
        objective = AdversarialLoss(LOSS, semi_weight=1.0, semi_threshold=threshold)
        total, weight = objective.stats(logits, labels, {"discriminator": lambda maps, frozen: verdict})["semi"]
        each = -np.asarray(jax.nn.log_softmax(logits))[0, 0, :, 1]
        assert weight == len(taught)
        np.testing.assert_allclose(total, each[taught].sum(), rtol=1e-5)


def test_maps():
    one = np.array([[[[0.0], [2.0]]]], np.float32)
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(label_maps(one)[0, 0], [[0.5, 0.5], [1 - p, p]], rtol=1e-6)
    labels, predicted = (
        np.array([[[0, 2, 1, IGNORE]]]),
        np.array([[[[0.5, 0.3, 0.2], [0, 0.02, 0.98], [0, 1, 0], [1, 0, 0]]]]),
    )
    np.testing.assert_array_equal(true_maps(labels, predicted)[0, 0], [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
    soft = np.asarray(true_maps(labels, predicted, 0.9))[0, 0]
    np.testing.assert_allclose(soft, [[0.9, 0.06, 0.04], [0, 0.02, 0.98], [0, 1, 0], [0, 0, 0]], atol=1e-6)

"""Uncertainty over members, against NumPy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import entropy, member_sums, uncertainty, uncertainty_of
from jaxseg.metrics.uncertainty import SCORES, most_entropy


def entropies(p):
    """f64[...,k] -> f64[...], with 0 log 0 = 0."""
    p = np.asarray(p, np.float64)
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), -1)


def by_hand(members, kind):
    """The maps of members f[m,...,k] in float64."""
    p = np.asarray(members, np.float64)
    h = {
        "softmax": entropies,
        "binary": lambda p: entropies(np.concatenate([1 - p, p], -1)),
        "one_vs_rest": lambda p: entropies(np.stack([1 - p, p], -1)).sum(-1),
    }[kind]
    both = np.concatenate([1 - p, p], -1) if kind == "binary" else p
    votes = np.eye(both.shape[-1])[both.argmax(-1)].sum(0)
    expected = h(p).mean(0)
    return {
        "entropy": h(p.mean(0)),
        "expected_entropy": expected,
        "mutual_information": h(p.mean(0)) - expected,
        "variation_ratio": 1 - votes.max(-1) / len(p),
        "variance": both.var(0).sum(-1),
    }


def drawn_members(kind, shape=(5, 3, 4), k=4):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(*shape, 1 if kind == "binary" else k)) * 3
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True) if kind == "softmax" else 1 / (1 + np.exp(-z))
    p[0, 0, 0] = np.eye(p.shape[-1])[0]  # a probability of 0, and one of 1
    return p.astype(np.float32)


@pytest.mark.parametrize("kind", ["softmax", "binary", "one_vs_rest"])
def test_the_maps_are_those_of_numpy(kind):
    members = drawn_members(kind)
    found = uncertainty_of(members, one_vs_rest=kind == "one_vs_rest")
    expected = by_hand(members, kind)
    assert set(expected) == set(SCORES)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(found.mean, members.mean(0), rtol=1e-6)
    both = np.concatenate([1 - members, members], -1) if kind == "binary" else members
    np.testing.assert_allclose(found.confidence, both.mean(0).max(-1), rtol=1e-6)


def test_members_that_agree_leave_the_entropy_of_the_image_alone():
    p = np.array([[0.7, 0.2, 0.1]], np.float32)
    found = uncertainty_of(np.repeat(p[None], 6, 0))
    np.testing.assert_allclose(found.entropy, found.expected_entropy, atol=1e-6)
    assert float(found.mutual_information[0]) < 1e-6 and float(found.variance[0]) < 1e-6
    assert float(found.variation_ratio[0]) == 0


def test_members_that_are_sure_of_different_classes_know_nothing_together():
    found = uncertainty_of(np.eye(3, dtype=np.float32)[:, None])
    np.testing.assert_allclose(found.entropy, np.log(3), rtol=1e-6)
    np.testing.assert_allclose(found.mutual_information, np.log(3), rtol=1e-6)
    np.testing.assert_allclose([found.variation_ratio[0], found.variance[0]], [2 / 3, 3 * (1 / 3 - 1 / 9)], rtol=1e-6)


def test_a_binary_network_is_one_of_two_classes():
    p = drawn_members("binary")
    one, two = uncertainty_of(p), uncertainty_of(np.concatenate([1 - p, p], -1))
    for name in SCORES:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=2e-6)


def test_sums_add_member_by_member():
    members = drawn_members("softmax")
    total = member_sums(members[0])
    for member in members[1:]:
        total = {name: total[name] + value for name, value in member_sums(member).items()}
    for one, other in zip(uncertainty(total), uncertainty_of(members)):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_most_entropy_is_that_of_equal_probabilities():
    assert most_entropy(4) == pytest.approx(float(entropy(jnp.full(4, 0.25))))
    assert most_entropy(1) == pytest.approx(float(entropy(jnp.full(1, 0.5))))
    assert most_entropy(4, one_vs_rest=True) == pytest.approx(float(entropy(jnp.full(4, 0.5), one_vs_rest=True)))


@pytest.mark.parametrize("shape", [(3,), (0, 2, 2)])
def test_no_member_is_a_sentence(shape):
    with pytest.raises(ValueError, match="at least one member, got"):
        uncertainty_of(np.zeros(shape, np.float32))

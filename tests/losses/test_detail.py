"""The detail loss of STDC-Seg against NumPy, pixel by pixel in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import ArgumentError
from jaxseg.losses import make_loss
from jaxseg.losses.detail import details
from jaxseg.types import IGNORE

SHAPE, CLASSES = (2, 6, 9), 3


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int32)
    labels[0, :, 4:] = 1
    labels[1, 3:, 5:] = 2
    labels[1, :2, 7] = 1
    labels[0, :2, 3] = IGNORE
    logits = rng.normal(size=(*SHAPE, CLASSES)).astype(np.float32)
    return labels, logits, (3 * rng.normal(size=(*SHAPE, 1))).astype(np.float32)


def edge_at(labels, b, row, column):
    if labels[b, row, column] == IGNORE:
        return False
    around = labels[b, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].astype(float)
    return (labels[b, row, column] - around[around != IGNORE]).sum() > 0


def reference(labels, logits, z, shares=(0.6, 0.3, 0.1), threshold=0.1):
    entropy, dice = [], []
    for b in range(len(labels)):
        both, sizes = 0.5, 1.0
        for row, column in np.ndindex(*labels.shape[1:]):
            if labels[b, row, column] == IGNORE:
                continue
            found = [edge_at(labels, b, row // s * s, column // s * s) for s in (1, 2, 4)]
            g = float(np.dot(shares, found) > threshold + 1e-9)
            p = 1 / (1 + np.exp(-float(z[b, row, column, 0])))
            entropy.append(-np.log(p if g else 1 - p))
            both, sizes = both + p * g, sizes + p * p + g
        dice.append(1 - 2 * both / sizes)
    return np.mean(entropy) + np.mean(dice)


def value_of(loss, labels, logits, z):
    return loss.value(loss.stats(logits, labels, {"detail": (logits, z)}))


@pytest.mark.parametrize("options", [{}, {"shares": (0.2, 0.5, 0.3), "threshold": 0.25}])
def test_it_is_cross_entropy_and_dice_of_the_aggregated_edges(batch, options):
    loss = make_loss("detail", num_classes=CLASSES, args={"detail": options})
    np.testing.assert_allclose(value_of(loss, *batch), reference(*batch, **options), rtol=1e-5)


def test_details_of_two_columns_by_hand():
    """An edge is on the side of the class of the higher number; at stride 2 of even pixels, for two of them."""
    labels = jnp.array([[[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]])
    inside = jnp.ones(labels.shape, bool)
    odd, even = np.asarray(details(labels, inside)).astype(int).tolist()
    assert odd == [[0, 0, 0, 1, 0, 0]] * 2
    assert even == [[0, 0, 1, 1, 0, 0]] * 2
    coarse = details(labels, inside, (0.0, 0.0, 1.0)).astype(int).tolist()
    assert coarse[0] == [[0] * 6] * 2 and coarse[1] == [[0] * 6] * 2  # the edges are at neither 0 nor 4


def test_padding_with_ignore_changes_nothing(batch):
    labels, logits, z = batch
    loss = make_loss("detail", num_classes=CLASSES)
    pad = ((0, 0), (0, 3), (0, 2))
    wide = np.pad(labels, pad, constant_values=IGNORE)
    more = [np.pad(x, (*pad, (0, 0)), constant_values=7.0) for x in (logits, z)]
    np.testing.assert_allclose(value_of(loss, wide, *more), value_of(loss, *batch), rtol=1e-6)


def test_the_sums_of_images_add_and_details_have_a_gradient(batch):
    labels, logits, z = batch
    loss = make_loss("cross_entropy + detail", num_classes=CLASSES)

    def stats(z, part=slice(None)):
        return loss.stats(logits[part], labels[part], {"detail": (logits[part], z[part])})

    z = jnp.asarray(z)
    added = jax.tree.map(lambda a, b: a + b, stats(z, slice(0, 1)), stats(z, slice(1, 2)))
    value, gradient = jax.value_and_grad(lambda z: loss.value(stats(z)))(z)
    np.testing.assert_allclose(loss.value(added), value, rtol=1e-6)
    assert np.isfinite(gradient).all() and not np.any(gradient[labels == IGNORE])
    step = 1e-2 * jnp.zeros_like(z).at[1, 3, 5, 0].set(1.0)
    slope = (loss.value(stats(z + step)) - loss.value(stats(z - step))) / 2e-2
    np.testing.assert_allclose(gradient[1, 3, 5, 0], slope, rtol=1e-2)
    assert loss.of_logits.terms == loss.terms[:1]


def test_nothing_labelled_and_wrong_arguments(batch):
    labels, logits, z = batch
    loss = make_loss("detail", num_classes=CLASSES)
    assert value_of(loss, np.full_like(labels, IGNORE), logits, z) == 0
    assert np.isnan(value_of(loss, np.full_like(labels, 7), logits, z))
    with pytest.raises(ValueError, match=r"details \[b,h,w,1\] of the labels' size"):
        value_of(loss, labels, logits, z[..., 0])
    with pytest.raises(ArgumentError, match="three weights"):
        make_loss("detail", num_classes=CLASSES, args={"detail": {"shares": (1.0, 2.0)}})

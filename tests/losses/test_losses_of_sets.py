"""Losses of pixels that may have several classes: the k binary problems, added before the division."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.oracles import torch

from jaxseg import losses
from jaxseg.errors import ArgumentError
from jaxseg.losses.table import LOSSES
from jaxseg.sets import is_known, members, pixel_counts
from jaxseg.types import IGNORE, ignore_in, ignore_label, label_type

K = 3
ABLE = [name for name, loss in LOSSES.items() if loss.multilabel]


@pytest.fixture(scope="module")
def batch():
    """Logits f32[2,5,6,3], and labels i32[2,5,6] of which some are unknown."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 6, K)).astype(np.float32)
    labels = rng.integers(0, 2**K, (2, 5, 6)).astype(np.int32)
    labels[0, :2, :3] = ignore_label(K, multilabel=True)
    return logits, labels


@pytest.mark.parametrize(("k", "ignored", "dtype"), [(7, 255, np.uint8), (15, 65535, np.uint16), (31, -1, np.uint32)])
def test_a_label_of_each_number_of_classes(k, ignored, dtype):
    assert ignore_label(k, True) == ignored and label_type(k, True) == dtype
    label = np.array([[0, 1, 2 ** (k - 1), 2**k - 1, np.iinfo(dtype).max]], dtype)
    assert ignore_in(label) == np.iinfo(dtype).max
    on_device = jnp.asarray(label.astype(np.int32) if k == 31 else label, jnp.int32)
    np.testing.assert_array_equal(is_known(on_device, k), [[True] * 4 + [False]])
    there = np.asarray(members(on_device, k))[0]
    assert (there[:4].sum(-1) == [0, 1, 1, k]).all() and there[1, 0] == there[2, k - 1] == 1
    assert (there[4] == IGNORE).all()
    np.testing.assert_array_equal(pixel_counts(label, k), [2, *[1] * (k - 2), 2, 1, 1])


def test_a_number_that_is_no_set_makes_every_loss_nan(batch):
    logits, labels = batch
    for name in ("binary_cross_entropy", "dice"):
        # Of 3 classes the first one is there, and is unknown; the first is unknown; a bit beyond those of the unknown.
        for value, nan in ((9, (True, True)), (8, (True, False)), (64, (True, True))):
            wrong = np.where(labels == 255, value, labels)
            made = [losses.make_loss(name, num_classes=K, multilabel=True, partly=partly) for partly in (False, True)]
            assert tuple(bool(np.isnan(loss(logits, wrong))) for loss in made) == nan, (name, value)


@pytest.mark.parametrize("k", [3, 5, 9, 15])
def test_single_classes_can_be_unknown(k):
    """In a label of two bits a class, beside pixels that are unknown altogether in the largest number of each type."""
    rng = np.random.default_rng(k)
    there, unknown = rng.random((2, 6, 5, 7, k)) < 0.4
    there &= ~unknown
    places = np.arange(k)
    labels = ((there << places) + (unknown << places + k)).sum(-1)
    kind = label_type(k, multilabel=True, partly=True)
    assert labels.max() < np.iinfo(kind).max and (k != 3 or kind == np.uint8) and (k != 9 or kind == np.uint32)
    labels = labels.astype(kind)
    labels[0, 0], labels[1, 0] = np.iinfo(kind).max, ignore_label(k, multilabel=True)
    unknown[:2, 0] = True
    expected = np.where(unknown, IGNORE, there)
    np.testing.assert_array_equal(members(jnp.asarray(labels.astype(np.int32)), k), expected)
    logits = rng.normal(size=(6, 5, 7, k)).astype(np.float32)
    loss = losses.make_loss("binary_cross_entropy", num_classes=k, multilabel=True, partly=True)(
        logits, labels.astype(np.int32)
    )
    each = np.logaddexp(0, np.where(there, -logits, logits).astype(np.float64))
    np.testing.assert_allclose(loss, each[~unknown].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", some_slow(ABLE, ("boundary", "boundary_f1", "jaccard", "lovasz", "mse", "tversky")))
def test_a_loss_of_sets_is_that_of_the_binary_problems(batch, name):
    logits, labels = batch
    whole = losses.make_loss(name, num_classes=K, multilabel=True)
    one = losses.make_loss(name, num_classes=1)
    (term,) = one.terms
    total, weight = 0.0, 0.0
    for c in range(K):
        truth = np.where(labels == 255, 255, labels >> c & 1)
        sums = one.stats(logits[..., c : c + 1], truth)[name]
        of_class = term.definition.finish(sums, dict(term.options))
        total, weight = total + float(of_class[0]), weight + float(of_class[1])
    np.testing.assert_allclose(whole(logits, labels), total / weight, rtol=2e-6)
    assert whole.one_vs_rest and whole.of_logits.multilabel


def test_binary_cross_entropy_with_weights_as_torch(batch):
    logits, labels = batch
    t = torch()
    known = labels != 255
    truth = np.stack([labels >> c & 1 for c in range(K)], -1)[known].astype(np.float32)
    each = t.nn.functional.binary_cross_entropy_with_logits(
        t.tensor(logits[known]), t.tensor(truth), pos_weight=t.tensor([4.0, 4.0, 4.0]), reduction="none"
    ).numpy()
    # A class that is there weighs 4 and one that is not 1, and the mean is over these weights.
    args = {"binary_cross_entropy": {"class_weights": (1.0, 4.0)}}
    loss = losses.make_loss("binary_cross_entropy", num_classes=K, multilabel=True, args=args)
    np.testing.assert_allclose(loss(logits, labels), each.sum() / (1 + 3 * truth).sum(), rtol=1e-6)
    of_classes = losses.make_loss(
        "binary_cross_entropy", num_classes=K, multilabel=True, class_weights=(1.0, 0.0, 2.0), label_smoothing=0.2
    )
    smooth = t.nn.functional.binary_cross_entropy_with_logits(
        t.tensor(logits[known]), t.tensor(truth * 0.8 + 0.1), reduction="none"
    ).numpy()
    np.testing.assert_allclose(of_classes(logits, labels), smooth.mean(0) @ [1, 0, 2] / 3, rtol=1e-6)


def test_sums_of_parts_add_and_the_gradient_is_that_of_the_whole(batch):
    logits, labels = batch
    loss = losses.make_loss("binary_cross_entropy + 2 * dice", num_classes=K, multilabel=True)
    stats, value = jax.jit(loss.stats), jax.jit(loss)
    parts = [stats(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
    total = jax.tree.map(jnp.add, *parts)
    np.testing.assert_allclose(loss.value(total), value(logits, labels), rtol=1e-6)
    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(logits), labels))
    assert (gradient[labels == 255] == 0).all()
    norm = np.linalg.norm(gradient)
    ends = [float(value(logits + s * 0.05 * gradient / norm, labels)) for s in (1, -1)]
    np.testing.assert_allclose(norm, (ends[0] - ends[1]) / 0.1, rtol=1e-3)


@pytest.mark.parametrize(
    ("terms", "keys", "message"),
    [
        ("cross_entropy", {}, "cross_entropy is for pixels of one class.*binary_cross_entropy, .*dice, .*lovasz"),
        ("dice + ohem", {}, "term ohem is for pixels of one class"),
        ("dice", {"num_classes": 32}, "several of 2 to 31 classes, and there are 32 classes"),
        ("dice", {"class_weights": (1.0, 2.0)}, "class_weights must be 3 numbers"),
        ("dice", {"label_smoothing": 0.1}, "No term of the loss 'dice' takes label_smoothing"),
        ("dice", {"logit_adjustment": 1.0}, "each class has a sigmoid; leave them out"),
        ("dice", {"args": {"dice": {"include_background": False}}}, "sets have no background"),
        ("dice", {"args": {"focal": {}}}, "no term 'focal'"),
    ],
)
def test_what_sets_refuse(terms, keys, message):
    with pytest.raises(ArgumentError, match=message):
        losses.make_loss(terms, **{"num_classes": K, "multilabel": True, **keys})

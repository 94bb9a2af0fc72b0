"""The boundary losses of PIDNet against NumPy, pixel by pixel in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.losses import make_loss
from jaxseg.types import IGNORE

SHAPE, CLASSES = (2, 5, 7), 3


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int32)
    labels[0, :, 4:] = 1
    labels[1, 2:, 3:] = 2
    labels[0, :2, 0] = IGNORE
    logits = rng.normal(size=(*SHAPE, CLASSES)).astype(np.float32)
    return labels, logits, (3 * rng.normal(size=(*SHAPE, 1))).astype(np.float32)


def reference(labels, logits, boundary, width=2, threshold=0.8, weight=20.0):
    on, off, hard, pixels = [], [], [], 0
    for b, row, column in np.ndindex(*SHAPE):
        label = labels[b, row, column]
        if label == IGNORE:
            continue
        pixels += 1
        near = labels[b, max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        z = float(boundary[b, row, column, 0])
        p = 1 / (1 + np.exp(-z))
        edge = bool(set(near.reshape(-1).tolist()) - {label, IGNORE})
        (on if edge else off).append(-np.log(p if edge else 1 - p))
        if p > threshold:
            scores = logits[b, row, column].astype(np.float64)
            hard.append(np.log(np.exp(scores).sum()) - scores[label])
    balanced = (len(off) * sum(on) + len(on) * sum(off)) / pixels**2
    return weight * balanced + (np.mean(hard) if hard else 0.0)


@pytest.mark.parametrize("options", [{}, {"width": 1, "threshold": 0.5, "boundary_weight": 3.0}, {"threshold": 1.0}])
def test_it_is_the_balanced_boundary_and_the_classes_beside_it(batch, options):
    labels, logits, boundary = batch
    loss = make_loss("boundary_awareness", num_classes=CLASSES, args={"boundary_awareness": options})
    value = loss.value(loss.stats(logits, labels, {"boundary": (logits, boundary)}))
    named = {("weight" if name == "boundary_weight" else name): each for name, each in options.items()}
    np.testing.assert_allclose(value, reference(*batch, **named), rtol=1e-5)


def test_the_sums_of_images_add_and_both_outputs_have_a_gradient(batch):
    labels, logits, boundary = batch
    loss = make_loss("cross_entropy + boundary_awareness", num_classes=CLASSES)

    def stats(out, part=slice(None)):
        return loss.stats(out[0][part], labels[part], {"boundary": (out[0][part], out[1][part])})

    out = (jnp.asarray(logits), jnp.asarray(boundary))
    added = jax.tree.map(lambda a, b: a + b, stats(out, slice(0, 1)), stats(out, slice(1, 2)))
    value, gradient = jax.value_and_grad(lambda out: loss.value(stats(out)))(out)
    np.testing.assert_allclose(loss.value(added), value, rtol=1e-6)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradient)
    assert loss.of_logits.terms == loss.terms[:1]


def test_nothing_labelled_and_wrong_arguments(batch):
    labels, logits, boundary = batch
    loss = make_loss("boundary_awareness", num_classes=CLASSES)
    nothing = np.full_like(labels, IGNORE)
    assert loss.value(loss.stats(logits, nothing, {"boundary": (logits, boundary)})) == 0
    wrong = np.full_like(labels, 7)
    assert np.isnan(loss.value(loss.stats(logits, wrong, {"boundary": (logits, boundary)})))
    with pytest.raises(ValueError, match=r"boundaries \[b,h,w,1\] of the labels' size"):
        loss.stats(logits, labels, {"boundary": (logits, boundary[..., 0])})
    with pytest.raises(ValueError, match="boundary_awareness reads the output 'boundary', which this model does not"):
        loss.stats(logits, labels, {"aux": ()})

"""The further losses against float64 NumPy, cases by hand, finite differences and peers; and what all must keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import smp, torch
from test_losses import log_softmax64, make_batch, sigmoid64, weights_of

from jaxseg import losses
from jaxseg.types import IGNORE

SHAPE = (3, 6, 7)
OVERLAP = ("dice", "jaccard", "tversky", "generalised_dice")


def p64(z):
    return sigmoid64(z) if z.shape[-1] == 1 else np.exp(log_softmax64(z))


def onehot64(y, k):
    """The truth of the k classes that have a probability; all 0 where ignored."""
    return (y[..., None] == (np.arange(k) if k > 1 else np.ones(1))).astype(np.float64)


def images(function):
    """Sums the (sum, weight) of each image."""

    def summed(z, y, **options):
        each = [function(z[i], y[i], **options) for i in range(len(y))]
        return tuple(np.sum(each, axis=0))

    return summed


def overlap64(name, z, y, squared=None, per_image=False, **options):
    if per_image:
        each = [overlap64(name, z[i], y[i], squared, **options) for i in range(len(y)) if (y[i] != IGNORE).any()]
        return tuple(np.sum(each, axis=0)) if each else (0.0, 0.0)
    k, keep = z.shape[-1], y != IGNORE
    p, t = p64(z[keep]), onehot64(y[keep], k)
    if not options.pop("include_background", True):
        p, t = p[:, 1:], t[:, 1:]
    squared = name == "dice" if squared is None else squared
    both, predicted, true = (p * t).sum(0), (p**2 if squared else p).sum(0), t.sum(0)
    if name == "generalised_dice":
        weight = 1 / np.where(true > 0, true, true[true > 0].min()) ** 2
        return 1 - 2 * (weight * both).sum() / (weight * (predicted + true)).sum(), 1.0
    smooth = options.pop("smooth", 0.0)
    if name == "dice":
        score = (2 * both + smooth) / (predicted + true + smooth)
    elif name == "jaccard":
        score = (both + smooth) / (predicted + true - both + smooth)
    else:
        wrong = options.pop("alpha", 0.3) * (predicted - both) + options.pop("beta", 0.7) * (true - both)
        score = (both + smooth) / (both + wrong + smooth)
    score = np.where(true > 0, score, 1.0)
    loss = -np.log(score) if options.pop("log", False) else (1 - score) ** options.pop("gamma", 1.0)
    assert not options
    return float(loss.sum()), float(len(true))


def focal64(z, y, gamma=2.0, alpha=None, one_vs_rest=False, class_weights=None):
    keep = y != IGNORE
    z, y, k = z[keep], y[keep], z.shape[-1]
    w = np.ones(max(k, 2)) if class_weights is None else np.asarray(class_weights, np.float64)
    if k > 1 and not one_vs_rest:
        p = np.take_along_axis(p64(z), y[:, None], 1)[:, 0]
        pixel = -((1 - p) ** gamma) * np.log(p)
    else:
        t = onehot64(y, k)
        p = np.where(t == 1, sigmoid64(z), sigmoid64(-z))
        side = 1.0 if alpha is None else np.where(t == 1, alpha, 1 - alpha)
        pixel = (-side * (1 - p) ** gamma * np.log(p)).mean(-1)
    return float((w[y] * pixel).sum()), float(w[y].sum())


@images
def lovasz64(z, y):
    """By the definition: IoU losses of the growing sets of mistakes, none of it vectorised."""
    keep = y != IGNORE
    z, y, k = z[keep], y[keep], z.shape[-1]
    if len(y) == 0:
        return 0.0, 0.0
    each = []
    for c in range(k):
        t = y == (c if k > 1 else 1)
        if k > 1 and not t.any():
            continue
        error = np.abs(t - p64(z)[:, c]) if k > 1 else 1 - z[:, 0] * np.where(t, 1, -1)
        value, before, mistakes = 0.0, 0.0, np.zeros(len(y), bool)
        for i in np.argsort(-error):
            mistakes[i] = True
            loss = mistakes.sum() / max((t | mistakes).sum(), 1)
            value, before = value + max(error[i], 0) * (loss - before), loss
        each.append(value)
    return float(np.mean(each)), 1.0


@images
def ohem64(z, y, thresh=0.7, min_kept=0.2, class_weights=None, label_smoothing=0.0):
    keep = y != IGNORE
    z, y, k = z[keep], y[keep], max(z.shape[-1], 2)
    log_p = log_softmax64(np.concatenate([0 * z, z], -1) if z.shape[-1] == 1 else z)
    w = np.ones(k) if class_weights is None else np.asarray(class_weights, np.float64)
    q = (1 - label_smoothing) * np.eye(k)[y] + label_smoothing / k
    p = np.exp(np.take_along_axis(log_p, y[:, None], 1)[:, 0])
    least = max(int(np.ceil(min_kept * len(y) - 1e-9)), 1)
    hard = (p < thresh) | np.isin(np.arange(len(y)), np.argsort(p)[:least])
    return float(-(w * q * log_p).sum(-1)[hard].sum()), float(w[y][hard].sum())


def sampled64(z, y, samples=20, class_weights=None):
    keep = y != IGNORE
    z, y, k = z[keep], y[keep], z.shape[-1]
    w = np.ones(k) if class_weights is None else np.asarray(class_weights, np.float64)
    total = 0.0
    for logits, c in zip(z, y):
        wrong = np.sort(np.delete(logits, c))[::-1][:samples]
        total += w[c] * (np.log(np.exp(logits[c]) + np.exp(wrong).sum()) - logits[c])
    return float(total), float(w[y].sum())


def nearest64(mask):
    """Distance of every pixel to the nearest that is set, by looking at all pairs."""
    at = np.argwhere(np.ones(mask.shape, bool))
    return np.linalg.norm(at[:, None] - np.argwhere(mask)[None], axis=-1).min(1).reshape(mask.shape)


@images
def boundary64(z, y, max_distance=32, include_background=True):
    p, t, keep = p64(z), onehot64(y, z.shape[-1]), y != IGNORE
    first = 0 if include_background else 1
    total = 0.0
    for c in range(first, z.shape[-1]):
        own, other = t[..., c] == 1, keep & (t[..., c] == 0)
        if own.any() and other.any():
            signed = np.where(
                own, 1 - np.minimum(nearest64(other), max_distance), np.minimum(nearest64(own), max_distance)
            )
            total += (signed * p[..., c])[keep].sum()
    return total, float(keep.sum() * (z.shape[-1] - first))


@images
def boundary_f1_64(z, y, width=1, tolerance=2, include_background=True):
    keep, total, number = y != IGNORE, 0.0, 0.0

    def windows(x, reach, over):
        h, w = x.shape
        for i, j in np.ndindex(h, w):
            rows, columns = slice(max(i - reach, 0), i + reach + 1), slice(max(j - reach, 0), j + reach + 1)
            yield x[rows, columns][over[rows, columns]]

    def edges(m):
        most = np.array([w.max() if len(w) else 0.0 for w in windows(1 - m, width, keep)]).reshape(m.shape)
        return np.where(keep, most - (1 - m), 0.0)

    def near(b):
        return np.array([w.max() for w in windows(b, tolerance, np.ones_like(keep))]).reshape(b.shape)

    for c in range(0 if include_background else 1, z.shape[-1]):
        b, q = edges(onehot64(y, z.shape[-1])[..., c]), edges(p64(z)[..., c])
        if b.sum() > 0:
            precision, recall = (q * near(b)).sum() / q.sum(), (b * near(q)).sum() / b.sum()
            total, number = total + 1 - 2 * precision * recall / (precision + recall), number + 1
    return total, number


REFERENCES = {name: partial(overlap64, name) for name in OVERLAP} | {
    "focal": focal64, "lovasz": lovasz64, "ohem": ohem64, "sampled_cross_entropy": sampled64,
    "boundary": boundary64, "boundary_f1": boundary_f1_64,
}  # fmt: skip
CASES = [
    ("dice", {"per_image": True}), ("dice", {"log": True}), ("dice", {"include_background": False}),
    ("jaccard", {}), ("jaccard", {"squared": True, "smooth": 1.0}), ("jaccard", {"per_image": True, "log": True}),
    ("tversky", {}), ("tversky", {"alpha": 0.5, "beta": 0.9, "gamma": 0.75}),
    ("tversky", {"per_image": True, "gamma": 2.0, "include_background": False, "smooth": 0.1}),
    ("generalised_dice", {}), ("generalised_dice", {"per_image": True}),
    ("generalised_dice", {"squared": True, "include_background": False}),
    ("focal", {}), ("focal", {"gamma": 0.0}), ("focal", {"gamma": 0.5, "class_weights": True}),
    ("focal", {"one_vs_rest": True, "alpha": 0.25}), ("focal", {"one_vs_rest": True, "class_weights": True}),
    ("lovasz", {}),
    ("ohem", {}), ("ohem", {"thresh": 0.0, "min_kept": 0.5}), ("ohem", {"thresh": 0.3, "min_kept": 0.0}),
    ("ohem", {"class_weights": True, "label_smoothing": 0.1}),
    ("sampled_cross_entropy", {"samples": 1}), ("sampled_cross_entropy", {"samples": 2, "class_weights": True}),
    ("boundary", {}), ("boundary", {"max_distance": 2}), ("boundary", {"include_background": False}),
    ("boundary_f1", {}), ("boundary_f1", {"width": 2, "tolerance": 1}), ("boundary_f1", {"include_background": False}),
]  # fmt: skip
# Every loss of this file once, for what all must keep.
EACH = [("dice", {"per_image": True}), ("tversky", {"gamma": 0.75}), *((n, {}) for n in REFERENCES if n not in (
    "dice", "tversky"))]  # fmt: skip


def smooth_batch(k, shape=SHAPE, seed=0):
    """Labels of blocks, so that there are insides and boundaries; the last image is half ignored."""
    logits, labels = make_batch(k, seed, shape)
    blocks = np.random.default_rng(seed).integers(0, max(k, 2), (shape[0], -(-shape[1] // 3), -(-shape[2] // 3)))
    blocks = np.kron(blocks, np.ones((1, 3, 3), np.int32))[:, : shape[1], : shape[2]]
    labels = np.where(labels == IGNORE, IGNORE, blocks).astype(np.int32)
    labels[-1, : shape[1] // 2] = IGNORE
    return logits, labels


def takes(name, options, k):
    """Whether one logit has this form."""
    return k > 1 or not (name == "sampled_cross_entropy" or options.get("include_background") is False)


def run(name, logits, labels, **options):
    """(sum, weight) of a loss by its name, compiled: one by one the operations take seconds."""
    return jax.jit(partial(getattr(losses, name), **options))(logits, labels)


def make(name, options, k):
    return losses.make_loss(name, num_classes=k, args={name: options})


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name, options", CASES)
def test_value_and_gradient_equal_float64_and_finite_differences(name, options, k):
    if "class_weights" in options:
        options = {**options, "class_weights": tuple(weights_of(k))}
    if not takes(name, options, k):
        with pytest.raises(ValueError, match=r"k = 1"):
            jax.eval_shape(make(name, options, k), *make_batch(1))
        return
    logits, labels = smooth_batch(k)
    truth, loss = REFERENCES[name], partial(getattr(losses, name), **options)

    def value(z):
        total, weight = loss(z, labels)
        return losses.divide(total, weight), (total, weight)

    gradient, (total, weight) = jax.jit(jax.grad(value, has_aux=True))(logits)
    np.testing.assert_allclose((total, weight), truth(logits.astype(np.float64), labels, **options), rtol=5e-6)
    assert total.dtype == weight.dtype == jnp.float32
    gradient = np.asarray(gradient)
    assert np.all(gradient[labels == IGNORE] == 0)
    direction = np.random.default_rng(1).normal(size=logits.shape)
    h = 1e-6
    up, down = (truth(logits.astype(np.float64) + s * h * direction, labels, **options) for s in (1, -1))
    slope = (up[0] / up[1] - down[0] / down[1]) / (2 * h)
    np.testing.assert_allclose(np.sum(gradient * direction, dtype=np.float64), slope, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("name, options", EACH)
def test_what_every_loss_keeps(name, options, k):
    """IGNORE changes nothing; parts add; all-IGNORE is 0 with zero gradient; a wrong label and huge logits are seen."""
    if not takes(name, options, k):
        pytest.skip("not for one logit")
    loss = make(name, options, k)
    both_ways, stats = jax.jit(jax.value_and_grad(loss)), jax.jit(loss.stats)
    logits, labels = smooth_batch(k, (4, 6, 7))
    value, slope = both_ways(logits, labels)
    other = np.where((labels == IGNORE)[..., None], 37.0, logits)
    np.testing.assert_array_equal(value, both_ways(other, labels)[0])

    @jax.jit
    def in_parts(z, y):
        parts = [jax.vjp(partial(loss.stats, labels=y[i : i + 2]), z[i : i + 2]) for i in (0, 2)]
        total = jax.tree.map(jnp.add, *[each for each, _ in parts])
        value, cotangent = jax.value_and_grad(loss.value)(total)
        return total, value, jnp.concatenate([pull(cotangent)[0] for _, pull in parts])

    total, of_parts, gradient = in_parts(logits, labels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), total, stats(logits, labels))
    np.testing.assert_allclose(of_parts, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-7)

    void = both_ways(logits, np.full(labels.shape, IGNORE, np.int32))
    assert float(void[0]) == 0.0 and np.all(np.asarray(void[1]) == 0.0)
    # An ignored image more, as the filling of a last batch, is no image at all.
    filled = labels.copy()
    filled[2:] = IGNORE
    np.testing.assert_allclose(both_ways(logits, filled)[0], jax.jit(loss)(logits[:2], labels[:2]), rtol=1e-5)

    one_class = both_ways(logits, np.zeros_like(labels))
    huge = both_ways(logits * np.float32(1e30), labels)
    for given in (one_class, huge):
        assert np.isfinite(given[0]) and np.isfinite(given[1]).all()
    for wrong in (max(k, 2), 254, -1):
        bad = labels.copy()
        bad[0, 0, 0] = wrong
        assert np.isnan(both_ways(logits, bad)[0])


@pytest.mark.parametrize("name, options", EACH)
def test_eight_devices_equal_one(name, options):
    loss = make(name, options, 3)
    logits, labels = smooth_batch(3, (8, 6, 6))

    def shard(z, y):
        stats, pull = jax.vjp(partial(loss.stats, labels=y), z)
        value, cotangent = jax.value_and_grad(loss.value)(jax.lax.psum(stats, "batch"))
        return value, pull(cotangent)[0]

    expected, slope = jax.jit(jax.value_and_grad(loss))(logits, labels)
    values, gradients = jax.pmap(shard, "batch")(logits[:, None], labels[:, None])
    np.testing.assert_allclose(values, np.full(8, expected), rtol=1e-5)
    np.testing.assert_allclose(gradients[:, 0], slope, rtol=1e-4, atol=1e-7)


def test_perfect_predictions_cost_nothing():
    labels = smooth_batch(3)[1]
    logits = 60.0 * (np.eye(3, dtype=np.float32)[np.where(labels == IGNORE, 0, labels)])
    for name, options in EACH:
        if name != "boundary":  # negative: the sum of the distances inside
            assert abs(float(jax.jit(make(name, options, 3))(logits, labels))) < 1e-5, name


def test_overlap_by_hand():
    """Two pixels, p = (3/4, 1/4) and (1/4, 3/4), truth 0 and 1: I = 3/4, P = T = 1, FP = FN = 1/4 in both classes."""
    logits, labels = np.log(np.array([[[0.75, 0.25], [0.25, 0.75]]], np.float32)), np.array([[0, 1]])
    np.testing.assert_allclose(run("jaccard", logits, labels), (2 * (1 - 0.75 / 1.25), 2), rtol=1e-6)
    np.testing.assert_allclose(run("tversky", logits, labels, alpha=1, beta=3), (2 * (1 - 0.75 / 1.75), 2), rtol=1e-6)
    cubed = run("tversky", logits, labels, alpha=1, beta=1, gamma=3)
    np.testing.assert_allclose(cubed, (2 * 0.4**3, 2), rtol=1e-6)
    np.testing.assert_allclose(run("dice", logits, labels, squared=False, log=True), (-2 * np.log(0.75), 2), rtol=1e-6)
    np.testing.assert_allclose(
        run("dice", logits, labels, squared=False, include_background=False), (0.25, 1), rtol=1e-6
    )
    # Truth 0 alone: class 1 is absent and gets the weight of class 0, 1/4: 1 - 2 (1/4) / (1/4 (1 + 2) + 1/4 · 1).
    np.testing.assert_allclose(run("generalised_dice", logits, np.array([[0, 0]])), (0.5, 1), rtol=1e-6)
    # Tversky at 1/2, 1/2 is Dice without squares, and at 1, 1 Jaccard.
    z, y = smooth_batch(4)
    for equal, weight in (("dice", 0.5), ("jaccard", 1.0)):
        theirs = run(equal, z, y, squared=False)
        np.testing.assert_allclose(run("tversky", z, y, alpha=weight, beta=weight), theirs, rtol=1e-6)


def test_lovasz_by_hand():
    """Errors .6, .5 (foreground) and .2: the IoU losses of the first one, two, three as mistakes are 1/2, 1, 1."""
    logits = np.log(np.array([[[0.4, 0.6], [0.5, 0.5], [0.8, 0.2]]], np.float32))
    labels = np.array([[0, 1, 0]])
    of_one = 0.6 * (1 / 2) + 0.5 * (1 - 1 / 2)
    # Class 0, two true pixels: the mistakes .6 (true), .5 (not), .2 (true) make losses 1/2, 2/3, 1.
    of_zero = 0.6 * (1 / 2) + 0.5 * (2 / 3 - 1 / 2) + 0.2 * (1 - 2 / 3)
    np.testing.assert_allclose(run("lovasz", logits, labels), ((of_one + of_zero) / 2, 1), rtol=1e-6)
    # The hinge: z = (2, -1, 1), truth (1, 1, 0), errors -1, 2, 2, the tied two a miss and a false alarm.
    hinge = run("lovasz", np.array([[[2.0], [-1.0], [1.0]]], np.float32), np.array([[1, 1, 0]]))
    np.testing.assert_allclose(hinge, (2 * (2 / 3), 1), rtol=1e-6)


def test_the_lovasz_loss_of_hard_predictions_is_one_minus_iou():
    logits, labels = make_batch(3, shape=(1, 9, 9))
    hard = 60.0 * np.eye(3, dtype=np.float32)[logits.argmax(-1)]
    keep = labels != IGNORE
    iou = [
        ((logits.argmax(-1) == c) & (labels == c)).sum() / (((logits.argmax(-1) == c) | (labels == c)) & keep).sum()
        for c in range(3)
    ]
    np.testing.assert_allclose(run("lovasz", hard, labels)[0], 1 - np.mean(iou), rtol=1e-6)


def test_focal_without_gamma_and_sampling_of_all_are_cross_entropy():
    logits, labels = make_batch(4)
    expected = run("cross_entropy", logits, labels, class_weights=weights_of(4))
    np.testing.assert_allclose(
        run("focal", logits, labels, gamma=0.0, class_weights=weights_of(4)), expected, rtol=1e-6
    )
    sampled = partial(run, "sampled_cross_entropy", logits, labels, class_weights=weights_of(4))
    np.testing.assert_allclose(sampled(), expected, rtol=1e-6)
    assert sampled(samples=1)[0] < sampled(samples=2)[0] < expected[0]
    np.testing.assert_allclose(
        run("ohem", logits, labels, thresh=0.0, min_kept=1.0), run("cross_entropy", logits, labels)
    )


def test_ohem_keeps_the_share_and_the_threshold_of_each_image():
    """True-class probabilities .1 .. .9 and .95 .. .99: below .5 count; of the easy image the hardest fifth."""
    p = np.array([[0.1, 0.3, 0.5, 0.7, 0.9], [0.95, 0.96, 0.97, 0.98, 0.99]])
    logits = np.log(p / (1 - p)).astype(np.float32)[..., None]
    total, weight = run("ohem", logits, np.ones((2, 5), np.int32), thresh=0.5, min_kept=0.2)
    kept = np.array([0.1, 0.3, 0.95]) if np.float32(p[0, 2]) >= 0.5 else None
    np.testing.assert_allclose((total, weight), (-np.log(kept).sum(), 3), rtol=1e-5)


def test_boundary_distances_by_hand():
    """A class in the first two of five columns: φ = -1, 0 inside, 1, 2, 3 outside; cut off at 2: -1, 0, 1, 2, 2."""
    logits, labels = np.zeros((1, 1, 5, 1), np.float32), np.array([[[1, 1, 0, 0, 0]]])
    np.testing.assert_allclose(run("boundary", logits, labels), (0.5 * (-1 + 0 + 1 + 2 + 3), 5))
    np.testing.assert_allclose(run("boundary", logits, labels, max_distance=2), (0.5 * (-1 + 0 + 1 + 2 + 2), 5))


# Peers. Their arrays are [b,k,h,w].


def tensors(logits, labels):
    module = torch()
    return module.tensor(logits).movedim(-1, 1).requires_grad_(), module.tensor(labels).long()


def assert_same_loss(loss, theirs, logits, labels, rtol=2e-5):
    """Compares value and gradient of ours(logits, labels) with theirs(tensor [b,k,h,w], labels)."""
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, labels)
    z, y = tensors(logits, labels)
    expected = theirs(z, y)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=rtol)
    np.testing.assert_allclose(gradient, z.grad.movedim(1, -1).numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "name, options, theirs, arguments",
    [
        ("dice", {"squared": False}, "DiceLoss", {}),
        # Their smooth is added to the intersection, half of ours.
        ("dice", {"squared": False, "log": True, "smooth": 2.0}, "DiceLoss", {"log_loss": True, "smooth": 1.0}),
        ("jaccard", {}, "JaccardLoss", {}),
        ("jaccard", {"log": True}, "JaccardLoss", {"log_loss": True}),
        ("tversky", {}, "TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
        ("focal", {"one_vs_rest": True}, "FocalLoss", {}),
        ("focal", {"one_vs_rest": True, "alpha": 0.25, "gamma": 3.0}, "FocalLoss", {"alpha": 0.25, "gamma": 3.0}),
        ("lovasz", {}, "LovaszLoss", {"per_image": True}),
    ],
)
@pytest.mark.parametrize("k", [1, 4])
def test_losses_are_smps(k, name, options, theirs, arguments):
    logits, labels = smooth_batch(k)
    labels[labels == 2] = 0  # class 2 is absent
    peer = getattr(smp().losses, theirs)("binary" if k == 1 else "multiclass", ignore_index=IGNORE, **arguments)
    assert_same_loss(make(name, options, k), peer, logits, labels)


def test_focal_tversky_raises_each_class_where_smp_raises_the_mean():
    logits, labels = smooth_batch(1)
    arguments = {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}
    peer = smp().losses.TverskyLoss("binary", ignore_index=IGNORE, **arguments)
    assert_same_loss(make("tversky", {"gamma": 0.75}, 1), peer, logits, labels)
    logits, labels = smooth_batch(4)
    each = [run("tversky", logits, labels)[0]]
    peer = smp().losses.TverskyLoss("multiclass", ignore_index=IGNORE, **arguments)
    np.testing.assert_allclose((each[0] / 4) ** 0.75, peer(*tensors(logits, labels)).item(), rtol=1e-5)
    assert float(jax.jit(make("tversky", {"gamma": 0.75}, 4))(logits, labels)) < float((each[0] / 4) ** 0.75)  # Jensen


@pytest.mark.parametrize(
    "name, options, theirs, arguments",
    [
        ("dice", {"per_image": True}, "DiceLoss", {"squared_pred": True}),
        (
            "dice",
            {"squared": False, "include_background": False},
            "DiceLoss",
            {"batch": True, "include_background": False},
        ),
        ("jaccard", {"per_image": True}, "DiceLoss", {"jaccard": True}),
        ("tversky", {"per_image": True}, "TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
        ("generalised_dice", {}, "GeneralizedDiceLoss", {"batch": True}),
        ("generalised_dice", {"per_image": True}, "GeneralizedDiceLoss", {}),
    ],
)
def test_losses_are_monais(name, options, theirs, arguments):
    torch()
    monai = pytest.importorskip("monai.losses")
    logits, labels = make_batch(3, ignored=0.0, shape=(2, 6, 7))  # MONAI ignores no pixel; all classes in all images
    if name == "generalised_dice":
        labels[labels == 1] = 0
    smooth = {"smooth_nr": 0.0, "smooth_dr": 0.0}
    peer = getattr(monai, theirs)(softmax=True, to_onehot_y=True, **smooth, **arguments)
    assert_same_loss(make(name, options, 3), lambda z, y: peer(z, y[:, None]), logits, labels)


@pytest.mark.parametrize("include_background", [True, False])
def test_boundary_is_monais(include_background):
    torch()
    monai = pytest.importorskip("monai.losses")
    if not hasattr(monai, "BoundaryLoss"):
        pytest.skip("this MONAI has no BoundaryLoss")
    logits, labels = smooth_batch(3, (2, 12, 14))
    labels[labels == IGNORE] = 0
    labels[0][labels[0] == 2] = 1  # a class that is absent from an image
    peer = monai.BoundaryLoss(softmax=True, to_onehot_y=True, include_background=include_background)
    loss = make("boundary", {"include_background": include_background}, 3)
    assert_same_loss(loss, lambda z, y: peer(z, y[:, None]), logits, labels)


def test_terms_mix_in_one_sum_and_take_their_arguments():
    logits, labels = smooth_batch(3)
    text = "cross_entropy + 0.5*lovasz + tversky + 2 * dice"
    args = {"tversky": {"alpha": 1, "beta": 0.2}, "dice": {"per_image": True, "log": True}}
    loss = losses.make_loss(text, num_classes=3, args=args)
    parts = [
        (1, run("cross_entropy", logits, labels)), (0.5, run("lovasz", logits, labels)),
        (1, run("tversky", logits, labels, alpha=1, beta=0.2)),
        (2, run("dice", logits, labels, per_image=True, log=True)),
    ]  # fmt: skip
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), sum(w * losses.divide(*p) for w, p in parts), rtol=1e-6)
    hash(loss)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("focal", {"alpha": 1.5}, r"focal.alpha must lie in \[0, 1\]"),
        ("focal", {"one_vs_rest": 1}, "True or False"),
        ("ohem", {"min_kept": 100000}, r"ohem.min_kept must lie in \[0, 1\]"),
        ("tversky", {"aplha": 0.3}, "'alpha'"),
        ("tversky", {"alpha": "a"}, "number of at least 0"),
        ("boundary", {"max_distance": 2.5}, "whole number"),
        ("boundary_f1", {"tolerance": 0}, "at least 1"),
        ("sampled_cross_entropy", {"samples": True}, "whole number"),
    ],
)
def test_wrong_arguments_are_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        make(name, options, 3)


def test_an_alpha_for_a_softmax_is_refused():
    with pytest.raises(ValueError, match="class_weights"):
        losses.focal(*make_batch(3), alpha=0.25)
    for name in ("boundary", "boundary_f1"):
        with pytest.raises(ValueError, match=r"\[b,h,w\]"):
            getattr(losses, name)(*make_batch(3, shape=(4, 5)))

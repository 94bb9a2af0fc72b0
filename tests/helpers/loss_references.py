"""The losses written out in float64 NumPy from their definitions, and batches to compare them on."""

from functools import partial

import jax
import numpy as np

from jaxseg import losses
from jaxseg.types import IGNORE

SHAPE = (2, 5, 7)


def make_batch(k: int, seed: int = 0, shape: tuple[int, ...] = SHAPE, ignored: float = 0.2):
    """Random logits f32[*shape,k] and labels i32[*shape] with a share of IGNORE."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (*shape, k)).astype(np.float32)
    labels = rng.integers(0, max(k, 2), shape)
    return logits, np.where(rng.random(shape) < ignored, IGNORE, labels).astype(np.int32)


def weights_of(k: int) -> np.ndarray:
    return np.linspace(0.5, 3.0, max(k, 2))


def log_softmax64(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def sigmoid64(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def reference(name: str, logits, labels, weights=None, smoothing=0.0, squared=True, smooth=0.0) -> tuple[float, float]:
    """(sum, weight) in float64, written from the definitions: valid pixels picked out, no shared helpers."""
    z, y = np.asarray(logits, np.float64)[labels != IGNORE], np.asarray(labels)[labels != IGNORE]
    k = z.shape[-1]
    w = np.ones(max(k, 2)) if weights is None else np.asarray(weights, np.float64)
    onehot = np.eye(max(k, 2))[y]
    p = sigmoid64(z) if k == 1 else np.exp(log_softmax64(z))
    t = onehot[:, 1:] if k == 1 else onehot
    if name == "dice":
        if len(y) == 0:
            return 0.0, float(k)
        score = (2 * (p * t).sum(0) + smooth) / ((p**2 if squared else p).sum(0) + t.sum(0) + smooth)
        return float(np.where(t.sum(0) > 0, 1 - score, 0.0).sum()), float(k)
    if name == "mse":
        return float((w[y] * ((p - t) ** 2).mean(-1)).sum()), float(w[y].sum())
    if name == "cross_entropy" or k == 1:
        log_p = log_softmax64(np.concatenate([np.zeros_like(z), z], -1) if k == 1 else z)
        q = (1 - smoothing) * onehot + smoothing / max(k, 2)
        return float(-(w * q * log_p).sum()), float(w[y].sum())
    q = (1 - smoothing) * onehot + smoothing / 2
    s = sigmoid64(z)
    return float((w[y] * -(q * np.log(s) + (1 - q) * np.log(1 - s)).mean(-1)).sum()), float(w[y].sum())


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
    "focal": focal64,
    "lovasz": lovasz64,
    "ohem": ohem64,
    "sampled_cross_entropy": sampled64,
    "boundary": boundary64,
    "boundary_f1": boundary_f1_64,
}


def smooth_batch(k, shape=(3, 6, 7), seed=0):
    """Labels of blocks, so that there are insides and boundaries; the last image is half ignored."""
    logits, labels = make_batch(k, seed, shape)
    blocks = np.random.default_rng(seed).integers(0, max(k, 2), (shape[0], -(-shape[1] // 3), -(-shape[2] // 3)))
    blocks = np.kron(blocks, np.ones((1, 3, 3), np.int32))[:, : shape[1], : shape[2]]
    labels = np.where(labels == IGNORE, IGNORE, blocks).astype(np.int32)
    labels[-1, : shape[1] // 2] = IGNORE
    return logits, labels


def run(name, logits, labels, **options):
    """(sum, weight) of a loss by its name, compiled: one by one the operations take seconds."""
    return jax.jit(partial(getattr(losses, name), **options))(logits, labels)


def make(name, options, k):
    return losses.make_loss(name, num_classes=k, args={name: options})

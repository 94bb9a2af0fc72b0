"""Losses: pure functions of logits and labels that give sums, divided once after every reduction.

A pixel loss returns `(sum, weight)`; its value is `sum / weight`, formed after both have been added over pixels,
examples, devices and micro-batches. A set loss (Dice) adds its per-class intersections and cardinalities first and
forms its ratio afterwards. `make_loss` puts weighted sums of both kinds behind two functions, `Loss.stats`, which adds,
and `Loss.value`.

Labels are class indices or IGNORE, which counts in neither sum nor weight. Any other label outside the classes makes
the loss NaN, so that a wrong mask never trains in silence. With one logit (k = 1) the classes are 0 and 1 and the
probability of 1 is its sigmoid; with more it is their softmax. All arithmetic is float32.
"""

import dataclasses
import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.types import IGNORE, Array, PyTree

SumWeight = tuple[jax.Array, jax.Array]


def cross_entropy(
    logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None, label_smoothing: float = 0.0
) -> SumWeight:
    """Cross-entropy of softmax, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With target distribution q = (1 - s)·onehot(y) + s/k, a pixel adds -Σ_c w_c q_c log p_c to the sum and w_y to the
    weight (1 without class weights): the convention of torch's `cross_entropy`. One logit z stands for the two logits
    (0, z).

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        class_weights: f32[k] (f32[2] for k = 1), by default all 1.
        label_smoothing: s in [0, 1).

    Raises:
        ValueError: if the shapes disagree or labels are no integers.
    """
    logits, classes = _check(logits, labels)
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    truth = _one_hot(labels, classes)
    weights = _class_weights(class_weights, classes)
    target = jnp.where(truth, 1.0 - label_smoothing, 0.0) + label_smoothing / classes
    pixel = _target_cross_entropy(logits, target if weights is None else target * _expand(weights, target))
    return _reduce(pixel, labels, classes, truth, weights, averaged_weight=True)


@jax.custom_jvp
def _target_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-Σ_c target_c log softmax(logits)_c, f32[...,k] and f32[...,k] -> f32[...], for targets of any sum A.

    Equal to A·lse(z) - Σ_c target_c z_c, with z shifted by its maximum so that nothing large cancels. The derivative
    A·softmax(z) - target is written out because the automatic one passes over the logits twice as often.
    """
    return _shifted_cross_entropy(logits, target)[0]


@_target_cross_entropy.defjvp
def _target_cross_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    logits, target = primals  # the target comes of labels and has no tangent
    value, log_p = _shifted_cross_entropy(logits, target)
    slope = jnp.exp(log_p) * jnp.sum(target, axis=-1, keepdims=True) - target
    return value, jnp.sum(slope * tangents[0], axis=-1)


def _shifted_cross_entropy(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy and log softmax(logits)."""
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    right = jnp.sum(jnp.where(target == 0, 0.0, target * shifted), axis=-1)  # a class ruled out by -inf adds nothing
    return jnp.sum(target, axis=-1) * log_sum - right, shifted - log_sum[..., None]


def binary_cross_entropy(
    logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None, label_smoothing: float = 0.0
) -> SumWeight:
    """Sigmoid cross-entropy, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    With k = 1 this is `cross_entropy`. With more logits each class is told from all others: a pixel adds
    w_y · Σ_c BCE(σ(z_c), t_c) / k with t = (1 - s)·onehot(y) + s/2 to the sum and w_y to the weight, so that without
    weights the value is the mean over pixels and classes.

    Args and Raises: as `cross_entropy`.
    """
    if logits.shape[-1:] == (1,):
        return cross_entropy(logits, labels, class_weights=class_weights, label_smoothing=label_smoothing)
    logits, classes = _check(logits, labels)
    truth = _one_hot(labels, classes)
    target = jnp.where(truth, 1.0 - 0.5 * label_smoothing, 0.5 * label_smoothing)
    # -t log σ(z) - (1-t) log(1-σ(z)) = softplus(z) - t z, finite for every finite z.
    pixel = jnp.mean(jax.nn.softplus(logits) - target * logits, axis=-1)
    return _reduce(pixel, labels, classes, truth, _class_weights(class_weights, classes))


def mse(logits: Array, labels: Array, *, class_weights: Sequence[float] | Array | None = None) -> SumWeight:
    """Squared error of the probabilities, f32[b,h,w,k] and i32[b,h,w] -> (sum f32[], weight f32[]).

    A pixel adds w_y · Σ_c (p_c - onehot(y)_c)² / k to the sum and w_y to the weight, p = softmax(z) or, for k = 1, the
    single probability σ(z) against y: the mean over pixels and classes of the Brier score.

    Args and Raises: as `cross_entropy`.
    """
    logits, classes = _check(logits, labels)
    truth = _one_hot(labels, classes)
    error = probabilities(logits) - _scored(truth, logits.shape[-1])
    pixel = jnp.mean(jnp.square(error), axis=-1)
    return _reduce(pixel, labels, classes, truth, _class_weights(class_weights, classes))


def dice(logits: Array, labels: Array, *, squared: bool = True, smooth: float = 0.0) -> SumWeight:
    """Dice loss, f32[b,h,w,k] and i32[b,h,w] -> (Σ_c 1 - score_c f32[], number of classes f32[]).

    score_c = (2 Σ p_c y_c + smooth) / (Σ p_c² + Σ y_c² + smooth), sums over all pixels of the batch: Milletari et al.,
    V-Net, 2016, eq. 2 (`squared`), or with Σ p_c + Σ y_c below the line. A class without true pixels adds 0 to the sum
    and 1 to the number of classes. For k = 1 the one class is the foreground.

    Args:
        logits: f32[b,h,w,k], or any leading shape.
        labels: integers of the leading shape, 0..k-1 (0..1 for k = 1) or IGNORE.
        squared: squares p in the cardinality.
        smooth: added above and below the line.

    Raises:
        ValueError: if the shapes disagree or labels are no integers.
    """
    return dice_from_stats(dice_stats(logits, labels, squared=squared), smooth=smooth)


def dice_stats(logits: Array, labels: Array, *, squared: bool = True) -> dict[str, jax.Array]:
    """The sums that `dice` divides: intersection, predicted and truth, each f32[k]; they add over parts of a batch."""
    logits, classes = _check(logits, labels)
    valid = _valid(labels, classes)[..., None]
    truth = _scored(_one_hot(labels, classes), logits.shape[-1])
    p = probabilities(logits)
    pixels = tuple(range(labels.ndim))
    return {
        "intersection": jnp.sum(valid * p * truth, axis=pixels),
        "predicted": jnp.sum(valid * (p * p if squared else p), axis=pixels),
        "truth": jnp.sum(valid * truth, axis=pixels),
    }


def dice_from_stats(stats: Mapping[str, jax.Array], *, smooth: float = 0.0) -> SumWeight:
    """Forms (Σ_c 1 - score_c, number of classes) of `dice` from summed `dice_stats`."""
    truth = stats["truth"]
    absent = truth == 0  # False for the NaN of a label outside the classes
    below = jnp.where(absent, 1.0, stats["predicted"] + truth + smooth)
    score = (2.0 * stats["intersection"] + smooth) / below
    return jnp.sum(jnp.where(absent, 0.0, 1.0 - score)), jnp.float32(truth.shape[0])


def probabilities(logits: Array) -> jax.Array:
    """Softmax over classes, or the sigmoid of a single logit, f32[...,k] -> f32[...,k]."""
    logits = jnp.asarray(logits, jnp.float32)
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def divide(sum_: jax.Array, weight: jax.Array) -> jax.Array:
    """sum / weight, and 0 with a zero gradient where the weight is 0: a batch of IGNORE alone teaches nothing."""
    empty = weight == 0
    return jnp.where(empty, 0.0, sum_ / jnp.where(empty, 1.0, weight))


def median_frequency_weights(counts: Array, present: Array) -> np.ndarray:
    """Class weights that balance rare classes, i64[k] and i64[k] -> f32[k].

    w_c = median(f) / f_c with f_c = counts_c / present_c: Eigen and Fergus, Predicting Depth, Surface Normals and
    Semantic Labels, 2015, section 6.3.2. A class that never occurs gets 0 and stays out of the median.

    Args:
        counts: pixels of each class over the training data.
        present: pixels (of any class) in the images that contain the class.

    Raises:
        ValueError: if the shapes differ, a count exceeds its total, or no class occurs at all.
    """
    counts, present = np.asarray(counts, np.float64), np.asarray(present, np.float64)
    if counts.ndim != 1 or counts.shape != present.shape:
        raise ValueError(
            f"Median frequencies need two vectors of one length, got shapes {counts.shape} and {present.shape}."
        )
    if (counts < 0).any() or (counts > present).any():
        raise ValueError("The pixels of a class must lie between 0 and the pixels of the images that contain it.")
    if not counts.any():
        raise ValueError("Median-frequency weights need labelled pixels, and every class count is 0.")
    occurs = counts > 0
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(counts.shape, np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of a sum of losses: `weight * name(logits, labels, **options)`."""

    name: str
    weight: float
    options: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Loss:
    """A weighted sum of losses in two halves, so that there is one division after all reductions. See `make_loss`.

    total = psum of `stats` over devices and micro-batches; then `value(total)` is the loss of the whole batch, and the
    gradient of `value` at the total, pulled back through every `stats`, is the whole batch's gradient.
    """

    terms: tuple[Term, ...]
    num_classes: int

    def stats(self, logits: Array, labels: Array) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> {term: pytree of f32} that adds over pixels, examples, devices, micro-batches.

        Raises:
            ValueError: if the shapes disagree or k is not `num_classes`.
        """
        if logits.shape[-1] != self.num_classes:
            raise ValueError(f"The loss is for {self.num_classes} classes, got logits of shape {logits.shape}.")
        return {t.name: _TERMS[t.name].stats(t, logits, labels) for t in self.terms}

    def values(self, stats: PyTree) -> dict[str, jax.Array]:
        """The value f32[] of each term by its name, before its weight."""
        return {t.name: divide(*_TERMS[t.name].finish(t, stats[t.name])) for t in self.terms}

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[], the weighted sum of the terms; 0 with zero gradient if all pixels are IGNORE."""
        values = self.values(stats)
        return sum((t.weight * values[t.name] for t in self.terms), jnp.float32(0.0))

    def __call__(self, logits: Array, labels: Array) -> jax.Array:
        """f32[b,h,w,k], i32[b,h,w] -> f32[], the loss of one batch in one piece."""
        return self.value(self.stats(logits, labels))


def make_loss(
    terms: str = "cross_entropy",
    *,
    num_classes: int,
    class_weights: Sequence[float] | Array | None = None,
    label_smoothing: float = 0.0,
    args: Mapping[str, Mapping[str, Any]] | None = None,
) -> Loss:
    """Returns the loss that `terms` spells, such as "cross_entropy + 0.5 * dice".

    Args:
        terms: a sum of cross_entropy, binary_cross_entropy, mse and dice, each once and with a factor of its own.
        num_classes: k, the number of logits; 1 is binary.
        class_weights: k numbers (2 for k = 1), for the pixel losses among the terms.
        label_smoothing: in [0, 1), for the cross-entropies among the terms.
        args: further arguments of single terms: {"dice": {"squared": False}}.

    Raises:
        ValueError: for an unknown term or argument (naming the nearest), a spelling that cannot be read, class weights
            of a wrong number or sign, or weights or smoothing that no term takes.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"num_classes must lie in 1..{IGNORE} (label {IGNORE} means ignore), got {num_classes}.")
    common: dict[str, Any] = {}
    if class_weights is not None:
        common["class_weights"] = _checked_weights(class_weights, max(num_classes, 2))
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
    if label_smoothing:
        common["label_smoothing"] = float(label_smoothing)
    weights = _parse_terms(terms)
    args = args or {}
    for name in args:
        if name not in weights:
            raise ValueError(f"The loss {terms!r} has no term {name!r} to give arguments to.{_nearest(name, weights)}")
    for option in common:
        if not any(option in _TERMS[name].options for name in weights):
            raise ValueError(f"No term of the loss {terms!r} takes {option}.")
    built = []
    for name, weight in weights.items():
        known = _TERMS[name].options
        options = {key: value for key, value in common.items() if key in known}
        for key, value in (args[name] if name in args else {}).items():
            options[key] = _checked_option(name, key, value, known, max(num_classes, 2))
        built.append(Term(name, weight, tuple(options.items())))
    return Loss(tuple(built), num_classes)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How the term of one name is computed: additive stats, and (sum, weight) from their total."""

    stats: Callable[[Term, Array, Array], PyTree]
    finish: Callable[[Term, PyTree], SumWeight]
    options: tuple[str, ...]


def _pixel_kind(function: Callable[..., SumWeight]) -> _Kind:
    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return _Kind(
        lambda term, logits, labels: function(logits, labels, **dict(term.options)),
        lambda term, stats: stats,
        tuple(options),
    )


_TERMS = {
    "cross_entropy": _pixel_kind(cross_entropy),
    "binary_cross_entropy": _pixel_kind(binary_cross_entropy),
    "mse": _pixel_kind(mse),
    "dice": _Kind(
        lambda term, logits, labels: dice_stats(logits, labels, **_pick(term, "squared")),
        lambda term, stats: dice_from_stats(stats, **_pick(term, "smooth")),
        ("squared", "smooth"),
    ),
}
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:(?P<weight>{_NUMBER})\s*\*\s*)?(?P<name>[A-Za-z_]\w*)\s*(?P<more>\+|$)")


def _pick(term: Term, *names: str) -> dict[str, Any]:
    return {key: value for key, value in term.options if key in names}


def _parse_terms(text: str) -> dict[str, float]:
    """Reads "a + 0.5 * b" as {a: 1.0, b: 0.5}."""
    weights: dict[str, float] = {}
    position, more = 0, True
    while more:
        match = _TERM.match(text, position)
        if match is None:
            raise ValueError(f'The loss {text!r} cannot be read; write a sum such as "cross_entropy + 0.5 * dice".')
        name = match["name"]
        if name not in _TERMS:
            raise ValueError(f"There is no loss {name!r}.{_nearest(name, _TERMS)}")
        if name in weights:
            raise ValueError(f"The loss {text!r} names {name} twice; give it one factor.")
        weights[name] = float(match["weight"] or 1.0)
        position, more = match.end(), match["more"] == "+"
    return weights


def _checked_option(name: str, key: str, value: Any, known: Sequence[str], classes: int) -> Any:
    if key not in known:
        raise ValueError(f"The loss {name} has no argument {key!r}.{_nearest(key, known)}")
    if key == "class_weights":
        return _checked_weights(value, classes)
    if key == "squared":
        if not isinstance(value, bool):
            raise ValueError(f"{name}.squared must be True or False, got {value!r}.")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{name}.{key} must be a number of at least 0, got {value!r}.")
    if key == "label_smoothing" and value >= 1.0:
        raise ValueError(f"{name}.label_smoothing must lie in [0, 1), got {value}.")
    return float(value)


def _checked_weights(weights: Sequence[float] | Array, classes: int) -> tuple[float, ...]:
    values = np.asarray(weights, np.float64)
    if values.shape != (classes,):
        raise ValueError(f"class_weights must be {classes} numbers, one per class, got shape {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(f"class_weights must be at least 0, finite and not all 0, got {values.tolist()}.")
    return tuple(values.tolist())


def _nearest(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else f" Known: {', '.join(sorted(known)) or 'none'}."


def _check(logits: Array, labels: Array) -> tuple[jax.Array, int]:
    """Returns float32 logits and the number of classes that labels may name."""
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"Labels need the shape of the logits without the class axis, got {labels.shape} for logits {logits.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    return jnp.asarray(logits, jnp.float32), max(logits.shape[-1], 2)


def _one_hot(labels: Array, classes: int) -> jax.Array:
    """bool[..., classes]; a comparison, since XLA's gather and its scatter gradient are slow."""
    return jnp.asarray(labels, jnp.int32)[..., None] == jnp.arange(classes).reshape((1,) * labels.ndim + (classes,))


def _scored(truth: jax.Array, k: int) -> jax.Array:
    """The one-hot truth of the classes that have a probability: all, or the foreground for k = 1."""
    return jnp.asarray(truth[..., 1:] if k == 1 else truth, jnp.float32)


def _valid(labels: Array, classes: int) -> jax.Array:
    """1 for a pixel that counts, 0 for IGNORE, NaN for a label outside the classes."""
    labels = jnp.asarray(labels, jnp.int32)
    inside = (labels >= 0) & (labels < classes)
    return jnp.where(labels == IGNORE, 0.0, jnp.where(inside, 1.0, jnp.nan))


def _class_weights(weights: Sequence[float] | Array | None, classes: int) -> jax.Array | None:
    if weights is None:
        return None
    values = jnp.asarray(weights, jnp.float32)
    if values.shape != (classes,):
        raise ValueError(f"class_weights must be {classes} numbers, one per class, got shape {values.shape}.")
    return values


def _expand(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def _reduce(
    pixel: jax.Array,
    labels: Array,
    classes: int,
    truth: jax.Array,
    weights: jax.Array | None,
    averaged_weight: bool = False,
) -> SumWeight:
    """Sums a loss per pixel; `averaged_weight` says that it has the class weights in it already."""
    valid = _valid(labels, classes)
    if weights is None:
        return jnp.sum(valid * pixel), jnp.sum(valid)
    weight = valid * jnp.sum(jnp.where(truth, _expand(weights, truth), 0.0), axis=-1)
    return jnp.sum((valid if averaged_weight else weight) * pixel), jnp.sum(weight)

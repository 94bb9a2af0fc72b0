"""Scores a split an image at a time, with whatever segments one: in tiles, in several views, with several networks."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.batching import check_example
from jaxseg.data.reading import STOP, Reading
from jaxseg.data.transforms import pad_to
from jaxseg.inference.networks import Scores
from jaxseg.inference.score import Result
from jaxseg.losses import Loss
from jaxseg.metrics import predict_and_count
from jaxseg.metrics.native_size import inside_mask
from jaxseg.step import Measure
from jaxseg.types import PyTree, label_type

Counter: TypeAlias = Callable[..., dict[str, PyTree]]

_TIMED = 3  # images from which on their median time says something
_TINY = 1e-30  # below a probability's rounding: its logarithm is finite


class Timed(NamedTuple):
    """The sums over a split, and the median seconds that an image took, NaN of too few; see `typical_seconds`."""

    result: Result
    seconds: float


def score_images(
    source: Any,
    segment: Callable[[np.ndarray], Scores],
    loss: Loss,
    *,
    reading: Reading = STOP,
    measures: Mapping[str, Measure] | None = None,
    progress: Callable[[int], object] = lambda images: None,
    see: Callable[[dict[str, np.ndarray]], object] = lambda maps: None,
    counter: Counter | None = None,
) -> Timed:
    """Scores a split, each image once and at its own size; several processes share the images.

    Mean probabilities p are scored as the logits log p, or log p - log(1 - p) where a class has a sigmoid, which have
    the same probabilities. The loss is NaN where one of its terms reads more than the logits.

    Args:
        source: the images and their labels, see `jaxseg.data.base.Source`.
        segment: u8|u16[h,w,c] -> the scores of one image, such as `Predictor.scores`.
        loss: the loss whose value is reported.
        reading: the time that reading an image may take; one that cannot be read always raises.
        measures: further sums by name, each a function of (logits, labels).
        progress: called with the number of this process's images after each.
        see: called with the maps of each image, as of `step.make_eval_step`, and its "index".
        counter: of `make_counter` with the same loss and measures, which several calls share; None: one of its own.

    Raises:
        DataError: if an image cannot be read.
        ValueError: if there is no image.
    """
    if len(source) == 0:
        raise ValueError("there is no image to score: the split is empty")
    has_loss = _has_loss(loss)
    count = make_counter(loss, measures or {}) if counter is None else counter
    totals: PyTree = None
    seconds: list[tuple[tuple[int, ...], float]] = []
    processes, index = jax.process_count(), jax.process_index()
    shares = range(-(-len(source) // processes) * processes)  # all processes take part in the same sums
    for i in shares[index::processes]:
        example = reading.example(source, min(i, len(source) - 1))
        check_example(source, i, example, source.info.channels)
        image, label = example["image"], example["label"]
        began = time.perf_counter()
        scores = segment(image)
        jax.block_until_ready(scores.values)
        seconds.append((image.shape, time.perf_counter() - began))
        label = label if i < len(source) else np.full_like(label, source.info.ignored)
        canvas = pad_to(label, scores.values.shape[1:3], source.info.ignored)
        h, w = label.shape
        covered = np.array([(h, w) if i < len(source) else (0, 0)], np.int32)
        host = jax.device_get(count(scores.values, scores.are_logits, canvas[None], covered))
        if i < len(source):
            size = np.array([(h, w)], np.int32)
            prediction = host.pop("prediction")[:, :h, :w]
            see({"prediction": prediction, "label": label[None], "size": size, "index": np.array([i])})
        host.pop("prediction", None)
        wide = jax.tree.map(lambda x: x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), host)
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
        progress(int(i < len(source)))
    totals = _over_processes(totals)
    confusion = totals.pop("confusion")
    value = float("nan")
    if has_loss:
        stats = totals.pop("stats")
        value = float(loss.value(jax.tree.map(np.float32, stats))) if confusion.sum() else value
    return Timed(Result(confusion, value, len(source), totals), typical_seconds(seconds))


def typical_seconds(seconds: Iterable[tuple[tuple[int, ...], float]]) -> float:
    """Returns the median of the seconds of (shape, seconds), without the first of each shape, for which a program may
    compile; NaN if fewer than three are left."""
    seen, timed = set[tuple[int, ...]](), list[float]()
    for shape, value in seconds:
        if shape in seen:
            timed.append(value)
        seen.add(shape)
    return statistics.median(timed) if len(timed) >= _TIMED else math.nan


def _has_loss(loss: Loss) -> bool:
    """Returns whether the loss has a value of the logits alone."""
    return not any(term.definition.reads for term in loss.terms)


def make_counter(loss: Loss, measures: Mapping[str, Measure]) -> Counter:
    """Returns the compiled (scores f32[1,y,x,k], are they logits, labels u8|u16[1,y,x], size of the image
    i32[1,2]) -> the sums of one image."""
    has_loss = _has_loss(loss)

    @functools.partial(jax.jit, static_argnums=1)
    def count(values: jax.Array, are_logits: bool, labels: jax.Array, size: jax.Array) -> dict[str, PyTree]:
        logits = values if are_logits else logits_of(values, loss.one_vs_rest)
        labels = jnp.asarray(labels, jnp.int32)
        predicted, confusion = predict_and_count(logits, labels, loss.multilabel)
        sums: dict[str, PyTree] = {
            "confusion": confusion,
            "prediction": predicted.astype(label_type(logits.shape[-1], loss.multilabel)),
            **{name: measure(logits, labels) for name, measure in measures.items()},
        }
        if not has_loss:
            return sums
        covered = inside_mask(size, (labels.shape[1], labels.shape[2])) if loss.learns_unlabelled else None
        return {**sums, "stats": loss.stats(logits, labels, covered=covered)}

    return count


def logits_of(probabilities: jax.Array, one_vs_rest: bool) -> jax.Array:
    """f32[b,h,w,k] -> logits of which `losses.probabilities` gives these probabilities back."""
    logs = jnp.log(jnp.maximum(probabilities, _TINY))
    if one_vs_rest or probabilities.shape[-1] == 1:
        return logs - jnp.log(jnp.maximum(1 - probabilities, _TINY))
    return logs


def _over_processes(sums: PyTree) -> PyTree:
    """Adds the sums of all processes."""
    if jax.process_count() == 1:
        return sums
    from jax.experimental import multihost_utils

    def gathered(x: np.ndarray) -> np.ndarray:
        # As bytes: JAX would gather 32 bits of a number, and counts may have more.
        every = multihost_utils.process_allgather(np.frombuffer(x.tobytes(), np.uint8))
        return np.asarray(every, np.uint8).reshape(jax.process_count(), -1).view(x.dtype).sum(axis=0).reshape(x.shape)

    return jax.tree.map(gathered, sums)

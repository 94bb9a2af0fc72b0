"""Scores a split, in batches or an image at a time. Training and `jaxseg.evaluate` share these loops."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg.losses import Loss
from jaxseg.parallel import Strategy
from jaxseg.types import PyTree

_INDEX = "index of the images"  # beside the sums of a batch


class Result(NamedTuple):
    """Sums over a whole split.

    Attributes:
        confusion: i64[k,k], rows are the truth, columns the prediction.
        loss: the loss of the totals; NaN if no pixel is labelled, unless a term of the loss compares images.
        images: number of scored images, without padding examples.
        measures: the sums of the other measures of the step, by name.
    """

    confusion: np.ndarray
    loss: float
    images: int
    measures: dict[str, PyTree]


def score(
    eval_step: Callable[[PyTree, PyTree], dict[str, PyTree]],
    state: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    loss: Loss,
    strategy: Strategy,
    progress: Callable[[int], Any] = lambda images: None,
    see: Callable[[dict[str, np.ndarray]], Any] = lambda maps: None,
) -> Result:
    """Scores a split, each image once.

    The confusion matrices are added in int64 and the sums of the loss in float64, on the host. Each result is read only
    after the next batch has been handed to the device, so that host and device work at the same time.

    Args:
        eval_step: the result of `strategy.compile_eval(make_eval_step(...))`.
        state: the training state, placed by `strategy.put_state`.
        batches: the evaluation loader; `index` is -1 for padding examples.
        loss: the loss whose sums the step returns.
        strategy: the strategy that compiled the step.
        progress: called with the number of this process's images in each batch.
        see: called with the "maps" of each batch, if the step returns any, and its "index" i[b], while the device
            computes the next batch.

    Raises:
        ValueError: if there are no batches.
    """
    totals: dict[str, PyTree] | None = None
    pending: dict[str, PyTree] | None = None
    images = 0
    for batch in batches:
        count = int(np.sum(np.asarray(batch["index"]) >= 0))
        arrays = {name: batch[name] for name in ("image", "label", "size", "inside") if name in batch}
        launched = {**strategy.first(eval_step(state, strategy.put_batch(arrays))), _INDEX: batch["index"]}
        totals, pending = _add(totals, pending, see), launched
        images += count
        progress(count)
    totals = _add(totals, pending, see)
    if totals is None:
        raise ValueError("there is no image to score: the split is empty")
    confusion = totals["confusion"]
    counted = confusion.sum() or not loss.needs_labels
    value = float(loss.value(jax.tree.map(np.float32, totals["stats"]))) if counted else float("nan")
    measures = {name: sums for name, sums in totals.items() if name not in ("confusion", "stats")}
    return Result(confusion, value, images, measures)


def _add(
    totals: dict[str, PyTree] | None, sums: dict[str, PyTree] | None, see: Callable[[dict[str, np.ndarray]], Any]
) -> dict[str, PyTree] | None:
    """Adds a batch's sums, still on the device, to the totals on the host, and passes its maps to `see`."""
    if sums is None:
        return totals
    host = dict(jax.device_get(sums))
    index = host.pop(_INDEX)
    if "maps" in host:
        see({**host.pop("maps"), "index": index})
    wide = jax.tree.map(lambda x: x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), host)
    return wide if totals is None else jax.tree.map(np.add, totals, wide)

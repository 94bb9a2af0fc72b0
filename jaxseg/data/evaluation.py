"""Evaluation batches: every example exactly once, at its native size, in a small number of shapes."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np

from jaxseg.data.batching import check_example, cores, processes, read_options, rows_of, stack
from jaxseg.data.reading import STOP, Reading
from jaxseg.data.transforms import Size, fill_up, pad_to, resize_image
from jaxseg.errors import DataError
from jaxseg.types import Batch


def make_eval_loader(
    source: Any,
    *,
    batch_size: int,
    size: Size,
    fit: str,
    reading: Reading = STOP,
    process_index: int | None = None,
    process_count: int | None = None,
    multiple: int = 1,
    canvas_multiple: int = 64,
    divisor: int | None = None,
    prefetch: int = 2,
) -> "EvalLoader":
    """Returns a reusable iterable of batches that hold every example of `source` exactly once.

    Each batch is {image [b,y,x,c], label u8[b,Y,X], size i32[b,2], inside i32[b,2], index i32[b]}, see `types.Batch`.
    Labels keep their native size and are padded with IGNORE at the bottom and right to the canvas (Y, X). With
    fit="resize" images have `size`. With "crop" images keep their native size, and only images of the same size share a
    batch; with `multiple` above 1 both sides are first extended to a multiple of it (`fill_up`), which reduces the
    number of sizes. Missing rows of a batch are padding examples: a black image, IGNORE everywhere, nothing inside,
    index -1. All processes make the same number of batches of the same shapes.

    The canvas is the common size of the labels if the whole split, or the batch, has only one that fits the image.
    Otherwise it is the largest size of the batch, rounded up to `canvas_multiple`, and examples are ordered by their
    canvas, so that few shapes are compiled. If all sizes are the same, the order is that of the source.

    Args:
        source: see `jaxseg.data.base.Source`.
        batch_size: images per batch, over all processes.
        size: (y, x) of the image for fit="resize".
        fit: "resize" or "crop".
        reading: the time that reading an image may take; one that cannot be read always raises.
        process_index: index of this process among `process_count`; both default to JAX's values.
        process_count: number of processes that share each batch.
        multiple: the sides of native images are extended to a multiple of this; 1 leaves them unchanged.
        canvas_multiple: the sides of a canvas are rounded up to a multiple of this.
        divisor: a batch with missing rows is padded only up to a multiple of this (such as the number of devices);
            None: up to `batch_size`.
        prefetch: number of batches prepared ahead.

    Raises:
        DataError: if the source is empty.
        ValueError: if `batch_size` is not divisible by the number of processes or by `divisor`.
    """
    if len(source) == 0:
        raise DataError("The evaluation split has no examples; expected at least one image with its mask.")
    index, count = processes(process_index, process_count)
    divisor = batch_size if divisor is None else divisor
    if batch_size % divisor or divisor % count:
        raise ValueError(f"batch_size {batch_size} must be divisible by {divisor}, and that by {count} processes.")
    sizes = label_sizes(source)
    if fit == "crop":
        sizes = [(-(-h // multiple) * multiple, -(-w // multiple) * multiple) for h, w in sizes]
    plan = _plan(sizes, batch_size, None if fit == "crop" else tuple(size), canvas_multiple, divisor)
    image_type = None if count == 1 else reading.image_type(source)
    return EvalLoader(source, plan, fit, index, count, prefetch, reading, image_type)


@dataclass(frozen=True)
class _PlannedBatch:
    """One global batch: the indices of its examples, -1 for padding, and the sizes of its images and label canvas."""

    indices: tuple[int, ...]
    image_size: Size
    canvas: Size


def _plan(
    sizes: Sequence[Size], batch_size: int, image_size: Size | None, multiple: int, divisor: int
) -> list[_PlannedBatch]:
    """Groups all examples into global batches; `image_size` None means native images, one size per batch."""
    one_size = len(set(sizes)) == 1

    def canvas_of(group: Sequence[int]) -> Size:
        largest = max(sizes[i][0] for i in group), max(sizes[i][1] for i in group)
        if one_size or all(sizes[i] == (image_size or sizes[i]) for i in group):
            return largest
        return -(-largest[0] // multiple) * multiple, -(-largest[1] // multiple) * multiple

    keys = [size if image_size is None else canvas_of([i]) for i, size in enumerate(sizes)]
    order = sorted(range(len(sizes)), key=lambda i: keys[i])
    runs: list[list[int]] = []
    for i in order:
        full = not runs or len(runs[-1]) == batch_size
        if full or (image_size is None and keys[i] != keys[runs[-1][0]]):
            runs.append([])
        runs[-1].append(i)
    plan = []
    for run in runs:
        rows = -(-len(run) // divisor) * divisor
        indices = (*run, *[-1] * (rows - len(run)))
        plan.append(_PlannedBatch(indices, image_size or sizes[run[0]], canvas_of(run)))
    return plan


class EvalLoader:
    """The iterable that `make_eval_loader` returns; `len` is its number of batches."""

    def __init__(
        self,
        source: Any,
        plan: list[_PlannedBatch],
        fit: str,
        index: int,
        count: int,
        prefetch: int,
        reading: Reading,
        image_type: np.dtype | None = None,
    ):
        self._reading, self._image_type = reading, image_type
        self._source, self._plan, self._fit = source, plan, fit
        self._index, self._count, self._prefetch = index, count, prefetch

    def __len__(self) -> int:
        return len(self._plan)

    def largest_shapes(self, dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of the arrays of the global batch with the most pixels; `dtype` is that of its images."""
        batch = max(
            self._plan, key=lambda each: len(each.indices) * (math.prod(each.image_size) + math.prod(each.canvas))
        )
        rows, info = len(batch.indices), self._source.info
        forms = {
            "image": ((*batch.image_size, info.channels), dtype),
            "label": (batch.canvas, info.ignored_everywhere((1, 1)).dtype),
            "size": ((2,), np.int32),
            "inside": ((2,), np.int32),
        }
        return {name: jax.ShapeDtypeStruct((rows, *shape), kind) for name, (shape, kind) in forms.items()}

    def __iter__(self) -> Iterator[Batch]:
        batches = grain.MapDataset.range(len(self._plan)).map(self._read)
        iterator = iter(batches.to_iter_dataset(read_options(self._prefetch)))
        try:
            yield from iterator
        finally:
            iterator.close()

    def _read(self, number: int) -> Batch:
        planned = self._plan[number]
        rows = rows_of(len(planned.indices), self._index, self._count)
        return stack([self._example(planned.indices[row], planned) for row in rows], self._image_type)

    def _example(self, index: int, planned: _PlannedBatch) -> dict[str, np.ndarray]:
        if index < 0:
            image = np.zeros((*planned.image_size, self._source.info.channels), self._source.info.image_type)
            label = self._source.info.ignored_everywhere(planned.canvas)
            return _row(image, label, planned.canvas, (0, 0), -1)
        example = self._reading.example(self._source, index)
        check_example(self._source, index, example, self._source.info.channels)
        image, label = example["image"], example["label"]
        scored, inside = label.shape, planned.image_size
        if self._fit == "crop":
            image, scored, inside = fill_up(image, planned.image_size), planned.image_size, label.shape
        else:
            image = resize_image(image, planned.image_size)
        return _row(image, pad_to(label, planned.canvas, self._source.info.ignored), scored, inside, index)


def _row(image: np.ndarray, label: np.ndarray, size: Size, inside: Size, index: int) -> dict[str, np.ndarray]:
    """Returns one row of a batch."""
    return {
        "image": image,
        "label": label,
        "size": np.array(size, np.int32),
        "inside": np.array(inside, np.int32),
        "index": np.array(index, np.int32),
    }


def label_sizes(source: Any) -> list[Size]:
    """Returns the native (height, width) of every example."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(source.label_size, range(len(source))))

"""Batches from a source: shuffled and endless for training, each image exactly once for evaluation.

Grain prefetches, in threads or worker processes. The contents of a batch are a pure function of (seed, number of the
batch), so the whole state of the training loader is one number, which is valid for any number of workers or threads.
With several processes, each process reads its own consecutive rows of the same global batch.
"""

import functools
import sys
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from jaxseg.data.base import Example
from jaxseg.data.batching import check_example, init_worker, processes, read_options, rows_of, stack
from jaxseg.data.evaluation import EvalLoader, make_eval_loader
from jaxseg.data.reading import STOP, Reading
from jaxseg.data.sampling import Order
from jaxseg.data.streams import CROPS, Apart, make_order
from jaxseg.data.transforms import Size, fit_example
from jaxseg.errors import DataError
from jaxseg.types import Batch

__all__ = ["EvalLoader", "TrainLoader", "make_eval_loader", "make_train_loader"]


_RESUME = {
    "seed": "Resume with the seed that the run was started with, or give another workdir.",
    "batch_size": "Resume with the batch size that the run was started with, or give another workdir.",
    "length": "Images were added to the training split or taken from it: give it back the images that it had, or start "
    "another run in another workdir.",
    "labelled": "Resume with the images that kept their labels when the run was started, or give another workdir.",
    "labelled_rows": "Resume with the data.labelled_rows that the run was started with, or give another workdir.",
}


def make_train_loader(
    source: Any,
    *,
    batch_size: int,
    size: Size,
    fit: str,
    channels: int,
    seed: int,
    workers: int = 0,
    prefetch: int = 2,
    labelled_rows: int = 0,
    unit: int = 1,
    order: Order | None = None,
    reading: Reading = STOP,
    process_index: int | None = None,
    process_count: int | None = None,
) -> "TrainLoader":
    """Returns an endless iterator of batches {image u8|u16[b,y,x,c], label u8[b,y,x], index i32[b]}.

    Each epoch visits every example once, in a new order; a batch may contain the end of one epoch and the start of the
    next, so all batches are full. b is the number of rows of this process: the rows of all processes, one after
    another, are the batch that a single process would make.

    Args:
        source: see `jaxseg.data.base.Source`.
        batch_size: images per batch, over all processes.
        size: (y, x) of image and label.
        fit: "resize" or "crop", see `fit_example`.
        channels: the expected number of image channels.
        seed: decides the orders and the crops.
        workers: worker processes; 0: threads of this process, half as many as there are cores.
        prefetch: number of batches prepared ahead; 0: each batch is made when it is requested.
        labelled_rows: number of rows of each batch with images that have labels; the others have images without. Each
            of the two kinds has its own epochs. 0: images as they come, in epochs of all.
        unit: number of consecutive rows of one kind, see `streams.labelled_rows_of`.
        order: which example stands at each place of the sequence, see `jaxseg.data.sampling`; None: the epochs above.
        reading: what to do about an image that cannot be read. With "skip", the image of the same row of the next batch
            is in its place.
        process_index: index of this process among `process_count`; both default to JAX's values.
        process_count: number of processes that share each batch.

    Raises:
        DataError: if the source is empty or `labelled_rows` needs images of a kind that it lacks, or, while iterating,
            if an example is not of the expected form; of several processes also if the first image has 8 bits and
            another 16.
        ValueError: if `batch_size` is not divisible by the number of processes, or with `labelled_rows` by `unit`.
    """
    if len(source) == 0:
        raise DataError("The training split has no examples; expected at least one image with its mask.")
    index, count = processes(process_index, process_count)
    rows = rows_of(batch_size, index, count)
    arranged = make_order(source, batch_size, labelled_rows, unit) if order is None else order
    reader = _TrainReader(source, arranged, batch_size, rows, tuple(size), fit, channels, seed % 2**63, reading)
    image_type = None if count == 1 else reading.image_type(source)
    return TrainLoader(reader, workers, prefetch, image_type)


@dataclass(frozen=True)
class _TrainReader:
    """Reads the example at a position of this process's endless sequence; a pure function of its fields."""

    source: Any
    order: Order
    batch_size: int
    rows: range
    size: Size
    fit: str
    channels: int
    seed: int
    reading: Reading

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        batch, row = divmod(position, len(self.rows))
        index, example = self.reading.first(lambda later: self._read(batch + later, self.rows[row]))
        rng = np.random.default_rng((self.seed, CROPS, batch * self.batch_size + self.rows[row]))
        image, label = fit_example(example, self.size, self.fit, rng)
        return {"image": image, "label": label, "index": np.array(index, np.int32)}

    def _read(self, batch: int, row: int) -> tuple[int, Example]:
        index = self.order.index(self.seed, batch, row, self.batch_size)
        example = self.reading.example(self.source, index)
        check_example(self.source, index, example, self.channels)
        return index, example


class TrainLoader:
    """The endless iterator that `make_train_loader` returns; `get_state` and `set_state` make it resumable."""

    def __init__(self, reader: _TrainReader, workers: int, prefetch: int, image_type: np.dtype | None = None):
        self._reader, self._workers, self._prefetch = reader, workers, prefetch
        self._stack = functools.partial(stack, image_type=image_type)
        self._next_batch = 0
        self._iterator: Any = None

    def __iter__(self) -> "TrainLoader":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._next_batch += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Returns the state for a checkpoint, in the types of JSON: the next batch's number and what it depends on."""
        reader = self._reader
        state = {
            "next_batch": self._next_batch,
            "seed": reader.seed,
            "batch_size": reader.batch_size,
            "length": len(reader.source),
        }
        if isinstance(reader.order, Apart):
            rows = sum(of_labelled for of_labelled, _ in reader.order.ranks)
            state |= {"labelled": len(reader.order.labelled), "labelled_rows": rows}
        return state

    def set_state(self, state: dict[str, int]) -> None:
        """Resumes from `get_state()` of this loader or one with the same settings (`workers` and threads may differ).

        Raises:
            DataError: if the state comes from a loader with another seed, batch size or number of examples, or is none
                of such a loader.
        """
        if not isinstance(state, dict):
            raise DataError(f"The stored state of the data iterator is {state!r:.100}, not named values.")
        for key, value in self.get_state().items():
            if key not in state:
                raise DataError(f"The stored state of the data iterator lacks {key!r}: another version wrote it.")
            if key != "next_batch" and state[key] != value:
                raise DataError(
                    f"The stored data iterator has {key} {state[key]}, this run has {value}, so the order of the data "
                    f"would not be the same. {_RESUME[key]}"
                )
        number = state["next_batch"]
        if type(number) is not int or number < 0:
            raise DataError(
                f"The stored data iterator has next_batch {number!r:.100}, expected a whole number from 0 on."
            )
        self.close()
        self._next_batch = number

    def close(self) -> None:
        """Stops the threads and worker processes; the next batch starts them again."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __enter__(self) -> "TrainLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> Any:
        rows = len(self._reader.rows)
        positions = grain.MapDataset.range(self._next_batch * rows, sys.maxsize)
        examples = positions.map(self._reader)
        if self._workers == 0:
            return iter(examples.to_iter_dataset(read_options(self._prefetch * rows)).batch(rows, batch_fn=self._stack))
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its flags through absl, and nothing here parses them.
        # Worker i makes all of each batch n with n % workers == i, so the batches are the same as with threads.
        batches = examples.batch(rows, batch_fn=self._stack).to_iter_dataset(grain.ReadOptions(1, 1))
        ahead = max(1, self._prefetch // self._workers)
        options = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=ahead)
        return iter(batches.mp_prefetch(options, worker_init_fn=init_worker))

"""Shared parts of the training and the evaluation loader: rows of a process, stacking, prefetching, worker set-up."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import grain
import numpy as np

from jaxseg.errors import DataError
from jaxseg.types import Batch

_MAX_THREADS = 8


def check_example(source: Any, index: int, example: Mapping[str, Any], channels: int) -> None:
    image, label = example["image"], example["label"]
    if image.ndim != 3 or image.shape[-1] != channels:
        raise DataError(f"{source.name(index)} is an image of shape {image.shape}; expected (h, w, {channels}).")
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{source.name(index)} is {image.shape[0]}x{image.shape[1]}, its mask {label.shape[0]}x{label.shape[1]}; "
            "they must have one size."
        )


def stack(examples: Sequence[dict[str, np.ndarray]], image_type: np.dtype | None = None) -> Batch:
    """Stacks examples; 8-bit images among 16-bit ones are scaled to 16 bits so that white stays white.

    With `data.range` all are floats.

    Args:
        examples: at least one.
        image_type: the type that images have in all batches, which several processes need; None: the widest of these.

    Raises:
        DataError: if an image has 16 bits and `image_type` has 8.
    """
    batch = {key: [example[key] for example in examples] for key in examples[0]}
    types = {image.dtype for image in batch["image"]} | ({image_type} if image_type else set())
    if len(types) > 1:
        if image_type == np.uint8:
            raise DataError(
                "The first image of the split has 8 bits and another has 16: the batches of several hosts need images "
                "of one type. Store all with 16 bits (each 8-bit value times 257), or run on one host."
            )
        batch["image"] = [i.astype(np.uint16) * 257 if i.dtype == np.uint8 else i for i in batch["image"]]
    stacked = {key: np.stack(values) for key, values in batch.items()}
    return cast(Batch, stacked)


def rows_of(batch_size: int, index: int, count: int) -> range:
    """Returns the rows of a global batch that belong to process `index` of `count`."""
    if batch_size % count:
        raise ValueError(f"A batch of {batch_size} is not divisible by {count} processes.")
    rows = batch_size // count
    return range(index * rows, (index + 1) * rows)


def processes(index: int | None, count: int | None) -> tuple[int, int]:
    """Returns (process index, process count), from JAX unless both are given."""
    if index is not None and count is not None:
        return index, count
    import jax  # Only here: asking for the process starts JAX's devices, which a worker must not do.

    return jax.process_index(), jax.process_count()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_options(elements: int) -> grain.ReadOptions:
    """Returns options that prefetch `elements` with half of the cores; the compiled step needs the other half."""
    threads = min(_MAX_THREADS, max(1, cores() // 2), elements)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=elements)


def init_worker(worker: int, workers: int) -> None:
    """Runs first in each worker process: the worker uses no accelerator, ignores signals and ends with its parent."""
    del worker, workers
    os.environ["JAX_PLATFORMS"] = "cpu"
    # On a signal the parent saves a checkpoint and stops; it needs its workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # The parent was killed, and nothing else stops this process.

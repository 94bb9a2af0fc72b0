"""What the step of a plan takes of this machine: its memory, compiled without running; and if asked, its seconds."""

import statistics
import time
from typing import NamedTuple

import jax
import numpy as np

from jaxseg.build import Parts, build_parts, make_strategy
from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError
from jaxseg.memory import room_of, shown
from jaxseg.parallel import Strategy
from jaxseg.pieces import require_start_of_frozen
from jaxseg.run.check import with_steps_above_warmup
from jaxseg.run.preflight import batch_shapes, changed, largest_batch, memory_of_step

_TIMED = 5


def image_type(bits: int) -> type[np.uint8] | type[np.uint16] | type[np.float32]:
    """Returns the type of images in a batch by the `bits` of a fingerprint: 8, 16, or 0 of floats."""
    return {0: np.float32, 8: np.uint8, 16: np.uint16}[bits]


class Fitting(NamedTuple):
    """batch_size, remat: with which a step fits. memory: what it takes, in words. reduced: whether more was wanted."""

    batch_size: int
    remat: bool
    memory: str
    reduced: bool


def fitting(config: ConfigDict, num_classes: int, bits: int = 8) -> Fitting:
    """Returns the batch that fits into the free memory, by compiling its step: that of `config` or a smaller one.

    A smaller one is a power of two for each device, so that little changes of what is free change nothing.

    Args:
        config: of the training.
        num_classes: of the data.
        bits: of the values of its images, as of a fingerprint.

    Raises:
        ConfigError: if no step fits.
    """
    parts, strategy = _parts(config, num_classes)
    dtype = image_type(bits)
    room = room_of(config.compile.memory)
    memory = memory_of_step(parts, strategy, dtype)
    if room is None or memory.total <= room.planned:
        return Fitting(config.batch_size, config.remat, shown(memory.total), False)
    for remat in dict.fromkeys((config.remat, True)):
        each = changed(parts, remat=remat)
        taken = memory if remat == config.remat else memory_of_step(each, strategy, dtype)
        if taken.total <= room.planned:
            return Fitting(config.batch_size, remat, shown(taken.total), True)
        count = largest_batch(each, strategy, room.planned, taken, dtype) // jax.device_count()
        if count >= 2:
            size = jax.device_count() * 2 ** int(np.log2(count))
            total = memory_of_step(changed(each, batch_size=size), strategy, dtype).total
            return Fitting(size, remat, shown(total), True)
    raise ConfigError(
        f"No batch of two images of {config.data.size[0]}x{config.data.size[1]} fits: a step of "
        f"batch_size={config.batch_size} takes {shown(memory.total)} of memory, and {room.words}. Give a smaller "
        "--config.data.size=HEIGHT,WIDTH or smaller --config.model.args.widths."
    )


class Seconds(NamedTuple):
    """step: of one step. compiling: until the first step is done. processor: of all cores for one step."""

    step: float
    compiling: float
    processor: float


def seconds_of_step(config: ConfigDict, num_classes: int, bits: int = 8) -> Seconds:
    """Runs a few steps on images of noise; returns the median time of a step. Reading of files is not part of it."""
    parts, strategy = _parts(config, num_classes)
    began = time.perf_counter()
    step = strategy.compile_train(parts.train_step(), remat=config.remat, constants=parts.constants)
    key = jax.random.key(0)
    state, key = strategy.put_state(parts.init(key)), strategy.put_key(key)
    rng = np.random.default_rng(0)
    shapes = batch_shapes(parts)
    batch = {
        "image": _noise(rng, shapes["image"].shape, bits),
        "label": rng.integers(0, max(num_classes, 2), shapes["label"].shape).astype(shapes["label"].dtype),
    }
    times, processor = [], []
    for _ in range(_TIMED + 1):
        state, _metrics = step(state, strategy.put_batch(batch), key)
        jax.block_until_ready(state)
        times.append(time.perf_counter())
        processor.append(time.process_time())
    each = statistics.median(np.diff(times).tolist())
    return Seconds(each, times[0] - began, statistics.median(np.diff(processor).tolist()))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> np.ndarray:
    dtype = image_type(bits)
    return rng.integers(0, 2**bits, shape, dtype) if bits else rng.random(shape, np.float32)


def _parts(config: ConfigDict, num_classes: int) -> tuple[Parts, Strategy]:
    require_start_of_frozen(config)
    config = with_steps_above_warmup(config)
    strategy = make_strategy(config)
    return build_parts(config, num_classes, axis_name=strategy.axis_name), strategy

"""The check of a step's memory before it runs: XLA says what a compiled program takes, and nothing is computed.

A step is compiled once, ahead of its first call, and that program is checked and then called. Others are compiled only
where it does not fit, to find what would.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import numpy as np

from jaxseg import build
from jaxseg.build import Parts
from jaxseg.config import ConfigDict, flatten, takes_pairs, with_values
from jaxseg.errors import ConfigError
from jaxseg.memory import largest, program_memory, room_of, sharing_devices, shown
from jaxseg.mesh import Axes, batch_parts, make_mesh
from jaxseg.parallel import Strategy
from jaxseg.types import PyTree, label_type

_LOG = logging.getLogger(__name__)
_UNCHECKED = "(compile.memory=off starts without this check.)"


@dataclass(frozen=True, eq=False)
class Ahead:
    """A step that is compiled ahead of its calls, once for each form of its batch, and checked before it runs.

    Attributes:
        step: of `Strategy.compile_train` or `compile_eval`.
        require: (program, its arguments or their shapes) -> None; raises where memory does not hold it.
        lowers_shapes: that of the strategy; without it the step compiles at its first call, and nothing is checked.
    """

    step: Any
    require: Callable[[Any, tuple[Any, ...]], object]
    lowers_shapes: bool = True
    _programs: dict[Any, Any] = field(default_factory=dict, repr=False)

    def compile(self, *arguments: PyTree) -> Any:
        """Returns the program for arguments, or for their shapes as `Strategy.placed_shapes` gives them.

        Raises:
            ConfigError: if memory does not hold it.
        """
        form = tuple((x.shape, x.dtype) for x in jax.tree.leaves(arguments[1]))
        if form not in self._programs:
            program = self.step.lower(*arguments).compile()
            self.require(program, arguments)
            self._programs[form] = program
        return self._programs[form]

    def __call__(self, *arguments: PyTree) -> Any:
        return self.compile(*arguments)(*arguments) if self.lowers_shapes else self.step(*arguments)

    def eval_shape(self, *arguments: PyTree) -> Any:
        """Returns the shapes of the results, of arguments or their shapes."""
        return self.step.eval_shape(*arguments)


@dataclass(frozen=True)
class StepMemory:
    """What a training step keeps in memory, in bytes; of all devices, where they share the memory of this machine.

    Attributes:
        parameters: of the networks.
        statistics: of batch norm.
        optimiser: its state.
        average: the moving average of the parameters.
        batches: that of the step, and the next, which is copied meanwhile.
        teacher: the variables of a teacher.
        activations: everything else: activations, gradients and other temporary arrays, and results.
    """

    parameters: int
    statistics: int
    optimiser: int
    average: int
    batches: int
    teacher: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, each.name) for each in fields(self))

    def __str__(self) -> str:
        names = {
            "optimiser": "optimiser state",
            "average": "moving average",
            "activations": "activations and gradients",
        }
        parts = [(each.name, getattr(self, each.name)) for each in fields(self)]
        return ", ".join(f"{names[n] if n in names else n} {shown(v)}" for n, v in parts if v >= self.total / 1000)


def batch_shapes(parts: Parts, dtype: Any = np.uint8) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the global batch of a training step; `dtype` is that of its images."""
    config = parts.config
    height, width = config.data.size
    narrow = label_type(parts.num_classes, parts.loss.multilabel, parts.loss.partly)
    return {
        "image": jax.ShapeDtypeStruct((config.batch_size, height, width, config.data.channels), dtype),
        "label": jax.ShapeDtypeStruct((config.batch_size, height, width), narrow),
    }


def memory_of_step(parts: Parts, strategy: Strategy, dtype: Any = np.uint8) -> StepMemory:
    """Compiles the training step of some parts and returns what it takes; nothing is computed or kept.

    Args:
        parts: of a run.
        strategy: of the run.
        dtype: of the images in a batch.
    """
    key = jax.eval_shape(jax.random.key, 0)
    shapes = strategy.placed_shapes(jax.eval_shape(parts.init, key), batch_shapes(parts, dtype), key)
    step = strategy.compile_train(parts.train_step(), remat=parts.config.remat, constants=parts.constants)
    return described(step.lower(*shapes).compile(), shapes, parts)


def described(program: Any, arguments: tuple[Any, ...], parts: Parts) -> StepMemory:
    """Returns what a compiled training step takes; `arguments` are its state and batch, or their shapes as placed."""
    state, batch = arguments[:2]
    sizes = (state.params, state.batch_stats, state.opt_state, state.ema_params, (batch, batch))
    teacher = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parts.constants))
    of_device = [*map(_bytes_on_device, sizes), teacher, program_memory(program, with_arguments=False)]
    return StepMemory(*(sharing_devices() * each for each in of_device))


def _bytes_on_device(tree: PyTree) -> int:
    """Returns the bytes that each device holds of arrays, or shapes, with a sharding."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def ahead_of_training(parts: Parts, strategy: Strategy) -> Ahead:
    """Returns the training step of a run, which is checked by the key `compile.memory` when it compiles."""
    step = strategy.compile_train(parts.train_step(), remat=parts.config.remat, constants=parts.constants)

    def require(program: Any, arguments: tuple[Any, ...]) -> None:
        room = room_of(parts.config.compile.memory)
        if room is None or program.memory_analysis() is None:
            return
        memory = described(program, arguments, parts)
        present = _bytes_on_device(arguments[0]) if isinstance(jax.tree.leaves(arguments)[0], jax.Array) else 0
        if memory.total - memory.teacher - sharing_devices() * present > room.free:
            takes = (
                f"A training step of batch_size={parts.config.batch_size} takes {shown(memory.total)} of memory "
                f"({memory}), and {room.words}"
            )
            _LOG.warning(f"{takes}; smaller steps are compiled to find what fits.")
            ways = ways_to_fit(parts, strategy, room.planned + memory.teacher, memory, arguments[1]["image"].dtype)
            raise ConfigError(f"{takes}; {ways}. {_UNCHECKED}")

    return Ahead(step, require, strategy.lowers_shapes)


def ways_to_fit(parts: Parts, strategy: Strategy, room: int, memory: StepMemory, dtype: Any = np.uint8) -> str:
    """Returns the changes with which a step that takes `memory` fits into `room` bytes, as a sentence without its stop.

    They are the largest `batch_size`, and what keeps the batch: `remat`, the least `accumulate`, or both, and another
    mesh of several devices. Each is found by compiling the step that it gives.
    """
    config = parts.config

    def fits(**changes: Any) -> bool:
        other = changed(parts, **changes)
        placed = build.make_strategy(other.config) if other.config.mesh != config.mesh else strategy
        return memory_of_step(other, placed, dtype).total <= room

    size = largest_batch(parts, strategy, room, memory, dtype)
    keeping = ["remat=true"] if not config.remat and fits(remat=True) else []
    likely = (n for n in splits(config) if config.batch_size <= n * (size or 1))
    keeping += [f"accumulate={n}" for n in itertools.islice(likely, 2) if fits(accumulate=n)][:1]
    if not keeping and not config.remat:
        both = (n for n in itertools.islice(splits(config), 3) if fits(remat=True, accumulate=n))
        keeping += [f"remat=true with accumulate={n}" for n in itertools.islice(both, 1)]
    keeping += [" ".join(f"{k}={v}" for k, v in mesh.items()) for mesh in _other_meshes(config) if fits(**mesh)]
    whole = f"the whole batch with {' or '.join(keeping)}"
    if not size:
        nothing = "no smaller batch_size fits, nor remat with accumulate: a smaller data.size or network is left"
        return f"{whole} fits" if keeping else nothing
    return f"batch_size={size} fits" + (f", and so does {whole}" if keeping else "")


def changed(parts: Parts, **changes: Any) -> Parts:
    """Returns the parts with other values of `batch_size`, `remat` or `accumulate`, which build the same network."""
    return replace(parts, config=with_values(parts.config, changes))


def _other_meshes(config: ConfigDict) -> Iterator[dict[str, int]]:
    """Yields the keys to change for a mesh over which the state, and one over which the images, are split further.

    Of several processes each has whole images, which its own devices share.
    """
    devices, own = jax.device_count(), jax.local_device_count()
    if config.strategy != "jit" or devices == 1:
        return
    if config.mesh.fsdp < devices // config.mesh.space:
        yield _changes(config, {"mesh.data": -1, "mesh.fsdp": devices // config.mesh.space})
    if config.mesh.space < own and build.input_size(config)[0] % own == 0:
        yield _changes(config, {"mesh.data": -1, "mesh.fsdp": 1, "mesh.space": own})


def _changes(config: ConfigDict, keys: Mapping[str, int]) -> dict[str, int]:
    """Returns the keys whose value in the configuration is another."""
    own = flatten(config)
    return {key: value for key, value in keys.items() if own[key] != value}


def unit_of(config: ConfigDict) -> int:
    """Returns what a batch size must be a multiple of: devices, micro-batches and, with `takes_pairs`, pairs."""
    parts = batch_parts(make_mesh(Axes(**config.mesh), jax.devices()))
    return parts * config.accumulate * (2 if takes_pairs(config) else 1)


def splits(config: ConfigDict) -> Iterator[int]:
    """Yields the values of `accumulate` above that of a configuration into which its batch divides, least first."""
    whole = config.batch_size * config.accumulate // unit_of(config)
    yield from (n for n in range(config.accumulate + 1, whole + 1) if whole % n == 0)


def largest_batch(parts: Parts, strategy: Strategy, room: int, memory: StepMemory, dtype: Any = np.uint8) -> int:
    """Returns the largest `batch_size` whose step fits into `room` bytes, found by compiling some; 0 if none fits.

    Args:
        parts, strategy, dtype: see `memory_of_step`.
        room: bytes.
        memory: what the step of the configuration takes.
    """
    unit = unit_of(parts.config)

    def total(count: int) -> int:
        return memory_of_step(changed(parts, batch_size=unit * count), strategy, dtype).total

    known = {0: memory.total - memory.batches - memory.activations, parts.config.batch_size // unit: memory.total}
    return unit * largest(total, room, known)


def ahead_of_evaluation(step: Any, config: ConfigDict, rows_axis: int = 0, lowers_shapes: bool = True) -> Ahead:
    """Returns a step of evaluation, which is checked by the key `compile.memory` whenever it compiles.

    Compiled for shapes, it is checked with the state and the batch, which are not in memory then.

    Args:
        step: of `Strategy.compile_eval`.
        config: of the run.
        rows_axis: the axis of the images of a batch that is placed: 1 under `pmap`.
        lowers_shapes: that of the strategy.
    """

    def require(program: Any, arguments: tuple[Any, ...]) -> None:
        room = room_of(config.compile.memory)
        if room is None or program.memory_analysis() is None:
            return
        state, batch = arguments
        image = batch["image"]
        placed = isinstance(image, jax.Array)  # else state and batch have no memory yet
        needed = sharing_devices() * program_memory(program, with_arguments=False)
        absent = 0 if placed else sharing_devices() * _bytes_on_device(arguments)
        if needed + absent <= room.free:
            return
        rows = image.shape[rows_axis]
        unit = rows // image.sharding.shard_shape(image.shape)[rows_axis]  # 1 under `pmap`
        devices = jax.device_count() if rows_axis else unit

        def total(count: int) -> int:
            shapes = jax.tree.map(lambda x: _with_rows(x, rows_axis, unit * count), batch)
            smaller = program_memory(step.lower(state, shapes).compile(), with_arguments=False)
            return sharing_devices() * (smaller + (0 if placed else _bytes_on_device((state, shapes))))

        count = largest(total, room.planned, {0: 0, rows // unit: needed + absent})
        size = devices * count
        height, width = image.shape[rows_axis + 1 : rows_axis + 3]
        way = f"eval.batch_size={size} fits" if size else f"no smaller eval.batch_size fits: {_smaller(config)}"
        raise ConfigError(
            f"An evaluation of {rows * (devices if rows_axis else 1)} images of {height}x{width} pixels takes "
            f"{shown(needed)} of memory beside the network, and {room.words}; {way}. {_UNCHECKED}"
        )

    return Ahead(step, require, lowers_shapes)


def _smaller(config: ConfigDict) -> str:
    return "give eval.tiles, such as eval.tiles=" + "x".join(map(str, config.data.size))


def _with_rows(x: Any, axis: int, rows: int) -> jax.ShapeDtypeStruct:
    shape = (*x.shape[:axis], rows, *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)

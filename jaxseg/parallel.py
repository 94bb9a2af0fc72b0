"""Compiles a step for the available devices: one program over a mesh (`jit`), or one copy for each device (`pmap`).

Both strategies take the same pure step, the same host batches and the same state, and give the same numbers. This file
holds everything that concerns devices (replication, donation) but for the mesh and its shardings, which `mesh` holds;
`compiler` holds the compiler options.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.arguments import StrategyName, check_value
from jaxseg.compiler import compiler_options, jit
from jaxseg.errors import ConfigError
from jaxseg.mesh import (
    SMALLEST,
    Axes,
    ProgramByShapes,
    batch_parts,
    batch_shardings,
    batch_spec,
    make_mesh,
    state_shardings,
    to_host,
)
from jaxseg.nn.ops.by_device import BATCH_AXIS, STATE_AXIS
from jaxseg.types import Key, PyTree

Device: TypeAlias = Any  # a `jax.Device`, which jax defines in a way that type checkers cannot read
_logger = logging.getLogger("jaxseg")


class Strategy(Protocol):
    """How steps are compiled for the devices, and how states and batches are placed on them."""

    @property
    def axis_name(self) -> str | None:
        """The `pmap` axis that the model's norms and the step reduce over; None under `jit`."""
        ...

    @property
    def lowers_shapes(self) -> bool:
        """Whether a compiled step has a method `lower` that takes shapes; `pmap` of several processes needs arrays."""
        ...

    def compile_train(
        self, step: Callable[..., Any], *, remat: bool = False, constants: tuple[PyTree, ...] = ()
    ) -> Callable[..., Any]:
        """Compiles `step(state, batch, key, *constants) -> (state, metrics)`, to be called without the constants.

        The new state reuses the memory of the old one. `remat` is the argument that `make_train_step` had. `constants`
        are pytrees of arrays, which are copied to all devices once.
        """
        ...

    def compile_eval(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles `step(state, batch) -> sums`."""
        ...

    def put_state(self, state: PyTree) -> PyTree:
        """Copies a state, which is in host or device memory, to all devices."""
        ...

    def get_state(self, state: PyTree) -> PyTree:
        """Returns one copy of a placed state, for checkpoints and `model.apply`."""
        ...

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> PyTree:
        """Splits this process's part of a batch over its devices."""
        ...

    def put_key(self, key: Key) -> Key:
        """Copies a PRNG key to all devices."""
        ...

    def placed_shapes(self, state: PyTree, batch: PyTree, key: Key) -> tuple[PyTree, PyTree, Key]:
        """Shapes of a state, a global batch and a key -> those of the arrays that the other methods place.

        A program that is traced with them has the trace that its call needs.
        """
        ...

    def first(self, tree: PyTree) -> PyTree:
        """Returns one copy of an output that is the same on all devices, such as metrics."""
        ...


@dataclass(frozen=True)
class JitStrategy:
    """One program over a mesh, of which each axis splits something: see `mesh`.

    The batch is split over `data` and `fsdp`, the state over `fsdp`, and the rows of images over `space`. With the axis
    `data` alone every device holds the state.

    Attributes:
        mesh: the devices.
        axis_name: None; `jit` needs no axis.
        changes: changes to the compiler options, see `compiler.compiler_options`.
        smallest: how many values the smallest array has that is split over `fsdp`.
    """

    mesh: Mesh
    axis_name: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    smallest: int = SMALLEST

    @property
    def lowers_shapes(self) -> bool:
        return True

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def sharded(self) -> NamedSharding:
        """That of an array whose first axis counts the images of a batch, and that has no rows."""
        return NamedSharding(self.mesh, batch_spec(self.mesh))

    def compile_train(
        self, step: Callable[..., Any], *, remat: bool = False, constants: tuple[PyTree, ...] = ()
    ) -> Callable[..., Any]:
        def program_for(state: PyTree, batch: PyTree) -> Any:
            return jit(
                step,
                compiler_options(self.changes),
                self.mesh,
                donate_argnums=0,
                in_shardings=(state, batch, self.replicated, *(self.replicated for _ in constants)),
                out_shardings=(state, self.replicated),
            )

        program = self._program(program_for)
        return _Bound(program, jax.device_put(_copied(constants), self.replicated)) if constants else program

    def compile_eval(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def program_for(state: PyTree, batch: PyTree) -> Any:
            return jit(
                step,
                compiler_options(self.changes),
                self.mesh,
                in_shardings=(state, batch),
                out_shardings=self.replicated,
            )

        return self._program(program_for)

    def put_state(self, state: PyTree) -> PyTree:
        # Copied, since the compiled step donates the state and the caller's arrays must stay valid.
        return jax.device_put(_copied(state), self.state_shardings(state))

    def get_state(self, state: PyTree) -> PyTree:
        return to_host(state) if self._splits_state else self.first(state)

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> PyTree:
        places = batch_shardings(self.mesh, batch)
        return {name: jax.make_array_from_process_local_data(places[name], x) for name, x in batch.items()}

    def put_key(self, key: Key) -> Key:
        # Through the host: an array on one device cannot be copied to devices of other processes.
        data = jax.device_put(np.array(jax.random.key_data(key)), self.replicated)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))

    def placed_shapes(self, state: PyTree, batch: PyTree, key: Key) -> tuple[PyTree, PyTree, Key]:
        places = self.state_shardings(state), batch_shardings(self.mesh, batch), self.replicated
        return _placed(state, places[0]), _placed(batch, places[1]), _placed(key, places[2])

    def first(self, tree: PyTree) -> PyTree:
        # Under several processes, this process's copy: only the compiled steps communicate with other processes.
        return jax.tree.map(lambda x: x if x.is_fully_addressable else x.addressable_data(0), tree)

    def state_shardings(self, state: PyTree) -> PyTree:
        """Returns the sharding of each array of a state, or of its shapes."""
        return state_shardings(self.mesh, state, self.smallest)

    @property
    def _splits_state(self) -> bool:
        return STATE_AXIS in self.mesh.shape and self.mesh.shape[STATE_AXIS] > 1

    def _program(self, program_for: Callable[[PyTree, PyTree], Any]) -> Any:
        """Returns the program for the shardings of a state and a batch, which on some meshes depend on their shapes."""
        if self.mesh.axis_names == (BATCH_AXIS,):
            return program_for(self.replicated, self.sharded)
        return ProgramByShapes(
            lambda state, batch: program_for(self.state_shardings(state), batch_shardings(self.mesh, batch))
        )


@dataclass(frozen=True)
class PmapStrategy:
    """Data parallelism by `pmap`: every array has a leading axis of local devices, and reductions are explicit.

    Attributes:
        devices: the devices of this process.
        axis_name: the axis that steps and norms reduce over.
    """

    devices: tuple[Device, ...]
    axis_name: str = "data"

    @property
    def mesh(self) -> Mesh:
        # The axis has the name that `pmap` gives the mesh of its results: with another, the second step compiles again.
        return Mesh(np.array(self.devices), (self.axis_name,))

    @property
    def lowers_shapes(self) -> bool:
        return jax.process_count() == 1

    def compile_train(
        self, step: Callable[..., Any], *, remat: bool = False, constants: tuple[PyTree, ...] = ()
    ) -> Callable[..., Any]:
        if remat and jax.default_backend() == "cpu":  # remat needs a compiler option there, and `pmap` takes none
            _logger.warning("remat saves no memory on a CPU under strategy=pmap; use strategy=jit.")
        program = jax.pmap(
            step,
            axis_name=self.axis_name,
            in_axes=(0, 0, None, *(0 for _ in constants)),
            donate_argnums=0,
            devices=self._global_devices(),
        )
        return _Bound(program, self.put_state(constants)) if constants else program

    def compile_eval(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.pmap(step, axis_name=self.axis_name, devices=self._global_devices())

    def put_state(self, state: PyTree) -> PyTree:
        n = len(self.devices)
        copies = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x)[None], (n, *np.shape(x))), state)
        return jax.device_put(copies, NamedSharding(self.mesh, PartitionSpec(self.axis_name)))

    def get_state(self, state: PyTree) -> PyTree:
        return self.first(state)

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> PyTree:
        n = len(self.devices)
        parts = {name: x.reshape(n, x.shape[0] // n, *x.shape[1:]) for name, x in batch.items()}
        return jax.device_put(parts, NamedSharding(self.mesh, PartitionSpec(self.axis_name)))

    def put_key(self, key: Key) -> Key:
        return jax.device_put(key, NamedSharding(self.mesh, PartitionSpec()))

    def placed_shapes(self, state: PyTree, batch: PyTree, key: Key) -> tuple[PyTree, PyTree, Key]:
        n, placed = len(self.devices), NamedSharding(self.mesh, PartitionSpec(self.axis_name))
        rows = jax.device_count()

        def stacked(x: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((n, *shape), x.dtype, sharding=placed)

        return (
            jax.tree.map(lambda x: stacked(x, *x.shape), state),
            jax.tree.map(lambda x: stacked(x, x.shape[0] // rows, *x.shape[1:]), batch),
            _placed(key, NamedSharding(self.mesh, PartitionSpec())),
        )

    def first(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.addressable_shards[0].data.reshape(x.shape[1:]), tree)

    def _global_devices(self) -> list[Device] | None:
        return list(self.devices) if jax.process_count() == 1 else None


@dataclass(frozen=True)
class _Bound:
    """A step, lowered or compiled or neither, with its last arguments, which are placed on the devices."""

    program: Any
    constants: tuple[PyTree, ...]

    def __call__(self, *arguments: Any) -> Any:
        return self.program(*arguments, *self.constants)

    def eval_shape(self, *arguments: Any) -> Any:
        return self.program.eval_shape(*arguments, *self.constants)

    def lower(self, *arguments: Any) -> "_Bound":
        return _Bound(self.program.lower(*arguments, *self.constants), self.constants)

    def compile(self) -> "_Bound":
        return _Bound(self.program.compile(), self.constants)

    def memory_analysis(self) -> Any:
        return self.program.memory_analysis()


def _placed(shapes: PyTree, shardings: PyTree) -> PyTree:
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings)


def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(np.array, tree)


def make_strategy(
    name: StrategyName,
    batch_sizes: Mapping[str, int],
    devices: Sequence[Device] | None = None,
    options: Mapping[str, Any] | None = None,
    axes: Axes = Axes(),  # noqa: B008
) -> Strategy:
    """Returns the strategy `name` over `devices`.

    Args:
        name: "jit" or "pmap".
        batch_sizes: {config key: global batch size} of all batches that the run uses, to check them at once.
        devices: the devices to use; None: all.
        options: changes to the compiler options, see `compiler.compiler_options`; only for "jit".
        axes: of the mesh; only for "jit".

    Raises:
        ArgumentError: for an unknown name.
        ConfigError: for an unknown option, axes that do not fit the devices, or a batch size that the number of devices
            which share the images does not divide.
    """
    check_value("strategy", name, StrategyName)
    devices = list(jax.devices() if devices is None else devices)
    if name == "pmap" and (axes.fsdp, axes.space) != (1, 1):
        raise ConfigError(
            f"mesh.fsdp={axes.fsdp} and mesh.space={axes.space} need strategy=jit; with strategy=pmap every device has "
            "the whole state and whole images."
        )
    mesh = make_mesh(axes, devices)
    n = batch_parts(mesh)
    whose = "the number of devices" if n == len(devices) else "mesh.data times mesh.fsdp"
    for key, size in batch_sizes.items():
        if size % n:
            near = sorted({max(n, size // n * n), (size // n + 1) * n})
            raise ConfigError(
                f"{key} is {size}, which is not divisible by {whose}, {n}; the nearest valid value is "
                f"{' or '.join(map(str, near))}."
            )
    if name == "jit":
        if options:
            compiler_options(options)  # raises ConfigError here for an invalid option
        return JitStrategy(mesh, changes=dict(options or {}))
    if options:
        raise ConfigError("compile.options needs strategy=jit; for strategy=pmap, set XLA_FLAGS instead.")
    return PmapStrategy(tuple(d for d in devices if d.process_index == jax.process_index()))

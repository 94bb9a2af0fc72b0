"""Devices in a mesh of three axes, and how states and batches are split over them.

    data   the images of a batch;
    fsdp   the images too, and the large arrays of the training state (fully sharded data parallelism; stage 3 of ZeRO,
           Rajbhandari et al. 2020, for what a device keeps between steps, stage 2 for the parameters inside a step);
    space  the rows of images and of all that a network computes of them.

XLA divides the program (GSPMD, Xu et al. 2021) by what the shardings here say, and exchanges the rows at the edges that
convolutions need. The network sees whole images, and its numbers are those of one device.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxseg.errors import ConfigError, counted
from jaxseg.nn.ops.by_device import BATCH_AXIS, SPACE_AXIS, STATE_AXIS
from jaxseg.types import PyTree

SMALLEST = 2**14
"""Arrays of a state with fewer values than this are copied to all devices of the axis `fsdp`.

These are the norms, the biases and the small kernels: most of the arrays of a network and few of its parameters (see
docs/scaling.md), for each of which an exchange would take its latency for a few kilobytes.
"""

_BATCH = (BATCH_AXIS, STATE_AXIS)
_IMAGES = ("image", "label")  # the arrays of a batch that have rows


class Axes(NamedTuple):
    """The number of devices along each axis of the mesh; -1 for `data`: all that the other axes leave."""

    data: int = -1
    fsdp: int = 1
    space: int = 1


def make_mesh(axes: Axes, devices: Sequence[Any]) -> Mesh:
    """Returns the mesh of the devices; the default `axes` give a mesh of the axis `data` alone.

    Raises:
        ConfigError: if the product of the axes is not the number of devices, or several processes share an image.
    """
    n, others = len(devices), axes.fsdp * axes.space
    data = n // others if axes.data == -1 else axes.data
    if data * others != n or not data:
        given = f"mesh.data={axes.data} mesh.fsdp={axes.fsdp} mesh.space={axes.space}"
        hint = (
            f"the product of mesh.fsdp and mesh.space must divide {n}"
            if axes.data == -1
            else f"their product must be {n}; mesh.data=-1 takes what the others leave"
        )
        raise ConfigError(f"{given} do not fit {counted(n, 'device')}: {hint}.")
    if others == 1:
        return jax.make_mesh((n,), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    names = (BATCH_AXIS, STATE_AXIS, SPACE_AXIS)
    mesh = jax.make_mesh((data, axes.fsdp, axes.space), names, axis_types=(AxisType.Auto,) * 3, devices=devices)
    for row in mesh.devices.reshape(-1, axes.space):
        if len({device.process_index for device in row}) > 1:
            raise ConfigError(
                f"mesh.space={axes.space} must divide the number of devices of each process, since a process reads "
                "whole images."
            )
    return mesh


def batch_parts(mesh: Mesh) -> int:
    """Returns the number of parts that the images of a batch are split into."""
    return math.prod(size for name, size in mesh.shape.items() if name in _BATCH)


def batch_spec(mesh: Mesh) -> PartitionSpec:
    """Returns how an array is split whose first axis counts the images of a batch, and that has no rows."""
    return PartitionSpec(_BATCH if STATE_AXIS in mesh.shape else BATCH_AXIS)


def batch_shardings(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """Returns the sharding of each array of a batch: split by images, and image and label also by rows.

    Devices that share an image have copies of one whose rows they cannot divide evenly.
    """
    space = mesh.shape[SPACE_AXIS] if SPACE_AXIS in mesh.shape else 1
    images, rows = batch_spec(mesh), PartitionSpec(*batch_spec(mesh), SPACE_AXIS)
    return {
        name: NamedSharding(mesh, rows if space > 1 and name in _IMAGES and x.shape[1] % space == 0 else images)
        for name, x in batch.items()
    }


def state_shardings(mesh: Mesh, state: PyTree, smallest: int = SMALLEST) -> PyTree:
    """Returns the sharding of each array of a state: its longest axis that `fsdp` divides, or whole on all devices.

    Args:
        mesh: the devices.
        state: arrays or their shapes.
        smallest: arrays with fewer values stay whole.
    """
    parts = mesh.shape[STATE_AXIS] if STATE_AXIS in mesh.shape else 1

    def of(array: Any) -> NamedSharding:
        shape = np.shape(array)
        even = [axis for axis, size in enumerate(shape) if size % parts == 0]
        if parts == 1 or math.prod(shape) < smallest or not even:
            return NamedSharding(mesh, PartitionSpec())
        axis = max(even, key=lambda axis: (shape[axis], axis))  # of equal ones the last: the channels of the output
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, STATE_AXIS))

    return jax.tree.map(of, state)


def to_host(state: PyTree) -> PyTree:
    """Returns a split state as NumPy arrays. Under several processes all must call it."""

    def one(array: jax.Array) -> np.ndarray:
        if not array.is_fully_addressable and not array.is_fully_replicated:
            # One array at a time, so that a device never holds the whole state.
            array = _gathered_on(array.sharding.mesh)(array)  # pyright: ignore[reportAttributeAccessIssue]
        return np.asarray(array if array.is_fully_addressable else array.addressable_data(0))

    return jax.tree.map(one, state)


@functools.cache
def _gathered_on(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Returns the program, compiled once for each shape and sharding, that copies an array to all devices of a mesh."""
    return jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _same(array: jax.Array) -> jax.Array:
    return array


@dataclass(frozen=True, eq=False)
class ProgramByShapes:
    """A step whose shardings depend on the shapes of its arguments: one compiled function for each set of these.

    Attributes:
        compiled_for: (state, batch) -> the compiled function.
    """

    compiled_for: Callable[[PyTree, Mapping[str, Any]], Any]
    _compiled: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __call__(self, state: PyTree, batch: Mapping[str, Any], *others: Any) -> Any:
        return self._of(state, batch)(state, batch, *others)

    def lower(self, state: PyTree, batch: Mapping[str, Any], *others: Any) -> Any:
        """Lowers the function for these arguments, as the method of `jax.jit` does."""
        return self._of(state, batch).lower(state, batch, *others)

    def eval_shape(self, state: PyTree, batch: Mapping[str, Any], *others: Any) -> Any:
        """Returns the shapes of the results, as the method of `jax.jit` does."""
        return self._of(state, batch).eval_shape(state, batch, *others)

    def _of(self, state: PyTree, batch: Mapping[str, Any]) -> Any:
        key = (jax.tree.structure(state), tuple((name, np.shape(x)) for name, x in sorted(batch.items())))
        if key not in self._compiled:
            self._compiled[key] = self.compiled_for(state, batch)
        return self._compiled[key]

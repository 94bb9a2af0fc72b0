"""Computes a function of a batch on each device for the images that the device holds.

Under one `jit` over a mesh, XLA decides how each operation is divided over the devices. A grouped convolution it does
not divide: every device gets the whole batch (https://github.com/openxla/xla/issues/47945). In a loop whose length
depends on the images, the devices wait for one another at each iteration. `by_device` leaves XLA no choice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

BATCH_AXIS = "data"
"""The axis of the mesh that the batch is split over."""


def by_device(function: Callable[..., Any], *arrays: jax.Array, axes: Sequence[int | None], out: int = 0) -> Any:
    """Returns `function(*arrays)`, of which each device computes the part of its own images.

    The result and its gradients are those of the whole batch. It is a plain call of `function` where the program being
    traced has no mesh with the axis `BATCH_AXIS` (`compiler.jit` sets it for several devices), under `pmap`, and where
    the number of devices does not divide the number of images.

    Args:
        function: treats each image by itself.
        arrays: its arguments.
        axes: for each array the axis that counts the images; None for an array that all images share.
        out: the axis that counts the images in each array of the result.
    """
    devices = _devices()
    images = [array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None]
    if devices == 1 or any(count % devices for count in images):
        return function(*arrays)
    specs = tuple(PartitionSpec() if axis is None else _split(axis) for axis in axes)
    # JAX's check of which values differ between devices refuses the constants that `function` starts its loops from.
    return jax.shard_map(function, in_specs=specs, out_specs=_split(out), check_vma=False)(*arrays)


def _devices() -> int:
    """Returns the number of devices that XLA divides the program over that is being traced; 1 under `pmap`."""
    mesh = get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[BATCH_AXIS] if BATCH_AXIS in types and types[BATCH_AXIS] == AxisType.Auto else 1


def _split(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, BATCH_AXIS)

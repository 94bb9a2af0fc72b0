"""Computes a function of a batch on each device for the images that the device holds.

Under one `jit` over a mesh, XLA decides how each operation is divided over the devices. A grouped convolution it does
not divide: every device gets the whole batch (https://github.com/openxla/xla/issues/47945). In a loop whose length
depends on the images, the devices wait for one another at each iteration. `by_device` leaves XLA no choice.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

BATCH_AXIS = "data"
"""The axis of the mesh that the batch is split over."""

STATE_AXIS = "fsdp"
"""The axis of the mesh that the training state is split over, and the batch too."""

SPACE_AXIS = "space"
"""The axis of the mesh that the height of images is split over."""


def by_device(
    function: Callable[..., Any], *arrays: jax.Array, axes: Sequence[int | None], out: int = 0, rows: bool = False
) -> Any:
    """Returns `function(*arrays)`, of which each device computes the part of its own images.

    The result and its gradients are those of the whole batch. It is a plain call of `function` where the program being
    traced has no mesh with the axis `BATCH_AXIS` (`compiler.jit` sets it for several devices), under `pmap`, and where
    the number of devices does not divide the number of images. Devices that share an image (`SPACE_AXIS`) gather it,
    and all compute the same, unless `rows` is set.

    Args:
        function: treats each image by itself.
        arrays: its arguments.
        axes: for each array the axis that counts the images; None for an array that all images share.
        out: the axis that counts the images in each array of the result.
        rows: whether XLA may divide the images themselves, by their rows, inside `function`.
    """
    sizes = mesh_axes()
    split = tuple(name for name in (BATCH_AXIS, STATE_AXIS) if name in sizes)
    devices = math.prod(sizes[name] for name in split)
    images = [array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None]
    alone = devices == 1 and (rows or math.prod(sizes.values()) == 1)
    if alone or any(count % devices for count in images):
        return function(*arrays)
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, split) for axis in axes)
    # JAX's check of which values differ between devices refuses the constants that `function` starts its loops from.
    return jax.shard_map(
        function,
        in_specs=specs,
        out_specs=PartitionSpec(*[None] * out, split),
        axis_names=set(split if rows else sizes),
        check_vma=False,
    )(*arrays)


def mesh_axes() -> dict[str, int]:
    """Returns {axis: size} of the mesh that XLA divides the program over that is being traced; {} under `pmap`."""
    mesh = get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if BATCH_AXIS not in types or types[BATCH_AXIS] != AxisType.Auto:
        return {}
    return {name: size for name, size in mesh.shape.items() if types[name] == AxisType.Auto}


def splits_rows() -> bool:
    """Returns whether the program that is being traced divides the rows of images over devices."""
    sizes = mesh_axes()
    return SPACE_AXIS in sizes and sizes[SPACE_AXIS] > 1


def spread(images: jax.Array) -> jax.Array:
    """[b,h,w,...] -> the same, of which each device holds some images, and of these some rows.

    It says so where XLA may have chosen otherwise, as after an augmentation, which reads an image at any place. Where
    the number of devices does not divide the rows, the last have fewer. It is the identity without a mesh that has the
    axis `SPACE_AXIS`.
    """
    sizes = mesh_axes()
    if SPACE_AXIS not in sizes:
        return images
    return jax.lax.with_sharding_constraint(images, PartitionSpec(_split_of(images), SPACE_AXIS))


def even_rows(images: jax.Array, reach: int) -> jax.Array:
    """[b,h,w,...] -> the same, all rows on each device where the devices of `SPACE_AXIS` cannot share them evenly.

    Of a convolution whose rows these devices do not divide, or whose kernel is larger than the image, XLA computes a
    wrong gradient of the kernel, and some values (jaxlib 0.10 to 0.12): 6 rows over 4 devices, say, or 2 under a kernel
    of 3. It is the identity elsewhere, and for sizes that are not known.

    Args:
        images: what a convolution reads, or what it gives.
        reach: rows that its kernel spans.
    """
    sizes, rows = mesh_axes(), images.shape[1]
    if SPACE_AXIS not in sizes or sizes[SPACE_AXIS] == 1 or not isinstance(rows, int):
        return images
    if rows % sizes[SPACE_AXIS] == 0 and rows >= reach:
        return images
    return jax.lax.with_sharding_constraint(images, PartitionSpec(_split_of(images)))


def _split_of(images: jax.Array) -> Any:
    """Returns the axes of the mesh that split the images evenly, or what leaves their split to XLA."""
    sizes = mesh_axes()
    split = tuple(name for name in (BATCH_AXIS, STATE_AXIS) if name in sizes)
    even = images.shape[0] % math.prod(sizes[name] for name in split) == 0
    return split if even else PartitionSpec.UNCONSTRAINED


def whole(tree: Any) -> Any:
    """Pytree of arrays -> the same, of which each device holds all.

    Parameters that are split over `STATE_AXIS` are gathered by it before a network reads them. XLA might otherwise
    split a convolution by its channels, and exchange features, which are larger. It is the identity without this axis.
    """
    sizes = mesh_axes()
    if STATE_AXIS not in sizes or sizes[STATE_AXIS] == 1:
        return tree
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, PartitionSpec()), tree)

"""Where the images and the variables of a prediction lie: on one device, or over a mesh by images or by rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.compiler import jit
from jaxseg.data.transforms import Size
from jaxseg.errors import ConfigError, counted
from jaxseg.mesh import Axes, batch_parts, batch_spec, make_mesh
from jaxseg.nn.ops.by_device import SPACE_AXIS, spread
from jaxseg.types import PyTree


def predictor_mesh(tiled: bool, space: int) -> Mesh | None:
    """Returns the devices of a prediction: None is the first alone.

    Args:
        tiled: whether images may be cut into tiles, which several devices share.
        space: the devices that share the rows of a whole image.

    Raises:
        ConfigError: if there are fewer devices than `space`, or tiles are to be shared by rows.
    """
    devices = jax.local_devices()
    if space > len(devices):
        raise ConfigError(f"space={space} needs as many devices, and there are {len(devices)}.")
    if space > 1 and tiled:
        raise ConfigError(f"space={space} splits whole images over {counted(space, 'device')}; give it without tiles.")
    if space > 1:
        return make_mesh(Axes(1, 1, space), devices[:space])
    return make_mesh(Axes(), devices) if tiled and len(devices) > 1 else None


def batch_devices(mesh: Mesh | None) -> int:
    """Returns the number of devices that the images of a batch are split over."""
    return 1 if mesh is None else batch_parts(mesh)


def row_devices(mesh: Mesh | None) -> int:
    """Returns the number of devices that the rows of an image are split over."""
    return 1 if mesh is None or SPACE_AXIS not in mesh.shape else mesh.shape[SPACE_AXIS]


def shares(mesh: Mesh | None, count: int) -> int:
    """Returns into how many parts the devices divide the bytes of `count` images; 1 on CPUs, which share the memory."""
    if mesh is None or jax.default_backend() == "cpu":
        return 1
    return row_devices(mesh) * (batch_parts(mesh) if count % batch_parts(mesh) == 0 else 1)


def even_rows(mesh: Mesh | None, size: Size) -> Size:
    """(h, w) -> the same with rows below that make equal parts for the devices."""
    parts = row_devices(mesh)
    return -(-size[0] // parts) * parts, size[1]


def place_variables(mesh: Mesh | None, variables: PyTree) -> PyTree:
    """Copies variables to the devices."""
    return jax.device_put(variables, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def place_images(mesh: Mesh | None, images: np.ndarray) -> Any:
    """Splits [b,y,x,c] over the devices; rows of zeros below make equal parts of them."""
    if mesh is None:
        return images
    more = even_rows(mesh, images.shape[1:3])[0] - images.shape[1]
    return jax.device_put(np.pad(images, ((0, 0), (0, more), (0, 0), (0, 0))), _sharding(mesh, len(images)))


def compiled_network(
    network: Callable[[PyTree, Any], jax.Array], options: Mapping[str, Any], mesh: Mesh | None, shape: Sequence[int]
) -> Any:
    """Returns the function to compile of a network: (variables, images [b,y,x,c]) -> logits.

    Where rows are split, images and logits have the rows of `even_rows`; the network sees those of the image alone, so
    that its logits are those of one device.
    """
    if mesh is None:
        return jit(network, options)
    sharding, rows = _sharding(mesh, shape[0]), shape[1]

    def of_rows(variables: PyTree, images: jax.Array) -> jax.Array:
        logits = network(variables, spread(images[:, :rows]))
        return jnp.pad(logits, ((0, 0), (0, images.shape[1] - rows), (0, 0), (0, 0)))

    whole = NamedSharding(mesh, PartitionSpec())
    function = network if row_devices(mesh) == 1 else of_rows
    return jit(function, options, mesh, in_shardings=(whole, sharding), out_shardings=sharding)


def placement_name(mesh: Mesh | None, shape: Sequence[int]) -> Any:
    """Returns what the functions of `compiled_network` for images of two shapes have in common, if they are one."""
    rows = shape[1] if row_devices(mesh) > 1 else None
    return None if mesh is None else (str(_sharding(mesh, shape[0]).spec), rows)


def _sharding(mesh: Mesh, count: int) -> NamedSharding:
    """How `count` images lie on the devices: split where their number allows it, else copied to each; and by rows."""
    images = batch_spec(mesh) if count % batch_parts(mesh) == 0 else PartitionSpec(None)
    return NamedSharding(mesh, PartitionSpec(*images, SPACE_AXIS) if row_devices(mesh) > 1 else images)

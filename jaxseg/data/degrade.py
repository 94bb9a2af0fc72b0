"""Images of less quality on the device: blurred, noisy, of low resolution, compressed, with a part that is missing.

Each function takes one image f32[h,w,c] in [0, 1] and changes it without moving it, so that its label stays as it is.
At the value that is named in its docstring a function returns the image bit for bit, so that one compiled program has
images with the change and without it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.colors import adjust_gamma, adjust_hue
from jaxseg.types import Array, Key

# The tables of the JPEG standard (ITU-T T.81, Annex K.1), for luminance and chrominance.
_LUMINANCE = """
16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
"""
# Rows of Y, Cb, Cr of JFIF (ITU-R BT.601, full range), without the 128 that is added to the two differences.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_FROM_YCC = np.linalg.inv(_TO_YCC)
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.33), (0.3, 1 / 0.3)  # Zhong et al. 2020, section 4.2; sides as 1 to 3.3

_SHARE = 0.5  # of the images that a blur, a low resolution, noise or JPEG changes


def make_degrade(
    *,
    gamma: tuple[float, ...] = (1.0, 1.0),
    hue: float = 0.0,
    blurred: float = 0.0,
    resolution: float = 1.0,
    noise: float = 0.0,
    jpeg: int = 0,
    erased: float = 0.0,
) -> Callable[[Key, Array], jax.Array]:
    """Returns degrade(key, image f32[h,w,c] in [0, 1]) -> image f32[h,w,c], of one example.

    The changes follow in the order of the arguments, which `make_augment` explains. One that is off costs nothing and
    leaves the random numbers of the others as they are.
    """

    def degrade(key: Key, image: Array) -> jax.Array:
        image, draw, streams = jnp.asarray(image), jax.random.uniform(key, (11,)), jax.random.split(key, 2)

        def chosen(number: int, value: jax.Array | float, off: float) -> jax.Array:
            return jnp.where(draw[number] < _SHARE, value, off)

        if gamma != (1.0, 1.0):
            low, high = gamma
            image = adjust_gamma(image, low * (high / low) ** draw[0])
        if hue > 0 and image.shape[2] in (1, 3, 4):  # others have no colours
            image = adjust_hue(image, (2.0 * draw[1] - 1.0) * hue)
        if blurred > 0:
            image = blur(image, chosen(2, blurred * draw[3], 0.0), blurred)
        if resolution < 1:
            image = lower_resolution(image, chosen(4, resolution + (1.0 - resolution) * draw[5], 1.0))
        if noise > 0:
            image = add_noise(streams[0], image, chosen(6, noise * draw[7], 0.0))
        if jpeg > 0:
            image = jnp.where(draw[8] < _SHARE, compress(image, jpeg + (100.0 - jpeg) * draw[9]), image)
        return erase(streams[1], image, draw[10] < erased) if erased > 0 else image

    return degrade


def blur(image: Array, sigma: Array | float, limit: float) -> jax.Array:
    """Returns image f32[h,w,c] under a Gaussian of the standard deviation `sigma`, at most `limit`, in pixels.

    The kernel is cut at three times `limit`. Beyond the border the nearest pixel repeats. A `sigma` of 0 changes
    nothing.
    """
    reach = math.ceil(3 * limit)
    offsets = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, 1e-6)))
    weights = weights / jnp.sum(weights)
    for axis in (0, 1):
        around = jnp.pad(image, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        size = image.shape[axis]
        shifted = (jax.lax.slice_in_dim(around, i, i + size, axis=axis) for i in range(2 * reach + 1))
        image = sum((weights[i] * each for i, each in enumerate(shifted)), jnp.zeros_like(image))
    return image


def lower_resolution(image: Array, scale: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] as it looks after it was shrunk by `scale` in (0, 1] and enlarged to its size again.

    It is shrunk to its nearest pixels and enlarged linearly, so that details are lost and steps appear (nnU-Net,
    Isensee et al. 2021, has the same with a cubic enlargement). A scale of 1 changes nothing.
    """
    for axis in (0, 1):
        size = image.shape[axis]
        place = jnp.arange(size) * scale
        before = jnp.floor(place)
        taken = [jnp.minimum(jnp.floor((before + i) / scale + 0.5), size - 1).astype(jnp.int32) for i in (0, 1)]
        weight = jnp.expand_dims(place - before, 1 - axis)[:, :, None]
        lower, upper = (jnp.take(jnp.asarray(image), index, axis=axis) for index in taken)
        image = (1 - weight) * lower + weight * upper
    return jnp.asarray(image)


def add_noise(key: Key, image: Array, deviation: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] with Gaussian noise of the standard deviation `deviation`, within [0, 1].

    Each channel of each pixel has its own. A deviation of 0 changes nothing.
    """
    return jnp.clip(image + deviation * jax.random.normal(key, image.shape), 0.0, 1.0)


def compress(image: Array, quality: Array | float) -> jax.Array:
    """Returns image f32[h,w,c] as JPEG of the `quality` 1 to 100 keeps it, in the colours' full resolution.

    The cosine transforms of 8x8 pixels are rounded to multiples of the standard's tables (ITU-T T.81, Annex K.1),
    scaled as libjpeg scales them. Colours are compressed as brightness and two differences; other numbers of channels,
    and a fourth one (alpha), each as brightness.
    """
    height, width, channels = image.shape
    colored = channels in (3, 4)
    planes = jnp.round(jnp.asarray(image) * 255.0)
    if colored:
        mixed = _mixed(planes, _TO_YCC)
        planes = jnp.concatenate([mixed, planes[:, :, 3:]], axis=2)
    middle = np.array([128.0] + ([0.0, 0.0] if colored else []) + [128.0] * (channels - 1))[:channels].reshape(1, 1, -1)
    scale = jnp.where(quality < 50, 5000.0 / quality, 200.0 - 2.0 * quality)
    tables = [_table(_CHROMINANCE) if colored and i in (1, 2) else _table(_LUMINANCE) for i in range(channels)]
    steps = jnp.clip(jnp.floor((np.stack(tables)[None, None] * scale + 50.0) / 100.0), 1.0, 255.0)
    padded = jnp.pad(jnp.round(planes) - middle, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8, channels)
    cosines = jnp.asarray(_cosines(), jnp.float32)
    kept = jnp.round(jnp.einsum("ui,vj,yixjc->yxcuv", cosines, cosines, blocks, precision="highest") / steps) * steps
    blocks = jnp.einsum("ui,vj,yxcuv->yixjc", cosines, cosines, kept, precision="highest")
    planes = jnp.round(blocks.reshape(padded.shape)[:height, :width]) + middle
    if colored:
        mixed = _mixed(planes, _FROM_YCC)
        planes = jnp.concatenate([mixed, planes[:, :, 3:]], axis=2)
    return jnp.clip(jnp.round(planes), 0.0, 255.0) / 255.0


def erase(key: Key, image: Array, erased: Array | bool) -> jax.Array:
    """Returns image f32[h,w,c] with a rectangle of random colours if `erased`: an object that something hides.

    It covers 2 to 33 % of the image, with sides of 1 to 3.3 at most (Zhong et al. 2020, "Random erasing data
    augmentation"); a side that would be longer than the image is cut.
    """
    place, values = jax.random.split(key)
    draw = jax.random.uniform(place, (4,))
    low, high = _ERASED_AREA
    narrow, wide = (math.log(aspect) for aspect in _ERASED_ASPECT)
    area = (low + (high - low) * draw[0]) * image.shape[0] * image.shape[1]
    aspect = jnp.exp(narrow + (wide - narrow) * draw[1])
    inside = jnp.asarray(erased) & rectangle(
        draw[2:], image.shape[:2], (jnp.sqrt(area * aspect), jnp.sqrt(area / aspect))
    )
    return jnp.where(inside[:, :, None], jax.random.uniform(values, image.shape), jnp.asarray(image))


def rectangle(place: Array, size: tuple[int, ...], sides: tuple[Array | float, Array | float]) -> jax.Array:
    """Returns bool[h,w], whether each pixel of an image of `size` (h, w) is inside a rectangle that lies in it whole.

    Args:
        place: f32[2] in [0, 1), where its first row and column are among those that are possible.
        size: (h, w) of the image.
        sides: height and width in pixels, which are rounded, and cut to those of the image.
    """
    inside = jnp.asarray(True)
    for axis, side in enumerate(sides):
        side = jnp.clip(jnp.round(side), 1, size[axis])
        first = jnp.floor(place[axis] * (size[axis] - side + 1))
        at = jnp.arange(size[axis])
        inside = inside & jnp.expand_dims((at >= first) & (at < first + side), 1 - axis)
    return inside


def _mixed(planes: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Returns f32[h,w,3], the first three planes times a matrix [3,3], in full float32 on every device."""
    return jnp.einsum("yxc,dc->yxd", planes[:, :, :3], jnp.asarray(matrix, jnp.float32), precision="highest")


def _table(text: str) -> np.ndarray:
    """Returns f64[8,8] of a table of the standard; rows that it leaves out are 99."""
    numbers = [float(word) for word in text.split()]
    return np.array(numbers + [99.0] * (64 - len(numbers))).reshape(8, 8)


def _cosines() -> np.ndarray:
    """Returns f64[8,8], the orthonormal cosine transform of 8 values (DCT-II)."""
    place = np.arange(8)
    matrix = np.cos(np.pi * (2 * place[None] + 1) * place[:, None] / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix

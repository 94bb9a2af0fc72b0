"""Corrupted images, to score a network on: twelve corruptions, each at five strengths, on the device and key first.

They are those of ImageNet-C (Hendrycks and Dietterich 2019, section 3.1 and the authors' parameters), beside an
occlusion. The image stays where it is, and so does its label. docs/corruptions.md has the formulas. The parameters that
are lengths in images of 224x224 pixels, blurs alone, are here shares of the shorter side.
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxseg.data.base import DataInfo, Example, Source
from jaxseg.data.colors import add_value, adjust_contrast_of_channels, scale_saturation
from jaxseg.data.degrade import add_noise, compress, rectangle
from jaxseg.data.reading import STOP, Reading
from jaxseg.errors import ArgumentError, DataError, counted, nearest
from jaxseg.types import Array, Key

Corruption: TypeAlias = Callable[[Key, jax.Array, Array], jax.Array]

STRENGTHS = (1, 2, 3, 4, 5)
"""What a corruption's strength may be; 0 is the image itself."""
_SIDE = 224.0  # pixels a side of the images that the lengths are of
_PARTS = 8  # of a pixel's side, of which kernels are made
_GREY = 128 / 255  # what covers a part of the image

# The parameters of each strength, 1 to 5; those of occlusion are ours.
_GAUSSIAN_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation
_SHOT_NOISE = (60.0, 25.0, 12.0, 5.0, 3.0)  # photons of white
_IMPULSE_NOISE = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of the values
_DEFOCUS = (3.0, 4.0, 6.0, 8.0, 10.0)  # radius of a disc, pixels of 224
_MOTION = ((10.0, 15.0, 15.0, 15.0, 20.0), (3.0, 5.0, 8.0, 12.0, 15.0))  # half the length, deviation; pixels of 224
_TURN = 45.0  # degrees of a motion, at most
_GAUSSIAN_BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)  # standard deviation, pixels of 224
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_SATURATE = ((0.3, 0.1, 2.0, 5.0, 20.0), (0.0, 0.0, 0.0, 0.1, 0.2))  # factor, amount
_JPEG = (25.0, 18.0, 15.0, 10.0, 7.0)  # quality
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # scale
_OCCLUSION = (0.05, 0.1, 0.2, 0.3, 0.4)  # share of the image


def gaussian_noise(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] with normal noise in each channel of each pixel."""
    return add_noise(key, image, _at(_GAUSSIAN_NOISE, strength))


def shot_noise(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] as counted photons show it: Poisson(n x) / n, where white has n on average."""
    photons = _at(_SHOT_NOISE, strength)
    return jax.random.poisson(key, jnp.asarray(image) * photons) / photons


def impulse_noise(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] of which a share of the values, channel by channel, is 0 or 1 with the same chance."""
    draw = jax.random.uniform(key, (2, *image.shape))
    return jnp.where(draw[0] < _at(_IMPULSE_NOISE, strength), jnp.round(draw[1]), jnp.asarray(image))


def defocus_blur(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] averaged over a disc, each part of which is shared among the four nearest pixels."""
    radius = _at(_DEFOCUS, strength) * _scale(image)
    reach = math.ceil(max(_DEFOCUS) * _scale(image) + 0.5)
    parts = (jnp.arange(-_PARTS * reach, _PARTS * reach) + 0.5) / _PARTS
    disc = jnp.clip(_PARTS * (radius - jnp.hypot(parts[:, None], parts[None])) + 0.5, 0.0, 1.0)
    share = jnp.maximum(1.0 - jnp.abs(jnp.arange(-reach, reach + 1)[:, None] - parts[None]), 0.0)
    weights = jnp.einsum("yi,ij,xj->yx", share, disc, share, precision="highest")
    return _filtered(image, weights / jnp.sum(weights))


def motion_blur(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] averaged along a line of a direction within 45 degrees of a row.

    The weights are half of a Gaussian, as of a motion that fades. Their mean is at the pixel itself, so that the image
    stays where its label is. The line is one of short steps, each of which is shared among the four nearest pixels.
    """
    scale = _scale(image)
    half, deviation = (_at(values, strength) * scale for values in _MOTION)
    reach = math.ceil(2 * max(_MOTION[0]) * scale)
    taps = (jnp.arange(_PARTS * reach) + 0.5) / _PARTS
    weights = jnp.clip(_PARTS * (2 * half - taps) + 0.5, 0.0, 1.0) * jnp.exp(-0.5 * jnp.square(taps / deviation))
    weights = weights / jnp.sum(weights)
    along = taps - jnp.sum(weights * taps)
    angle = jnp.deg2rad(_TURN) * (2.0 * jax.random.uniform(key) - 1.0)
    offsets = jnp.arange(-reach - 1, reach + 2)
    rows, columns = (
        jnp.maximum(1.0 - jnp.abs(offsets[None] - (along * turn)[:, None]), 0.0)
        for turn in (jnp.sin(angle), jnp.cos(angle))
    )
    return _filtered(image, jnp.einsum("i,iy,ix->yx", weights, rows, columns, precision="highest"))


def gaussian_blur(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] under the discrete Gaussian (Lindeberg 1990), which has its variance at every width.

    A Gaussian that is sampled at the pixels vanishes where its standard deviation is far below one.
    """
    deviation = _at(_GAUSSIAN_BLUR, strength) * _scale(image)
    size = 2 * math.ceil(4 * max(_GAUSSIAN_BLUR) * _scale(image) + 1) + 1
    turns = 2 * math.pi / size * jnp.arange(size // 2 + 1)
    weights = jnp.fft.fftshift(jnp.fft.irfft(jnp.exp(jnp.square(deviation) * (jnp.cos(turns) - 1.0)), size))
    return _filtered(image, weights[:, None] * weights[None])


def brightness(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] with a number added to the value of HSV; c is 1, 3 or 4."""
    return add_value(image, _at(_BRIGHTNESS, strength))


def contrast(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] with each colour closer to its mean over the image; the fourth of 4 channels stays."""
    return adjust_contrast_of_channels(image, _at(_CONTRAST, strength))


def saturate(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] with another saturation of HSV: less at strengths 1 and 2, more above; c is 3 or 4."""
    factor, amount = (_at(values, strength) for values in _SATURATE)
    return scale_saturation(image, factor, amount)


def jpeg(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] as JPEG of a low quality keeps it, see `degrade.compress`."""
    return compress(image, _at(_JPEG, strength))


def pixelate(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] shrunk to a share of its sides by means, and enlarged to blocks of one colour."""
    scale = _at(_PIXELATE, strength)
    result = jnp.asarray(image)
    for axis, formula in ((0, "ij,jxc->ixc"), (1, "ij,yjc->yic")):
        size = image.shape[axis]
        block = jnp.floor((jnp.arange(size) + 0.5) * (jnp.maximum(jnp.floor(size * scale), 1.0) / size))
        same = (block[:, None] == block[None]).astype(jnp.float32)
        result = jnp.einsum(formula, same / jnp.sum(same, axis=1, keepdims=True), result, precision="highest")
    return result


def occlusion(key: Key, image: Array, strength: Array) -> jax.Array:
    """Returns image f32[h,w,c] with a grey rectangle, of the image's proportions, over a share of it."""
    side = jnp.sqrt(_at(_OCCLUSION, strength))
    sides = (side * image.shape[0], side * image.shape[1])
    inside = rectangle(jax.random.uniform(key, (2,)), image.shape[:2], sides)
    return jnp.where(inside[:, :, None], _GREY, jnp.asarray(image))


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "gaussian_blur": gaussian_blur,
    "brightness": brightness,
    "contrast": contrast,
    "saturate": saturate,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "occlusion": occlusion,
}
"""{name: (key, image f32[h,w,c] in [0, 1], strength i32 in 1 to 5) -> image f32[h,w,c]}, before `corrupt` rounds it."""

_COLORED = {"brightness": (1, 3, 4), "saturate": (3, 4)}  # the channels of images that have what these change


def corrupt(key: Key, image: Array, name: str, strength: Array | int) -> jax.Array:
    """Returns image f32[h,w,c] in [0, 1] under the corruption `name`, in steps of 1/255 as a file keeps it.

    Args:
        key: the randomness of this image; of one key the noise of all strengths is that of the same draws.
        image: f32[h,w,c], an image of 8 bits over 255.
        name: one of `CORRUPTIONS`.
        strength: i32 in 1 to 5; 0 returns the image as it is. It may be traced.

    Raises:
        ArgumentError: for an unknown name, another strength, or a number of channels that has no such corruption.
    """
    require_corruptions([name], image.shape[2])
    if not isinstance(strength, Tracer):
        _require_strength(strength)
    image, strength = jnp.asarray(image), jnp.asarray(strength, jnp.int32)
    changed = jnp.round(jnp.clip(CORRUPTIONS[name](key, image, strength), 0.0, 1.0) * 255.0) / 255.0
    return jnp.where(strength > 0, changed, image)


def possible_corruptions(channels: int) -> tuple[str, ...]:
    """Returns the names of the corruptions that images of so many channels have."""
    return tuple(name for name in CORRUPTIONS if name not in _COLORED or channels in _COLORED[name])


def require_corruptions(names: Sequence[str], channels: int) -> None:
    """Raises ArgumentError for a name that is no corruption, or that images of so many channels do not have."""
    for name in names:
        if name not in CORRUPTIONS:
            close = nearest(name, CORRUPTIONS, listing=False)
            raise ArgumentError(f"There is no corruption {name!r}.{close} There are {', '.join(CORRUPTIONS)}.")
        if name not in possible_corruptions(channels):
            fitting = " or ".join(map(str, _COLORED[name]))
            raise ArgumentError(
                f"The corruption {name} changes colours, of images with {fitting} channels, and these have "
                f"{counted(channels, 'channel')}; leave it out."
            )


@dataclass(frozen=True)
class Corrupted:
    """A split whose images are corrupted as they are read, and whose labels stay; a `Source`.

    The randomness of an image follows from the seed, the corruption and the content of the image: it is the same in
    every split, order and batch, and at every strength.

    Attributes:
        source: the split, of images of 8 bits.
        corruption: one of `CORRUPTIONS`.
        strength: 1 to 5; 0: the images as they are.
        seed: another one gives other noise, modulo 2**32.
        reading: the limit of time for reading an image, which its corruption does not count to.
    """

    source: Source
    corruption: str
    strength: int
    seed: int = 0
    reading: Reading = STOP

    def __post_init__(self):
        _require_strength(self.strength)

    @property
    def info(self) -> DataInfo:
        return self.source.info

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.reading.example(self.source, index)
        image = np.asarray(example["image"])
        require_stored(image, self.source.name(index))
        return {**example, "image": corrupt_stored(image, self.corruption, self.strength, self.seed)}

    def name(self, index: int) -> str:
        return self.source.name(index)

    def label_size(self, index: int) -> tuple[int, int]:
        return self.source.label_size(index)


def require_stored(image: np.ndarray, name: str) -> None:
    """Raises DataError if an image has not 8 bits."""
    if image.dtype != np.uint8:
        raise DataError(f"Corruptions are defined for images of 8 bits, and {name} is read as {image.dtype}.")


def corrupt_stored(image: np.ndarray, name: str, strength: int, seed: int = 0) -> np.ndarray:
    """Returns a stored image u8[h,w,c] under a corruption, on the device; see `corrupt` and `Corrupted`.

    All strengths share one program for each size of image, which stays until `forget_programs`.
    """
    _require_strength(strength)
    content = np.uint32(zlib.crc32(image.tobytes()))
    return np.asarray(_program(name)(np.uint32(seed % 2**32), content, image, np.int32(strength)))


def forget_programs(name: str) -> None:
    """Drops the compiled programs of a corruption, of which there is one for each size of image that it has seen."""
    _program(name).clear_cache()


@functools.cache
def _program(name: str) -> Any:
    """Returns the compiled (seed u32, content u32, image u8[h,w,c], strength i32) -> image u8[h,w,c]."""
    number = zlib.crc32(name.encode())

    @jax.jit
    def program(seed: jax.Array, content: jax.Array, image: jax.Array, strength: jax.Array) -> jax.Array:
        key = jax.random.key(0, impl="threefry2x32")  # the one of which Poisson's numbers are drawn
        for data in (seed, number, content):
            key = jax.random.fold_in(key, data)
        changed = corrupt(key, image.astype(jnp.float32) / 255.0, name, strength)
        return jnp.round(changed * 255.0).astype(jnp.uint8)

    return program


def _require_strength(strength: Array | int) -> None:
    if not np.isin(strength, (0, *STRENGTHS)).all():
        raise ArgumentError(f"The strength of a corruption is 1, 2, 3, 4 or 5, or 0 for none, got {strength}.")


def _at(values: tuple[float, ...], strength: Array) -> jax.Array:
    """Returns the parameter f32[] of a strength, which may be traced; that of 1 for a strength of 0."""
    return jnp.asarray(values, jnp.float32)[jnp.clip(jnp.asarray(strength) - 1, 0, len(values) - 1)]


def _scale(image: Array) -> float:
    """Returns how many pixels of an image are as long as one of an image of 224x224."""
    return min(image.shape[0], image.shape[1]) / _SIDE


def _filtered(image: Array, kernel: jax.Array) -> jax.Array:
    """Returns image f32[h,w,c] under a kernel f32[2r+1,2r+1] of the sum 1, by FFT. Beyond the border the nearest pixel
    repeats."""
    reach = kernel.shape[0] // 2
    around = jnp.pad(jnp.asarray(image), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    size = around.shape[:2]
    spectrum = jnp.fft.rfft2(around, axes=(0, 1)) * jnp.fft.rfft2(kernel, size)[:, :, None]
    return jnp.fft.irfft2(spectrum, size, axes=(0, 1))[2 * reach :, 2 * reach :]

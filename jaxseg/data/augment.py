"""Augmentation on the device, inside the compiled step: pure functions, key first, one example at a time.

Every `random_*` takes (key, image f32[h,w,c] in [0, 1], label i[h,w], ...) and returns (image, label); use `jax.vmap`
for a batch. Geometric steps move image and label in the same way (see `jaxseg.data.geometry`); colour steps do not
change the label. `make_augment` multiplies the matrices of all geometric steps, so each pixel is interpolated once,
however many steps are on.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.arguments import (
    MIXING,
    MIXING_OPTIONS,
    AtLeastOne,
    BelowHalf,
    NotNegative,
    Operations,
    PositiveShare,
    Quality,
    Share,
    SizeOrNone,
    UpTo32,
    UpToHalf,
    UpToTen,
    Zoom,
    checked,
)
from jaxseg.data.colors import adjust_brightness, adjust_contrast, adjust_saturation
from jaxseg.data.crops import balanced_origins
from jaxseg.data.degrade import make_degrade
from jaxseg.data.geometry import (
    check_pair,
    elastic_shift,
    flip_matrix,
    rotation_matrix,
    shear_matrix,
    tilt_matrix,
    warp,
    warp_image,
    warp_label,
    zoom_matrix,
)
from jaxseg.data.rand_augment import rand_colors, rand_matrix
from jaxseg.errors import ArgumentError, ConfigError, counted
from jaxseg.types import IGNORE, Array, Key

Pair: TypeAlias = tuple[jax.Array, jax.Array]

# Streams of the key, so that these steps change no draw of another; 2 and 3 are those of `jaxseg.consistency`, 7 to 12
# those of `jaxseg.mixing`.
_BALANCED, _DEGRADE, _ELASTIC, _TILT, _RAND = 1, 4, 5, 6, 13
_TRIES = 10  # candidate windows for a crop with `max_share` below 1


def to_float(image: Array) -> jax.Array:
    """Returns f32 in [0, 1] of an image u8, u16 or (unchanged) f32 of any shape.

    Raises:
        ValueError: for any other dtype.
    """
    tops = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
    name = jnp.dtype(image.dtype).name
    if name not in tops:
        raise ValueError(f"An image is uint8, uint16 or float32 in [0, 1], got {name}.")
    return jnp.asarray(image) if name == "float32" else jnp.asarray(image).astype(jnp.float32) / tops[name]


def normalize(image: Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Returns (image - mean) / std of f32[...,c]; mean and std have 1 or c numbers.

    Raises:
        ValueError: if they have any other count.
    """
    counts = {"mean": len(mean), "std": len(std)}
    wrong = [f"{name} has {count} numbers" for name, count in counts.items() if count not in (1, image.shape[-1])]
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)}; {counted(image.shape[-1], 'channel')}: give 1 number, or one for each channel."
        )
    spread = (1,) * (image.ndim - 1) + (-1,)
    return (jnp.asarray(image) - np.asarray(mean, np.float32).reshape(spread)) / np.asarray(std, np.float32).reshape(
        spread
    )


def unnormalize(image: Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Returns image * std + mean of f32[...,c], what `normalize` was given."""
    spread = (1,) * (image.ndim - 1) + (-1,)
    means, stds = (np.asarray(each, np.float32).reshape(spread) for each in (mean, std))
    return jnp.asarray(image) * stds + means


def flip(image: Array, label: Array, axis: int) -> Pair:
    """Returns image [h,w,c] and label [h,w] mirrored along axis 0 (top-bottom) or 1 (left-right)."""
    return jnp.flip(image, axis), jnp.flip(label, axis)


def random_flip(key: Key, image: Array, label: Array, axis: int, probability: float = 0.5) -> Pair:
    """Mirrors along axis 0 (top-bottom) or 1 (left-right) with the given probability."""
    check_pair(image, label)
    flipped = jax.random.uniform(key) < probability
    return _flip_if(flipped, image, label, axis)


def random_zoom(key: Key, image: Array, label: Array, low: float, high: float) -> Pair:
    """Magnifies by a factor in [low, high], uniform in its logarithm, about a uniform random point of the image.

    A factor above 1 shows a random window of the image; a factor below 1 places the whole image at random. Shrinking
    uses no antialiasing filter.
    """
    return warp(image, label, _zoom(jax.random.uniform(key, (3,)), image.shape[:2], low, high))


def random_shear(key: Key, image: Array, label: Array, limit: float) -> Pair:
    """Shears sideways by a tangent uniform in [-limit, limit]."""
    return warp(image, label, shear_matrix(_within(jax.random.uniform(key), limit), image.shape[:2]))


def random_rotate(key: Key, image: Array, label: Array, limit: float) -> Pair:
    """Rotates about the centre by an angle uniform in [-limit, limit] degrees."""
    return warp(image, label, rotation_matrix(_within(jax.random.uniform(key), limit), image.shape[:2]))


def random_crop(
    key: Key,
    image: Array,
    label: Array,
    size: tuple[int, ...],
    max_share: float = 1.0,
    tries: int = _TRIES,
    balanced: float = 0.0,
) -> Pair:
    """Cuts out a window of `size` (h, w) at a uniform random position, or by `balanced_origins` with a probability.

    Of `tries` windows it takes the first in which no class covers more than `max_share` of the pixels that are not
    IGNORE. If there is none, it takes the window whose largest class has the smallest share. A window with only IGNORE
    pixels counts as share 1.

    Raises:
        ValueError: if the window is larger than the image, or image and label differ in size.
    """
    check_pair(image, label)
    origin = _crop_origin(key, jax.random.uniform(key, (tries, 2)), label, size, max_share, balanced)
    return _window(image, label, origin, size)


def random_brightness(key: Key, image: Array, label: Array, limit: float) -> Pair:
    """Changes the brightness by a factor uniform in [1 - limit, 1 + limit]."""
    return adjust_brightness(image, 1.0 + _within(jax.random.uniform(key), limit)), jnp.asarray(label)


def random_contrast(key: Key, image: Array, label: Array, limit: float) -> Pair:
    """Changes the contrast by a factor uniform in [1 - limit, 1 + limit]."""
    return adjust_contrast(image, 1.0 + _within(jax.random.uniform(key), limit)), jnp.asarray(label)


def random_saturation(key: Key, image: Array, label: Array, limit: float) -> Pair:
    """Changes the saturation by a factor uniform in [1 - limit, 1 + limit]."""
    return adjust_saturation(image, 1.0 + _within(jax.random.uniform(key), limit)), jnp.asarray(label)


@checked
def make_augment(
    *,
    flip_horizontal: Share = 0.0,
    flip_vertical: Share = 0.0,
    zoom: Zoom = (1.0, 1.0),
    shear: NotNegative = 0.0,
    rotate: NotNegative = 0.0,
    crop: SizeOrNone = (),
    crop_max_share: Share = 1.0,
    crop_balanced: Share = 0.0,
    brightness: Share = 0.0,
    contrast: Share = 0.0,
    saturation: Share = 0.0,
    perspective: BelowHalf = 0.0,
    elastic: NotNegative = 0.0,
    elastic_spacing: AtLeastOne = 32.0,
    rand_operations: Operations = 0,
    rand_magnitude: UpToTen = 5.0,
    gamma: Zoom = (1.0, 1.0),
    hue: UpToHalf = 0.0,
    blur: UpTo32 = 0.0,
    low_resolution: PositiveShare = 1.0,
    noise: Share = 0.0,
    jpeg: Quality = 0,
    erase: Share = 0.0,
    ignore: int = IGNORE,
) -> Callable[[Key, Array, Array], Pair]:
    """Returns augment(key, image f32[h,w,c] in [0, 1], label i[h,w]) -> (image, label) for one example.

    The arguments are the keys of `config.augment`, and `ignore`, the label of an ignored pixel. The steps are applied
    in the order flips, zoom, shear, rotation, perspective, elastic deformation, crop, brightness, contrast, saturation,
    gamma, hue, blur, low resolution, noise, JPEG, erasing. The operations of RandAugment (`data.rand_augment`)
    that move pixels come before the elastic deformation, the others before brightness. A step that is off costs
    nothing, and turning a step on does not change the random draws of the others. Without the steps from zoom to
    elastic deformation and RandAugment nothing is interpolated. Erasing leaves the label as it is: the network learns
    what something hides.

    Raises:
        ArgumentError: for an invalid value.
    """
    warps = zoom != (1.0, 1.0) or shear > 0 or rotate > 0 or perspective > 0 or elastic > 0 or rand_operations > 0
    projective = perspective > 0 or rand_operations > 0
    flips = [(axis, share) for axis, share in enumerate((flip_vertical, flip_horizontal)) if share > 0]
    degraded = gamma != (1.0, 1.0) or low_resolution < 1 or any((hue, blur, noise, jpeg, erase))
    degrade = make_degrade(
        gamma=gamma, hue=hue, blurred=blur, resolution=low_resolution, noise=noise, jpeg=jpeg, erased=erase
    )

    def geometry(key: Key, draw: Array, size: tuple[int, ...]) -> jax.Array:
        """Returns f32[3,3] of all geometric steps but the elastic one.

        They map results to sources, so the first step is leftmost.
        """
        steps = [flip_matrix(draw[axis] < share, axis, size) for axis, share in flips]
        if zoom != (1.0, 1.0):
            steps.append(_zoom(draw[2:5], size, *zoom))
        if shear > 0:
            steps.append(shear_matrix(_within(draw[5], shear), size))
        if rotate > 0:
            steps.append(rotation_matrix(_within(draw[6], rotate), size))
        if perspective > 0:
            tilts = _within(jax.random.uniform(jax.random.fold_in(key, _TILT), (2,)), perspective)
            steps.append(tilt_matrix(tilts[0], tilts[1], size))
        if rand_operations > 0:
            steps.append(rand_matrix(jax.random.fold_in(key, _RAND), size, rand_operations, rand_magnitude))
        start = jnp.eye(3, dtype=jnp.float32)  # alone where only the elastic step is on
        return functools.reduce(functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST), steps or [start])

    def crop_origin(key: Key, draw: Array, label: Array) -> jax.Array:
        return _crop_origin(key, draw[10:].reshape(-1, 2), label, crop, crop_max_share, crop_balanced, ignore)

    def augment(key: Key, image: Array, label: Array) -> Pair:
        check_pair(image, label)
        image, label = jnp.asarray(image), jnp.asarray(label)
        draw = jax.random.uniform(key, (10 + 2 * _TRIES,))  # one call: each takes long to compile
        if warps:
            matrix, origin, shift = geometry(key, draw, label.shape), (0, 0), None
            if elastic > 0:
                shift = elastic_shift(jax.random.fold_in(key, _ELASTIC), label.shape, elastic, elastic_spacing)
            label = warp_label(label, matrix, ignore, shift, projective)
            if crop:  # chosen on the warped label; only this window of the image is interpolated
                origin = crop_origin(key, draw, label)
                label = lax.dynamic_slice(label, tuple(origin), crop)
            image = warp_image(image, matrix, origin, label.shape, shift, projective)
        else:
            for axis, share in flips:
                image, label = _flip_if(draw[axis] < share, image, label, axis)
            if crop:
                origin = crop_origin(key, draw, label)
                image, label = _window(image, label, origin, crop)
        if rand_operations > 0:
            image = rand_colors(jax.random.fold_in(key, _RAND), image, rand_operations, rand_magnitude)
        if brightness > 0:
            image = adjust_brightness(image, 1.0 + _within(draw[7], brightness))
        if contrast > 0:
            image = adjust_contrast(image, 1.0 + _within(draw[8], contrast))
        if saturation > 0 and image.shape[2] in (1, 3, 4):  # others have no colours
            image = adjust_saturation(image, 1.0 + _within(draw[9], saturation))
        return degrade(jax.random.fold_in(key, _DEGRADE), image) if degraded else image, label

    return augment


def from_config(augment: Mapping[str, Any], ignore: int = IGNORE) -> Callable[[Key, Array, Array], Pair]:
    """Returns the function of `make_augment` for the section `config.augment`, and the label of an ignored pixel.

    The keys of what mixes images are left out, see `jaxseg.mixing`.

    Raises:
        ConfigError: for an invalid value, naming the key.
    """
    try:
        own = [name for name in augment if name not in (*MIXING, *MIXING_OPTIONS)]
        return make_augment(**{name: augment[name] for name in own}, ignore=ignore)
    except ArgumentError as error:
        raise ConfigError(f"augment.{error}") from error


def _within(draw: Array, limit: float) -> jax.Array:
    """Maps a draw in [0, 1) to [-limit, limit)."""
    return (2.0 * jnp.asarray(draw) - 1.0) * limit


def _zoom(draw: Array, size: tuple[int, ...], low: float, high: float) -> jax.Array:
    factor = low * (high / low) ** draw[0]
    return zoom_matrix(factor, draw[1] * size[0] - 0.5, draw[2] * size[1] - 0.5)


def _flip_if(flipped: Array, image: Array, label: Array, axis: int) -> Pair:
    return jax.tree.map(functools.partial(jnp.where, flipped), flip(image, label, axis), (image, label))


def _window(image: Array, label: Array, origin: Array, size: tuple[int, ...]) -> Pair:
    window = lax.dynamic_slice(image, (*origin, 0), (*size, image.shape[2]))
    return window, lax.dynamic_slice(label, tuple(origin), size)


def _crop_origin(
    key: Key,
    draws: Array,
    label: Array,
    size: tuple[int, ...],
    max_share: float,
    balanced: float,
    ignore: int = IGNORE,
) -> jax.Array:
    """Returns (row, column) i32[2] of the window of `random_crop`, chosen from the candidates f32[n,2] in [0, 1)."""
    room = [full - side + 1 for full, side in zip(label.shape, size)]
    if min(room) < 1:
        raise ValueError(f"A crop of {tuple(size)} does not fit an image of {label.shape}.")
    origins = jnp.minimum(draws * np.array([room], np.float32), np.array([room]) - 1).astype(jnp.int32)
    if max_share >= 1.0:
        origins = origins[:1]
    if balanced > 0:
        origins = balanced_origins(jax.random.fold_in(key, _BALANCED), origins, label, size, balanced, ignore)
    if max_share >= 1.0:
        return origins[0]

    def share(origin: jax.Array) -> jax.Array:
        window = lax.dynamic_slice(label, tuple(origin), size).reshape(-1).astype(jnp.int32)
        counts = jnp.zeros(ignore + 1, jnp.int32).at[window].add(1, mode="promise_in_bounds")[:ignore]
        valid = jnp.sum(counts)
        return jnp.where(valid > 0, jnp.max(counts) / jnp.maximum(valid, 1), 1.0)

    shares = lax.map(share, origins)  # one window at a time, to save memory
    fits = shares <= max_share
    return origins[jnp.where(jnp.any(fits), jnp.argmax(fits), jnp.argmin(shares))]

"""Host transforms: bring image and mask to one size; the image by area-aware interpolation, the mask by nearest pixels.

They run on NumPy arrays in the loading threads. Random changes of appearance and geometry happen later, on the device
(`augment.py`); the only random draw here is the corner of a crop.
"""

from typing import TypeAlias

import numpy as np
from PIL import Image

from jaxseg.data.base import Example
from jaxseg.types import ignore_in

Size: TypeAlias = tuple[int, ...]  # (height, width), as the first two of an array's shape


def fit_example(example: Example, size: Size, fit: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Brings {image u8|u16[h,w,c], label u8[h,w]} to `size`; returns (image [y,x,c], label u8[y,x]).

    Args:
        example: an example of a source.
        size: (y, x), the height and width that the network sees.
        fit: "resize" resizes the whole image to `size`; "crop" cuts a window of that size at the native scale.
        rng: draws the corner of a crop; not used by "resize".

    Raises:
        ValueError: for any other `fit`.
    """
    if fit == "resize":
        return resize_image(example["image"], size), resize_label(example["label"], size)
    if fit == "crop":
        return random_crop(example["image"], example["label"], size, rng)
    raise ValueError(f"fit is {fit!r}; it must be 'resize' or 'crop'.")


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Resizes u8|u16|f32[h,w,c] bilinearly to [y,x,c] of the same type; shrinking averages over the covered area.

    Channels are resized independently: a fourth channel is treated as data, not as an opacity.
    """
    if image.shape[:2] == tuple(size):
        return image
    target = (size[1], size[0])
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))
    planes = [_resize_plane(np.ascontiguousarray(image[..., c]), target) for c in range(image.shape[-1])]
    return np.stack(planes, axis=-1)


def _resize_plane(plane: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Resizes [h,w] to `target` (width, height): 8 bit and float32 directly, 16 bit through float32."""
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize(target, Image.Resampling.BILINEAR))
    resized = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(target, Image.Resampling.BILINEAR))
    if plane.dtype == np.float32:
        return resized
    limits = np.iinfo(plane.dtype)
    return np.clip(np.rint(resized), limits.min, limits.max).astype(plane.dtype)


def resize_label(label: np.ndarray, size: Size) -> np.ndarray:
    """Resizes u8|u16|u32[h,w] to [y,x] by the nearest pixel centre, so the result holds only values of the input."""
    if label.shape == tuple(size):
        return label
    if label.dtype == np.uint32:  # as numbers with a sign, which Pillow resizes
        return resize_label(label.view(np.int32), size).view(np.uint32)
    return np.asarray(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))


def random_crop(
    image: np.ndarray, label: np.ndarray, size: Size, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the same random window of `size` from [h,w,c] and u8[h,w].

    A side shorter than the window is extended at the bottom or right: the image by its last row or column, as in
    evaluation (`fill_up`), the label by IGNORE.
    """
    (h, w), (y, x) = label.shape, size
    top = int(rng.integers(h - y + 1)) if h > y else 0
    left = int(rng.integers(w - x + 1)) if w > x else 0
    window = np.s_[top : top + y, left : left + x]
    return fill_up(image[window], size), pad_to(label[window], size, ignore_in(label))


def pad_to(array: np.ndarray, size: Size, value: int) -> np.ndarray:
    """Pads [h,w,...] at the bottom and right with `value` up to [y,x,...].

    Raises:
        ValueError: if the array is larger than `size`.
    """
    h, w = array.shape[:2]
    if (h, w) == tuple(size):
        return array
    if h > size[0] or w > size[1]:
        raise ValueError(f"An array of {h}x{w} does not fit into {size[0]}x{size[1]}.")
    padded = np.full((*size, *array.shape[2:]), value, array.dtype)
    padded[:h, :w] = array
    return padded


def fill_up(image: np.ndarray, size: Size) -> np.ndarray:
    """Extends [h,w,c] at the bottom and right to [y,x,c] by repeating its last row and column."""
    (h, w), (y, x) = image.shape[:2], size
    return image if (h, w) == (y, x) else np.pad(image, ((0, y - h), (0, x - w), (0, 0)), mode="edge")

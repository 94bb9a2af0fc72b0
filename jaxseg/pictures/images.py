"""Pictures of single images: in RGB, with a label laid over them, with their errors, and as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxseg.files import write_atomically
from jaxseg.pictures.colors import IGNORE_COLOR, RIGHT_COLOR, WRONG_COLOR, Colors, colorize, known_classes
from jaxseg.types import ignore_in, ignore_label

if TYPE_CHECKING:
    from PIL import Image

DARK = 40  # of 255: colours below are those of backgrounds, which overlays leave as they are
_PIXELS = 2**18  # of the rows that an overlay is computed for at a time


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Returns u8[h,w,3] from u8, u16 or f32 (in [0, 1]) [h,w] or [h,w,c]: grey for c < 3, else channels 0 to 2."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    image = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if image.dtype == np.uint8:
        return image
    top = 65535.0 if image.dtype == np.uint16 else 1.0
    return np.round(np.clip(image.astype(np.float32) / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def overlay(
    image: np.ndarray, label: np.ndarray, colors: Colors, alpha: float = 0.5, multilabel: bool = False
) -> np.ndarray:
    """Returns u8[h,w,3]: the image with the class colours laid over it, transparent where the label is IGNORE.

    The image under the colours is grey, so that the hues match the legend. Classes in black or nearly black, as the
    background often is, are transparent too: those with no channel above `DARK`.

    Args:
        image: u8, u16 or f32 in [0, 1], [h,w,c].
        label: i[h,w].
        colors: one per class.
        alpha: opacity of the colours, in [0, 1].
        multilabel: whether the label holds sets of classes, whose colours are averaged; see `colorize`.

    Raises:
        ValueError: if image and label differ in size.
    """
    image, label = np.asarray(image), np.asarray(label)
    if image.shape[:2] != label.shape:
        raise ValueError(f"The image is {image.shape[:2]}, but the label is {label.shape}.")
    result = np.empty((*label.shape, 3), np.uint8)
    height = max(1, _PIXELS // max(label.shape[1], 1))
    for top in range(0, len(label), height):  # so that large images need little memory beside the result
        rows = slice(top, top + height)
        result[rows] = _overlay(image[rows], label[rows], colors, alpha, multilabel)
    return result


def _overlay(image: np.ndarray, label: np.ndarray, colors: Colors, alpha: float, multilabel: bool) -> np.ndarray:
    rgb = to_rgb(image).astype(np.float32)
    grey = rgb @ np.array([[0.299], [0.587], [0.114]], np.float32)  # luma, ITU-R BT.601
    palette = colorize(label, colors, multilabel)
    blended = np.round((1.0 - alpha) * grey + alpha * palette)
    ignored = known_classes(label, len(colors)) == 0 if multilabel else label == ignore_label(len(colors))
    clear = ignored | (palette.max(axis=2) <= DARK)
    return np.where(clear[:, :, None], rgb, blended).astype(np.uint8)


def judged(truth: np.ndarray, prediction: np.ndarray, sets_of: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns bool[h,w] whether the prediction is right, and whether anything of the truth is known.

    Args:
        truth: i[h,w].
        prediction: i[h,w].
        sets_of: the number of classes of which both hold sets (`jaxseg.sets`): a set is right if each class that is
            known at the pixel is; 0: both hold the one class of each pixel.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if not sets_of:
        return truth == prediction, truth != ignore_in(truth)
    known = known_classes(truth, sets_of)
    return (truth.astype(np.int64) ^ prediction.astype(np.int64)) & known == 0, known != 0


def error_map(truth: np.ndarray, prediction: np.ndarray, sets_of: int = 0) -> np.ndarray:
    """Returns u8[h,w,3]: white where the prediction is right, black where it is wrong, grey where nothing counts.

    The arguments are those of `judged`.
    """
    right, known = judged(truth, prediction, sets_of)
    picture = np.where(right[:, :, None], np.array(RIGHT_COLOR, np.uint8), np.array(WRONG_COLOR, np.uint8))
    picture[~known] = IGNORE_COLOR
    return picture


def grid(images: Sequence[np.ndarray], columns: int = 8, gap: int = 2, least: int = 64) -> np.ndarray:
    """Returns u8[h,w,3]: images of one size, each [h,w,c] as for `to_rgb`, in rows of `columns` with white gaps.

    Args:
        images: at least one.
        columns: images in a row.
        gap: pixels between images.
        least: images of fewer pixels a side are enlarged by a whole factor to at most this.
    """
    cells = [to_rgb(image) for image in images]
    factor = max(1, least // max(cells[0].shape[:2]))
    cells = [np.repeat(np.repeat(cell, factor, axis=0), factor, axis=1) for cell in cells]
    height, width = (side + gap for side in cells[0].shape[:2])
    columns = min(columns, len(cells))
    sheet = np.full((-(-len(cells) // columns) * height + gap, columns * width + gap, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // columns * height + gap, i % columns * width + gap
        sheet[top : top + height - gap, left : left + width - gap] = cell
    return sheet


def save_image(picture: "np.ndarray | Image.Image", path: str | Path, *, software: str = "") -> None:
    """Writes u8[h,w] or u8[h,w,3], or an image of Pillow, as a PNG file, atomically.

    Args:
        picture: the picture.
        path: the file; one that is there is replaced.
        software: text that the file has under "Software"; empty: none.
    """
    from PIL import Image, PngImagePlugin

    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    info = PngImagePlugin.PngInfo()
    if software:
        info.add_text("Software", software)
    write_atomically(path, lambda file: image.save(file, format="PNG", pnginfo=info))

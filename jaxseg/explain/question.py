"""What is asked of a network: a method, a class, and the pixels whose prediction is explained."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

import numpy as np

from jaxseg.arguments import Where, check_value
from jaxseg.errors import ArgumentError, counted, nearest, printable
from jaxseg.explain.view import View

Method: TypeAlias = Literal[
    "grad-cam", "saliency", "smoothgrad", "integrated-gradients", "attention", "receptive-field"
]
METHODS: tuple[Method, ...] = get_args(Method)
Pixel: TypeAlias = tuple[int, int]
Rectangle: TypeAlias = tuple[int, int, int, int]
PIXEL = Annotated[tuple[int, int], Where(lambda _: True, instead="(row, column), two whole numbers")]
RECTANGLE = Annotated[
    tuple[int, int, int, int], Where(lambda _: True, instead="(top, left, bottom, right), four whole numbers")
]


@dataclass(frozen=True, eq=False)
class Question:
    """What is explained.

    Attributes:
        method: one of `METHODS`.
        class_index: the class.
        class_name: its name.
        pixels: bool[h,w], the pixels of the image whose logits of the class are explained.
        words: these pixels in words, for the legend: "the pixel (12, 30)".
        layer: of "grad-cam", the layer; else "".
        place: the pixel or the box in a few characters, for the name of a file: "at-12-30"; "" for a class.
    """

    method: Method
    class_index: int
    class_name: str
    pixels: np.ndarray
    words: str
    layer: str = ""
    place: str = ""

    def on_input(self, view: View) -> np.ndarray:
        """Returns f32[y,x], the weight of each place of the network's own logits in those of the pixels."""
        return view.to_input(self.pixels)

    def target(self, view: View, channels: int) -> np.ndarray:
        """Returns f32[y,x,k]: the sum of this times the network's own logits is that of the class at the pixels.

        A network with one logit has it for class 1, and its negative for class 0.
        """
        weights = self.on_input(view)
        target = np.zeros((*weights.shape, channels), np.float32)
        if channels == 1:
            target[..., 0] = weights if self.class_index else -weights
        else:
            target[..., self.class_index] = weights
        return target


def find_class(word: str | int, classes: tuple[str, ...]) -> int:
    """Returns the index of a class by its name, or else by its index.

    Raises:
        ArgumentError: for an unknown class, with the nearest right one.
    """
    if isinstance(word, str) and word in classes:
        return classes.index(word)
    text = str(word).strip()
    if text.isdigit() and int(text) < len(classes):
        return int(text)
    if text.lstrip("-").isdigit():
        raise ArgumentError(
            f"There is no class {text}: the classes of the run are 0 to {len(classes) - 1} "
            f"({', '.join(map(printable, classes[:20]))}{', ...' if len(classes) > 20 else ''})."
        )
    raise ArgumentError(f"There is no class {word!r}.{nearest(word, classes)}")


def choose(
    method: Method,
    classes: tuple[str, ...],
    predicted: np.ndarray,
    class_word: str | int | None,
    pixel: Pixel | None,
    box: Rectangle | None,
    layer: str = "",
) -> Question:
    """Returns the question that these words ask.

    Without a pixel and a box, the pixels are those that are predicted as the class; the whole image if none is. Without
    a class, the class is that of the pixel, or the one that most pixels of the box or of the image are predicted as.

    Args:
        method, layer: as of `Question`.
        classes: the names of the classes.
        predicted: i64[h,w], the predicted classes.
        class_word: the name or index of a class, or None.
        pixel: (row, column), or None.
        box: (top, left, bottom, right), the last two exclusive, or None.

    Raises:
        ArgumentError: for an unknown class, a place outside the image, or both a pixel and a box.
    """
    pixels, words = _place(predicted.shape, pixel, box)
    place = "at-{}-{}".format(*pixel) if pixel else "in-{}-{}-{}-{}".format(*box) if box else ""
    if class_word is not None:
        index = find_class(class_word, classes)
    else:
        index = int(np.bincount(predicted[pixels], minlength=len(classes)).argmax())
    name = classes[index]
    if pixel is None and box is None:
        pixels = predicted == index
        words = f"{counted(int(pixels.sum()), 'pixel')} predicted as it"
        if not pixels.any():
            pixels, words = np.ones_like(pixels), "the whole image (no pixel is predicted as it)"
    return Question(method, index, name, pixels, words, layer, place)


def _place(size: tuple[int, ...], pixel: Pixel | None, box: Rectangle | None) -> tuple[np.ndarray, str]:
    h, w = size
    if pixel is not None and box is not None:
        raise ArgumentError("A pixel and a box are two targets; give one of them.")
    pixels = np.zeros((h, w), bool)
    if pixel is not None:
        y, x = require_pixel(pixel, size)
        pixels[y, x] = True
        return pixels, f"the pixel ({y}, {x})"
    if box is not None:
        top, left, bottom, right = check_value("box", box, RECTANGLE)
        if not (0 <= top < bottom <= h and 0 <= left < right <= w):
            raise ArgumentError(
                f"The box {top},{left},{bottom},{right} does not lie in the image of {h} rows and {w} columns: it "
                f"needs 0 <= top < bottom <= {h} and 0 <= left < right <= {w}."
            )
        pixels[top:bottom, left:right] = True
        return pixels, f"the box of rows {top} to {bottom - 1}, columns {left} to {right - 1}"
    return np.ones((h, w), bool), "the whole image"


def require_pixel(pixel: Pixel, size: tuple[int, ...]) -> Pixel:
    """Returns the pixel; raises ArgumentError if it is no (row, column) inside an image of this size."""
    y, x = check_value("pixel", pixel, PIXEL)
    h, w = size
    if not (0 <= y < h and 0 <= x < w):
        raise ArgumentError(
            f"The pixel {y},{x} lies outside the image, whose rows are 0 to {h - 1} and columns 0 to {w - 1} "
            "(a pixel is row,column)."
        )
    return y, x

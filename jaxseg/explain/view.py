"""An image as a network sees it, and the way back: pixels of the image to logits, maps and logits to the image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.build import Parts
from jaxseg.data.transforms import fill_up, resize_image
from jaxseg.errors import DataError

_STRIP = 2**22  # values of the logits that are resized at a time


class View(NamedTuple):
    """An image h x w and the input y x x that a network gets of it, see `jaxseg.inference.segment`.

    Attributes:
        input: f32[1,y,x,c], normalised.
        rows: f32[h,y], the share that each row of the input has in each row of the image.
        columns: f32[w,x], the same of columns.
    """

    input: jax.Array
    rows: np.ndarray
    columns: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the image."""
        return len(self.rows), len(self.columns)

    @property
    def input_size(self) -> tuple[int, int]:
        """The (height, width) of the input."""
        return self.rows.shape[1], self.columns.shape[1]

    def to_image(self, values: np.ndarray) -> np.ndarray:
        """A map f32[y,x] of the input -> f32[h,w] of the image, bilinearly, as prediction resizes logits."""
        return self.rows @ np.asarray(values, np.float32) @ self.columns.T

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Weights of pixels f32[h,w] -> f32[y,x], the transpose of `to_image`.

        The sum of `pixels` times a map of the image equals the sum of the result times that map of the input.
        """
        return self.rows.T @ np.asarray(pixels, np.float32) @ self.columns

    def classes(self, logits: np.ndarray) -> np.ndarray:
        """Logits f32[y,x,k] -> the predicted class i64[h,w] of each pixel of the image."""
        logits = np.asarray(logits, np.float32)
        height = max(1, _STRIP // (len(self.columns) * logits.shape[-1]))
        strips = []
        for top in range(0, len(self.rows), height):
            tall = np.einsum("hy,yxk->hxk", self.rows[top : top + height], logits)
            strip = np.einsum("wx,hxk->hwk", self.columns, tall)
            strips.append(strip[..., 0] > 0 if strip.shape[-1] == 1 else strip.argmax(-1))
        return np.concatenate(strips).astype(np.int64)


def view_of(parts: Parts, image: np.ndarray) -> View:
    """Returns the image u8|u16|f32[h,w,c] as the network of a run sees it in prediction.

    With `data.fit` "resize" it is resized to `data.size`; with "crop" its sides are extended to multiples of
    `eval.multiple`.

    Raises:
        DataError: if the number of channels differs from what the network takes.
    """
    config = parts.config
    if image.ndim != 3 or image.shape[-1] != config.data.channels:
        raise DataError(f"The network takes images [h,w,{config.data.channels}], got one of shape {image.shape}.")
    h, w = image.shape[:2]
    if config.data.fit == "resize":
        seen = resize_image(image, tuple(config.data.size))
        rows, columns = interpolation(h, seen.shape[0]), interpolation(w, seen.shape[1])
    else:
        multiple = config.eval.multiple
        seen = fill_up(image, (-(-h // multiple) * multiple, -(-w // multiple) * multiple))
        rows, columns = np.eye(h, seen.shape[0], dtype=np.float32), np.eye(w, seen.shape[1], dtype=np.float32)
    return View(parts.prepare(jnp.asarray(seen[None])), rows, columns)


def interpolation(outputs: int, inputs: int) -> np.ndarray:
    """Returns f32[outputs,inputs], the matrix of linear resizing between centres, as `jaxseg.nn.resize` samples."""
    position = np.clip((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0.0, inputs - 1.0)
    low = np.floor(position).astype(int)
    share = (position - low).astype(np.float32)
    matrix = np.zeros((outputs, inputs), np.float32)
    np.add.at(matrix, (np.arange(outputs), low), 1.0 - share)
    np.add.at(matrix, (np.arange(outputs), np.minimum(low + 1, inputs - 1)), share)
    return matrix


def averaging(outputs: int, inputs: int) -> np.ndarray:
    """Returns f32[outputs,inputs], the matrix that averages over the stretch of inputs that each output covers."""
    edges = np.arange(outputs + 1) * (inputs / outputs)
    low = np.maximum(edges[:-1, None], np.arange(inputs))
    high = np.minimum(edges[1:, None], np.arange(inputs) + 1)
    overlap = np.maximum(high - low, 0.0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)

"""Segments one image of any size with a trained network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg import losses
from jaxseg.build import Parts
from jaxseg.compiler import compiler_options, jit
from jaxseg.data.transforms import fill_up, resize_image
from jaxseg.errors import OutOfMemoryError, is_out_of_memory
from jaxseg.metrics import predict_classes
from jaxseg.nn import resize_to_sizes
from jaxseg.state import Network
from jaxseg.types import PyTree

_CANVAS = 64  # sizes that round up to the same multiple of this share a compiled resize


class Segmentation(NamedTuple):
    """The prediction of a network for one image.

    Attributes:
        classes: u8[h,w], the most probable class of each pixel.
        probabilities: f32[h,w,k], or None if not requested; k is 1 (the probability of class 1) for a binary network.
            They are the softmax of the logits, or one sigmoid for each class if the run was trained so
            (`losses.Loss.one_vs_rest`).
    """

    classes: np.ndarray
    probabilities: np.ndarray | None


def make_segmenter(parts: Parts, model: Network | None = None) -> Callable[..., Segmentation]:
    """Returns `segment(variables, image u8|u16|f32[h,w,c], probabilities=False)`; its result has the image's size.

    With `data.fit` "resize" the image is resized to `data.size` as for training, and the network's logits are resized
    back to the image's size bilinearly, before the probabilities and the argmax: what `jaxseg.evaluate` scores. With
    "crop" the network sees the image at its own size, with its sides extended to multiples of `eval.multiple`. The
    network is compiled once for each size that it sees.

    Args:
        parts: the parts of the run that trained the network.
        model: replaces the model of the parts, in a form of it that computes the same, such as `folded.FoldedModel`.

    Raises (from `segment`):
        ValueError: if the number of channels differs from what the network takes.
        OutOfMemoryError: if the image is too large for the device.
    """
    config, model, prepare = parts.config, parts.model if model is None else model, parts.prepare
    channels = config.data.channels

    def network(variables: PyTree, image: Any) -> jax.Array:
        return model.apply(variables, prepare(image), train=False)[0]

    network = jit(network, compiler_options(config.compile.options))
    native = jax.jit(resize_to_sizes, static_argnums=2)
    likeliest = jax.jit(predict_classes)
    share = jax.jit(functools.partial(losses.probabilities, one_vs_rest=parts.loss.one_vs_rest))

    def segment(variables: PyTree, image: np.ndarray, probabilities: bool = False) -> Segmentation:
        if image.ndim != 3 or image.shape[-1] != channels:
            raise ValueError(f"the network takes images [h,w,{channels}], got one of shape {image.shape}")
        h, w = image.shape[:2]
        if config.data.fit == "resize":
            image = resize_image(image, tuple(config.data.size))
        else:
            multiple = config.eval.multiple
            image = fill_up(image, (-(-h // multiple) * multiple, -(-w // multiple) * multiple))
        try:
            logits = network(variables, image[None])
            if config.data.fit == "resize" and logits.shape[1:3] != (h, w):
                canvas = (-(-h // _CANVAS) * _CANVAS, -(-w // _CANVAS) * _CANVAS)
                logits = native(logits, np.array([[h, w]], np.int32), canvas)
            classes = np.asarray(likeliest(logits), np.uint8)[0, :h, :w]
            shares = np.asarray(share(logits))[0, :h, :w] if probabilities else None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"an image of {h}x{w} pixels does not fit into the device's memory") from error
        return Segmentation(classes, shares)

    return segment

"""Segments images with networks: what training draws with, and what every prediction goes through."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg.build import Parts
from jaxseg.errors import JaxsegError, OutOfMemoryError, counted, is_out_of_memory
from jaxseg.inference.fitting import scored
from jaxseg.inference.networks import Member, Networks, Shares
from jaxseg.state import Network
from jaxseg.types import PyTree


class Segmentation(NamedTuple):
    """The prediction of a network, or of several, for one image.

    Attributes:
        classes: u8[h,w], or u16[h,w] of more than 255 classes, the most probable class of each pixel; with thresholds
            of the classes, IGNORE where none is above its own. Where a pixel may have several classes: u8|u16|u32[h,w],
            sets of them (`jaxseg.sets`).
        probabilities: f32[h,w,k], or None if not requested; k is 1 (the probability of class 1) for a binary network.
            They are the softmax of the logits, or one sigmoid for each class if the run was trained so
            (`losses.Loss.one_vs_rest`). Where the n likeliest classes alone were asked for: f16[h,w,n] of these.
        indices: u8[h,w,n] or u16[h,w,n], these n classes, the likeliest first; None: all classes, in their order.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None
    indices: np.ndarray | None = None


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
    networks = Networks((Member(parts, parts.model if model is None else model),))

    def segment(variables: PyTree, image: np.ndarray, probabilities: bool = False) -> Segmentation:
        require_image(image.shape, networks.channels)
        return launch(networks, [variables], [image], probabilities)()[0]

    return segment


def launch(
    networks: Networks,
    variables: Sequence[PyTree],
    images: Sequence[np.ndarray],
    probabilities: bool = False,
    memory: int | None = None,
) -> Callable[[], list[Segmentation]]:
    """Starts to segment whole images that the networks see at one size; returns the function that waits for it.

    Args:
        networks: the networks and the views.
        variables: of each network.
        images: u8|u16|f32[h,w,c] each.
        probabilities: whether to give them.
        memory: the bytes that there are, see `fitting.scored`.

    Raises (also from the function that waits):
        OutOfMemoryError: if the images are too large for the device.
    """
    h, w = images[0].shape[:2]
    what = f"{'an image' if len(images) == 1 else counted(len(images), 'image')} of {h}x{w} pixels"
    with naming_image(what):
        scores = scored(networks, variables, images, probabilities=probabilities, memory=memory)
        classes = networks.classes(scores)
        shares = networks.shares(scores) if probabilities else None

    def wait() -> list[Segmentation]:
        with naming_image(what):
            found = np.asarray(classes).astype(networks.label_type)
            given = None if shares is None else jax.device_get(shares)
        return [segmentation(found[i, :h, :w], given, np.s_[i, :h, :w]) for i, (h, w) in enumerate(scores.sizes)]

    return wait


def segmentation(classes: np.ndarray, shares: Shares | None, place: Any = ...) -> Segmentation:
    """Returns the prediction of a part of what was segmented: its classes, and its place in the arrays of `shares`."""
    if shares is None:
        return Segmentation(classes, None)
    indices = None if shares.indices is None else np.asarray(shares.indices)[place]
    return Segmentation(classes, np.asarray(shares.probabilities)[place], indices)


def require_image(shape: Sequence[int], channels: int) -> None:
    """Raises ValueError unless the shape is that of an image [h,w,channels]."""
    if len(shape) != 3 or shape[-1] != channels:
        raise ValueError(f"the network takes images [h,w,{channels}], got one of shape {tuple(shape)}")


@contextlib.contextmanager
def naming_image(what: str) -> Iterator[None]:
    """Turns an error for lack of memory in its body into OutOfMemoryError, "WHAT does not fit into ..."."""
    try:
        yield
    except Exception as error:
        if isinstance(error, JaxsegError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{what} does not fit into the device's memory") from error

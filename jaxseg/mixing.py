"""Mixing the images of a batch on the device, with their labels: a box of another image, its objects, or its colours.

Images are mixed in pairs, (0, 1), (2, 3) and so on; each of the two gives a part of itself to the other. Micro-batches
do not divide them. MixUp leaves both labels, which `MixedLoss` reads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import ArgumentError
from jaxseg.losses import Loss
from jaxseg.losses.definition import unchanged
from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.components import connected_components
from jaxseg.types import IGNORE, LESSON, Array, Key, PyTree

_BOX = 0.5  # share of the image that a box covers
# Streams of an example's key for whether, where and what; see `jaxseg.data.augment` for the others.
_MIX_STREAMS = (7, 8, 9, 10, 11, 12)
_QUANTILES = 1024  # of the shares of MixUp

Pair = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class CopyPaste:
    """Objects of the partner are put over an image, with their labels (Ghiasi et al. 2021, "Simple copy-paste").

    Attributes:
        probability: that an image gets some.
        classes: those that have objects.
        connected: each set of connected pixels of a class is an object, which is pasted with probability 1/2; False:
            half of the classes that are there are pasted, of an odd number one more.
        move: (key, image [h,w,c], label i32[h,w]) -> the same, moved with the objects on it: mirrored, larger, smaller.
    """

    probability: float
    classes: tuple[int, ...]
    connected: bool = True
    move: Callable[[Key, jax.Array, jax.Array], Pair] | None = None


class Second(NamedTuple):
    """The second labels of a batch that MixUp mixed, and the share of the first.

    Attributes:
        label: i32[b,h,w].
        share: f32[b], λ, in [1/2, 1]; 1 where an image is not mixed.
    """

    label: jax.Array
    share: jax.Array


def make_mix(
    augment: Callable[[Key, jax.Array, jax.Array], Pair],
    *,
    cutmix: float = 0.0,
    classmix: float = 0.0,
    copy_paste: CopyPaste | None = None,
    mixup: float = 0.0,
    mixup_alpha: float = 0.2,
    ignore: int = IGNORE,
) -> Callable[[Mapping[str, jax.Array], Any], tuple[jax.Array, jax.Array, Second | None]]:
    """Returns `mix({image, label, key of each example}, _) -> (network input, label, Second or None)`, a `step.Teach`.

    Args:
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input f32[h,w,c], label) of one example.
        cutmix: probability that a box of half the area shows the partner, with its labels (Yun et al. 2019, "CutMix";
            for segmentation French et al. 2020). Its height is drawn evenly in its logarithm.
        classmix: probability that the pixels of half of the partner's classes, drawn from those in its label, are put
            over the image (Olsson et al. 2021, "ClassMix").
        copy_paste: whether and how objects of the partner are put over the image.
        mixup: probability that the image is λ of itself and 1 - λ of its partner (Zhang et al. 2018, "mixup"). Both
            labels count, by `MixedLoss`. The image itself always has the larger share, which says as much, since the
            partner is mixed too.
        mixup_alpha: α of the distribution Beta(α, α) of λ.
        ignore: the label of an ignored pixel. A box takes such pixels with it; they belong to no class.

    An image has at most one of these changes: the sum of the probabilities is at most 1. Tracing raises ArgumentError
    for an odd number of images.
    """
    shares = larger_shares(mixup_alpha) if mixup else None

    def mix(batch: Mapping[str, jax.Array], _: Any) -> tuple[jax.Array, jax.Array, Second | None]:
        keys, label = batch["keys"], batch["label"].astype(jnp.int32)
        image, label = jax.lax.optimization_barrier(jax.vmap(augment)(keys, batch["image"], label))
        deciding, of_box, of_classes, of_objects, of_move, of_share = (
            jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream) for stream in _MIX_STREAMS
        )
        draw = jax.vmap(jax.random.uniform)(deciding)[:, None, None]
        own, own_label, below = image, label, cutmix + classmix
        if cutmix or classmix:
            taken = jax.vmap(lambda key: box(key, label.shape[1:], 1.0))(of_box) & (draw < cutmix)
            if classmix:
                chosen = jax.vmap(lambda key, of: half_of_classes(key, of, ignore))(of_classes, partner(label))
                taken |= chosen & (draw >= cutmix) & (draw < below)
            image, label = pasted(taken, image), pasted(taken, label)
        if copy_paste is not None:
            objects = _objects(copy_paste, of_objects, partner(own_label), ignore)
            theirs = partner(own)
            if copy_paste.move is not None:
                theirs, objects = jax.vmap(copy_paste.move)(of_move, theirs, objects)
            taken = (objects != ignore) & (draw >= below) & (draw < below + copy_paste.probability)
            image, label = jnp.where(taken[..., None], theirs, image), jnp.where(taken, objects, label)
            below += copy_paste.probability
        second = None
        if shares is not None:
            place = jax.vmap(jax.random.uniform)(of_share)
            larger = jnp.interp(place, np.linspace(0, 1, len(shares), dtype=np.float32), shares)
            share = jnp.where(((draw >= below) & (draw < below + mixup))[:, 0, 0], larger, 1.0)
            parts = share[:, None, None, None]
            image = jnp.where(parts < 1, parts * image + (1 - parts) * partner(own), image)
            second = Second(partner(own_label), share)
        return *jax.lax.optimization_barrier((image, label)), second

    return mix


@dataclasses.dataclass(frozen=True)
class MixedLoss:
    """The loss of images that MixUp mixed (an `objective.Objective`): λ L(y) + (1 - λ) L(y'), of each pixel.

    Sums and weights of both labels are added with the shares of their images, so that an ignored pixel of one of the
    two leaves the other. Zhang et al. 2018 mix the labels themselves, which is the same for cross-entropy.

    Attributes:
        loss: of which all terms are means over pixels of the logits; see `check_mixable`.
    """

    loss: Loss

    @property
    def of_logits(self) -> "MixedLoss":
        """The loss of an auxiliary head."""
        return MixedLoss(self.loss.of_logits)

    @property
    def multilabel(self) -> bool:
        """Whether labels are sets of classes."""
        return self.loss.multilabel

    def stats(self, logits: Array, labels: Array, out: Mapping[str, Any] | None = None) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> sums that add over examples, devices and micro-batches, see `losses.Loss`.

        Args:
            logits: of the network.
            labels: the first labels.
            out: the network's second output, with the `Second` as "lesson".
        """
        second: Second = (out or {})[LESSON]

        def of_image(logits: jax.Array, label: jax.Array, other: jax.Array, share: jax.Array) -> PyTree:
            first, last = (self.loss.stats(logits[None], each[None]) for each in (label, other))
            return jax.tree.map(lambda a, b: share * a + (1 - share) * b, first, last)

        each = jax.vmap(of_image)(jnp.asarray(logits), jnp.asarray(labels), second.label, second.share)
        return jax.tree.map(lambda sums: jnp.sum(sums, axis=0), each)

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[]."""
        return self.loss.value(stats)

    def report(self, stats: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> (`value`, the value of each term)."""
        return self.loss.report(stats)


def check_mixable(loss: Loss) -> None:
    """Raises ArgumentError if a term of the loss has no value for two labels of one image, each with its share.

    It has one if it is a mean over pixels of the logits. Dice and other ratios of sums over regions, losses that rank
    pixels or look at boundaries, and losses of another output of the network compare the whole label.
    """
    for term in loss.terms:
        kind, options = term.definition, dict(term.options)
        if kind.reads or kind.ratio is not unchanged or not kind.adds_pixels(options):
            raise ArgumentError(
                f"MixUp mixes two labels as the weighted sum of two losses of each pixel, and the term {term.name} is "
                "no mean over pixels of the logits; terms that are one include cross_entropy, binary_cross_entropy, "
                "focal and mse."
            )
    if loss.class_samples is not None:
        raise ArgumentError("MixUp needs the logits of all classes, and sampled_cross_entropy leaves some out.")


def larger_shares(alpha: float) -> np.ndarray:
    """Returns f32[n], evenly spaced quantiles of max(λ, 1 - λ), with λ from Beta(α, α).

    By them a draw needs no loop, unlike `jax.random.beta`, so that devices do not wait for one another. With
    1 - λ = t^p, p = max(1/α, 1), the density of t is in proportion to t^(pα-1) λ^(α-1), which is finite.
    """
    power = max(1.0 / alpha, 1.0)
    t = np.linspace(0.0, 0.5 ** (1.0 / power), 16 * _QUANTILES + 1)
    density = t ** (power * alpha - 1.0) * (1.0 - t**power) ** (alpha - 1.0)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    smaller = np.interp(np.linspace(1.0, 0.0, _QUANTILES + 1), total / total[-1], t) ** power
    return (1.0 - smaller).astype(np.float32)


def _objects(how: CopyPaste, keys: jax.Array, label: jax.Array, ignore: int) -> jax.Array:
    """i32[b,h,w] -> i32[b,h,w], the labels of the objects that are drawn, and `ignore` elsewhere."""
    movable = np.isin(np.arange(ignore + 1), how.classes)
    label = jnp.where(jnp.asarray(movable)[label], label, ignore)
    if how.connected:
        size = label.shape[1] * label.shape[2]
        parts = by_device(jax.vmap(connected_components), label, axes=(0,))
        kept = jax.vmap(lambda key, of: jax.random.bernoulli(key, 0.5, (size,))[of])(keys, parts)
    else:
        kept = jax.vmap(lambda key, of: half_of_classes(key, of, ignore))(keys, label)
    return jnp.where(kept, label, ignore)


def box(key: Key, size: tuple[int, ...], probability: float) -> jax.Array:
    """Returns bool[h,w], True in a random box of half the area, or nowhere."""
    draw = jax.random.uniform(key, (4,))
    inside = jnp.ones(size, bool)
    for axis, (share, place) in enumerate(((_BOX ** draw[0], draw[1]), (_BOX ** (1.0 - draw[0]), draw[2]))):
        centres = jnp.arange(size[axis]) + 0.5
        first = place * (1.0 - share) * size[axis]
        along = (centres >= first) & (centres < first + share * size[axis])
        inside &= along[:, None] if axis == 0 else along[None, :]
    return inside & (draw[3] < probability)


def half_of_classes(key: Key, label: Array, ignore: int = IGNORE) -> jax.Array:
    """Returns bool[h,w], True at the pixels of half of the classes in a label i[h,w], of an odd number one more."""
    flat = jnp.asarray(label).reshape(-1)
    present = jnp.zeros(ignore + 1, bool).at[flat].set(True, mode="promise_in_bounds").at[ignore].set(False)
    order = jnp.argsort(jnp.where(present, jax.random.uniform(key, (ignore + 1,)), 2.0))
    place = jnp.zeros(ignore + 1, jnp.int32).at[order].set(jnp.arange(ignore + 1))
    chosen = present & (2 * place < jnp.sum(present))
    return chosen[jnp.asarray(label)]


def partner(own: Array) -> jax.Array:
    """[b,...] -> the other example of each pair.

    Raises:
        ArgumentError: for an odd number of images.
    """
    size = own.shape[0]
    if size % 2:
        raise ArgumentError(
            f"Mixing takes pairs of images, but a device has {size} of them at once; give a batch_size that is a "
            "multiple of twice accumulate on each device."
        )
    return jnp.asarray(own).reshape(size // 2, 2, *own.shape[1:])[:, ::-1].reshape(own.shape)


def pasted(taken: Array, own: Array) -> jax.Array:
    """bool[b,h,w], [b,h,w,...] -> each example with the taken pixels of its partner; ArgumentError as of `partner`."""
    return jnp.where(taken.reshape(*taken.shape, *(1,) * (own.ndim - 3)), partner(own), own)

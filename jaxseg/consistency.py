"""Learning from images without labels: the network agrees with a teacher that sees an easier view of the same image.

The teacher is the moving average of the network (Tarvainen and Valpola 2017, "Mean teachers are better role models"),
or the network itself, in the mode of evaluation: what it says of an image depends on that image alone, so neither the
division of the batch nor its own random numbers change it. It sees the view that training gives to images with labels.
The network sees the same view with other colours and less sharp, so that the pixels stay where they are; with CutMix a
box of it is that of another image (French et al. 2020, "Semi-supervised semantic segmentation needs strong, varied
perturbations"). The network agrees with the teacher's probabilities (mean teacher), or with its classes where these
are confident (Sohn et al. 2020, "FixMatch"). It can also agree with the teacher on the unchanged view, seen through
features of which it has lost some (Yang et al. 2023, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic
Segmentation", section 3.2; they call FixMatch with it UniMatch): `DroppedFeatures`.

`make_train_step` takes the two halves: `make_teach` makes the views and the teacher's answer, and `ConsistencyLoss` is
the loss. A step sees labelled images as the augmentation leaves them and the others in the stronger view; with dropped
features it also sees each in the view of the teacher, that of labelled ones for nothing but the batch norms. All terms
are pairs of sum and weight, so the gradient is that of the whole batch, however it is split; only dropped features and
dropout are drawn anew for each micro-batch.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import ArgumentError
from jaxseg.losses import Loss, binary_cross_entropy, cross_entropy, divide, label_maps
from jaxseg.metrics import class_indices
from jaxseg.mixing import box, pasted
from jaxseg.nn import draw_of_examples
from jaxseg.nn.draws import initialise
from jaxseg.state import Learner, Network
from jaxseg.step import Augment, Teach
from jaxseg.types import IGNORE, LESSON, Array, Key, PyTree

_BINS = 100  # of the teacher's confidence in [0, 1], in which thresholds of classes are found

# The streams of an example's key; the augmentation has the key itself and others, see `jaxseg.data.augment`.
_VIEW_STREAM, _BOX_STREAM = 2, 3

_ENCODERS = (("encoder",), ("adapter",))  # ends of the paths of the modules that return the levels

Stronger = Callable[[Key, jax.Array], jax.Array]


class Lesson(NamedTuple):
    """The teacher's answer for a batch.

    Attributes:
        target: f32[b,h,w,c], the probabilities of the c = max(k, 2) classes at each pixel.
        seen: f32[b,h,w], 1 where a pixel of an image without labels lies inside the image, 0 elsewhere.
    """

    target: jax.Array
    seen: jax.Array


def make_teach(
    teacher: Network,
    *,
    augment: Augment,
    stronger: Stronger,
    one_vs_rest: bool = False,
    cutmix: float = 0.0,
    both: bool = False,
    ignore: int = IGNORE,
) -> Teach:
    """Returns `teach(batch, variables) -> (network input f32[b,h,w,c], label i32[b,h,w], Lesson)`.

    Args:
        teacher: the network that `variables` belong to.
        augment: (key, raw image [h,w,c], label i32[h,w]) -> (network input f32[h,w,c], label) of one example.
        stronger: (key, network input f32[h,w,c]) -> network input of the same geometry, for images without labels.
        one_vs_rest: how probabilities are read from logits, as `losses.probabilities` says.
        cutmix: probability that a box of half the area of an image without labels is that of its neighbour in the
            batch. Its height is drawn evenly in its logarithm, as by French 2020.
        both: whether the view of the teacher follows each example as a second one without a label, of which
            `DroppedFeatures` drops features: the result then has 2b examples. That of an image with labels does not
            teach.
        ignore: the label of an ignored pixel.

    An image is without labels if all its labels are IGNORE. Images are mixed in pairs, (0, 1), (2, 3) and so on, which
    devices and micro-batches do not divide. The random numbers are streams of each example's key.
    """

    def teach(batch: Mapping[str, jax.Array], variables: Mapping[str, PyTree]) -> tuple[jax.Array, jax.Array, Lesson]:
        label = class_indices(batch["label"])
        unlabelled = jnp.all(label == ignore, axis=(1, 2))[:, None, None]
        # Label 0 in place of IGNORE, so that IGNORE after the augmentation says which pixels lie outside.
        marked = jnp.where(unlabelled, 0, label)
        keys = batch["keys"]
        image, marked = jax.lax.optimization_barrier(jax.vmap(augment)(keys, batch["image"], marked))
        logits, _ = teacher.apply(variables, image, train=False)
        lesson = Lesson(label_maps(logits, one_vs_rest), (marked != ignore).astype(jnp.float32))
        streams = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        view, unmixed = jax.vmap(stronger)(streams(keys, _VIEW_STREAM), image), lesson
        if cutmix:
            inside = jax.vmap(lambda key: box(key, marked.shape[1:], cutmix))(streams(keys, _BOX_STREAM))
            view, lesson = jax.tree.map(lambda own: pasted(inside, own), (view, lesson))
        view, image = jax.lax.optimization_barrier((view, image))
        view, label = jnp.where(unlabelled[..., None], view, image), jnp.where(unlabelled, ignore, marked)
        if both:
            view, label = _in_turn(view, image), _in_turn(label, jnp.full_like(label, ignore))
            lesson, unlabelled = jax.tree.map(_in_turn, lesson, unmixed), _in_turn(unlabelled, unlabelled)
        return view, label, jax.lax.stop_gradient(Lesson(lesson.target, jnp.where(unlabelled, lesson.seen, 0.0)))

    return teach


def _in_turn(first: jax.Array, second: jax.Array) -> jax.Array:
    """[b,...], [b,...] -> [2b,...], an example of each in turn, so that devices keep their examples."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


_ENCODERS = (("encoder",), ("adapter",))  # ends of the paths of what returns the levels


@dataclasses.dataclass(frozen=True)
class DroppedFeatures:
    """A network that, in training, loses features of every second example: the views that `make_teach(both=True)` adds.

    Each channel of each level that the encoder returns is zero in such an example with probability `rate`, and scaled
    by 1 / (1 - rate) otherwise (Yang et al. 2023 drop channels at a rate of .5). The others, and evaluation, are those
    of the network alone. The encoder is the first child of this name that the network calls; an adapter around it
    returns the levels in its place.

    Attributes:
        network: what is trained.
        rate: probability of dropping, in [0, 1).
        axis_name: the mapped axis that the batch is split over, if any.
    """

    network: Learner
    rate: float
    axis_name: str | None = None

    def init(self, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> Mapping[str, PyTree]:
        """The variables of the network."""
        return initialise(self.network, rngs, image, **arguments)

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, *, train: bool = False, **arguments: Any) -> Any:
        """As that of the network, for f32[2b,h,w,c] with `train`; ArgumentError if it has no child "encoder"."""
        if not train:
            return self.network.apply(variables, image, train=False, **arguments)
        seen = False

        def dropped(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            nonlocal seen
            if seen or context.method_name != "__call__" or context.module.path[-1:] not in _ENCODERS:
                return call(*args, **kwargs)
            seen = True
            return jax.tree.map(lambda level: self._with_less(context.module, level), call(*args, **kwargs))

        with nn.intercept_methods(dropped):
            result = self.network.apply(variables, image, train=True, **arguments)
        if not seen:
            raise ArgumentError(
                "semi.features drops features of the network's child named encoder, which it does not have; leave it 0."
            )
        return result

    def _with_less(self, encoder: nn.Module, level: jax.Array) -> jax.Array:
        shape = (*(1 for _ in level.shape[1:-1]), level.shape[-1])
        keep = draw_of_examples(encoder, "dropout", level.shape[0], 1.0 - self.rate, shape, self.axis_name)
        second = (jnp.arange(level.shape[0]) % 2 == 1).reshape(-1, *(1 for _ in shape))
        return jnp.where(second, jnp.where(keep, level / (1.0 - self.rate), 0.0), level).astype(level.dtype)


@dataclasses.dataclass(frozen=True)
class ConsistencyLoss:
    """The loss of images with labels, and agreement with the teacher for the others (an `objective.Objective`).

    With q the teacher's probabilities and p those of the network, at the pixels of images without labels:

        mean_teacher: mean of Σ_c (p_c - q_c)² / c                      (Tarvainen 2017)
        fixmatch:     mean of [max q > threshold] · CE(p, argmax q)      (Sohn 2020, equation 4)

    Both are means over all these pixels, confident or not. With `class_share` a class that is rarely confident teaches
    too: its threshold is at most the confidence that this share of its pixels in the batch reaches, as in
    class-balanced self-training (Zou et al. 2018), to a hundredth. The sums of each class are kept in bins
    of confidence, so that the threshold follows from the totals of the whole batch.

    Attributes:
        loss: the loss of images with labels.
        method: "mean_teacher" or "fixmatch".
        weight: λ, the weight of agreement.
        ramp_up: T, steps over which it rises as λ exp(-5 (1 - t/T)²) (Laine and Aila 2017); 0: at once.
        threshold: the confidence from which a pixel teaches, for fixmatch.
        class_share: the share of each class's pixels that teach at any confidence; 0: none.
    """

    loss: Loss
    method: Literal["mean_teacher", "fixmatch"]
    weight: float = 1.0
    ramp_up: int = 0
    threshold: float = 0.95
    class_share: float = 0.0

    @property
    def of_logits(self) -> Loss:
        """The loss of an auxiliary head: that of images with labels."""
        return self.loss.of_logits

    def stats(self, logits: Array, labels: Array, out: Mapping[str, Any]) -> dict[str, PyTree]:
        """f32[b,h,w,k], i32[b,h,w] -> sums that add over examples, devices and micro-batches, see `losses.Loss`.

        Args:
            logits: of the network.
            labels: class indices or IGNORE.
            out: the network's second output, with the `Lesson` as "lesson" and the step i32[] as "step".
        """
        lesson: Lesson = out[LESSON]
        ramp = _ramp(out["step"], self.ramp_up)
        stats: dict[str, PyTree] = {"supervised": self.loss.stats(logits, labels, out)}
        if self.method == "mean_teacher":
            error = jnp.mean(jnp.square(label_maps(logits, self.loss.one_vs_rest) - lesson.target), axis=-1)
            return {**stats, "consistency": (ramp * jnp.sum(lesson.seen * error), jnp.sum(lesson.seen))}
        confidence, taught = jnp.max(lesson.target, axis=-1), jnp.argmax(lesson.target, axis=-1)
        pixel = ramp * lesson.seen * self._cross_entropy(logits, taught)
        if self.class_share:
            return {**stats, "bins": _in_bins(confidence, taught, lesson, pixel)}
        sure = lesson.seen * (confidence >= self.threshold)
        seen = jnp.sum(lesson.seen)
        return {**stats, "consistency": (jnp.sum(sure * pixel), seen), "confident": (jnp.sum(sure), seen)}

    def value(self, stats: Mapping[str, PyTree]) -> jax.Array:
        """Summed stats -> f32[]."""
        return self.loss.value(stats["supervised"]) + self.weight * self._means(stats)["consistency"]

    def report(self, stats: Mapping[str, PyTree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> `value`, and the value of each part.

        The parts are the terms of `loss`, "consistency" (the term with `weight`, with its ramp), and for fixmatch
        "confident", the share of the pixels that teach.
        """
        return self.value(stats), {**self.loss.values(stats["supervised"]), **self._means(stats)}

    def _cross_entropy(self, logits: Array, classes: jax.Array) -> jax.Array:
        """f32[b,h,w,k], i32[b,h,w] -> f32[b,h,w], the cross-entropy of each pixel with a class."""
        of_pixel = binary_cross_entropy if self.loss.one_vs_rest else cross_entropy
        each, _ = jax.vmap(of_pixel)(logits.reshape(-1, logits.shape[-1]), classes.reshape(-1))
        return each.reshape(classes.shape)

    def _means(self, stats: Mapping[str, PyTree]) -> dict[str, jax.Array]:
        if "bins" not in stats:
            return {name: divide(*part) for name, part in stats.items() if name != "supervised"}
        sums, counts = stats["bins"]
        # A bin teaches if it is above the threshold, or those above it hold less than the share of the class.
        above = jnp.cumsum(counts[:, ::-1], axis=1)[:, ::-1] - counts
        balanced = above < self.class_share * jnp.sum(counts, axis=1, keepdims=True)
        confident = jnp.arange(_BINS)[None] >= math.ceil(round(self.threshold * _BINS, 6))
        teaches = jax.lax.stop_gradient(balanced | confident)
        seen = jnp.sum(counts)
        taught = {"consistency": sums, "confident": counts}
        return {name: divide(jnp.sum(jnp.where(teaches, each, 0.0)), seen) for name, each in taught.items()}


def _in_bins(confidence: jax.Array, classes: jax.Array, lesson: Lesson, pixel: jax.Array) -> PyTree:
    """Returns the sums f32[c,bins] of a loss f32[b,h,w] and of the pixels, by class and confidence.

    Each image is added up alone first: a float32 that counts one by one stays at 2^24.
    """
    shape = (lesson.target.shape[-1], _BINS)
    place = classes * _BINS + jnp.clip(jnp.floor(confidence * _BINS).astype(jnp.int32), 0, _BINS - 1)

    def total(place: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.zeros(math.prod(shape)).at[place.reshape(-1)].add(values.reshape(-1)).reshape(shape)

    return tuple(jnp.sum(jax.vmap(total)(place, values), axis=0) for values in (pixel, lesson.seen))


def _ramp(step: jax.Array, steps: int) -> jax.Array:
    """Returns f32[], the factor of the weight at a step."""
    if not steps:
        return jnp.float32(1.0)
    return jnp.exp(-5.0 * jnp.square(1.0 - jnp.minimum(step / steps, 1.0)))

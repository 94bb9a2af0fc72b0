"""Adversarial training: a discriminator of label maps adds its terms to the pixel loss.

A second network, the discriminator D, learns to distinguish true label maps from those of the segmenter S; S learns to
produce maps that D classifies as true (Luc et al. 2016, "Semantic Segmentation using Adversarial Networks"). D
classifies every pixel, so that S can also learn from images without labels (Hung et al. 2018, "Adversarial Learning
for Semi-Supervised Semantic Segmentation").

`make_train_step` takes a `SegmenterWithDiscriminator` as its model and an `AdversarialLoss` as its loss:

- The parameters of D are a child "discriminator" beside the segmenter's children, so that one `TrainState` and one
  checkpoint hold both networks. The optimiser of each network is chosen by that name. Evaluation applies the segmenter
  alone and does not read D's parameters.
- The loss is the sum of the losses of S and D. The terms of S take D's parameters as constants, and the terms of D
  take S's output as a constant, so the gradient of the sum holds both gradients: simultaneous updates from one forward
  pass of S. All terms are pairs of sum and weight, so they are exact over devices and micro-batches like any loss.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.losses import Loss, SumWeight, binary_cross_entropy, cross_entropy, divide, label_maps
from jaxseg.losses.pixels import one_hot
from jaxseg.metrics import predict_classes
from jaxseg.nn import Conv, crop_to, pad_to_multiple, resize
from jaxseg.nn.conv import near_zero
from jaxseg.nn.draws import initialise
from jaxseg.state import Learner, TrainState
from jaxseg.types import DISCRIMINATOR, Array, Key, PyTree, ignore_label


class Discriminator(nn.Module):
    """f[b,h,w,c] -> f32[b,h,w]: for each pixel, the logit that the label map is true there; any h and w.

    4x4 convolutions of stride 2 with leaky ReLUs between them and no norms, then bilinear up-sampling to the map's
    size (Hung 2018, sections 3.2 and 4.1). Luc 2016 (section 3.2) compares fields of view of the output.

    Attributes:
        widths: channels of each convolution except the last, which has one.
        dtype: compute dtype.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        x, size = pad_to_multiple(maps, 2 ** (len(self.widths) + 1))
        height, width = x.shape[1:3]
        for i, features in enumerate(self.widths):
            x = Conv(features, 4, stride=2, padding=1, dtype=self.dtype, name=f"conv{i + 1}")(x)
            x = jax.nn.leaky_relu(x, 0.2)
        x = Conv(1, 4, stride=2, padding=1, kernel_init=near_zero, dtype=self.dtype, name="head")(x)
        return crop_to(resize(x.astype(jnp.float32), (height, width)), size)[..., 0]


@dataclasses.dataclass(frozen=True)
class SegmenterWithDiscriminator:
    """A segmenter and the discriminator of its label maps, with the `init` and `apply` of one model (`state.Learner`).

    `out["discriminator"]` is a function that applies D: `judge(maps f32[b,h,w,c], frozen) -> f32[b,h,w]`; if `frozen`,
    D's parameters are constants.

    Attributes:
        segmenter: S, any model with the arguments of those in `jaxseg.models`, or a learner.
        discriminator: D.
        sees_image: whether the input of D is the label map and the image together, a(x, y) of Luc 2016, equation 1.
    """

    segmenter: Learner
    discriminator: nn.Module
    sees_image: bool = False

    def init(self, rngs: Mapping[str, Key], image: jax.Array, **arguments: Any) -> dict[str, PyTree]:
        """f32[b,h,w,c] -> the segmenter's variables, with D's parameters under params/discriminator."""
        variables = initialise(self.segmenter, rngs, image, **arguments)
        logits, _ = jax.eval_shape(lambda: self.segmenter.apply(variables, image, train=False))
        maps = self._with_image(jnp.zeros((*logits.shape[:-1], max(2, logits.shape[-1])), jnp.float32), image)
        params = initialise(self.discriminator, {"params": jax.random.fold_in(rngs["params"], 1)}, maps)["params"]
        return {**variables, "params": {**variables["params"], DISCRIMINATOR: params}}

    def apply(self, variables: Mapping[str, PyTree], image: jax.Array, **arguments: Any) -> Any:
        """f32[b,h,w,c] -> ((logits, out), changed variables), as `segmenter.apply` returns with `mutable`."""
        trained = variables["params"][DISCRIMINATOR]
        (logits, out), changed = self.segmenter.apply(without_discriminator(variables), image, **arguments)

        def judge(maps: jax.Array, frozen: bool) -> jax.Array:
            params = jax.lax.stop_gradient(trained) if frozen else trained
            return cast(jax.Array, self.discriminator.apply({"params": params}, self._with_image(maps, image)))

        return (logits, {**out, DISCRIMINATOR: judge}), changed

    def _with_image(self, maps: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.concatenate([maps, image.astype(maps.dtype)], axis=-1) if self.sees_image else maps


def without_discriminator(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns the variables of the segmenter alone."""
    params = {name: child for name, child in variables["params"].items() if name != DISCRIMINATOR}
    return {**variables, "params": params}


def segmenter_of(state: TrainState) -> TrainState:
    """Returns the state with the segmenter's parameters alone; an equal state if there is no discriminator."""

    def drop(params: PyTree) -> PyTree:
        return None if params is None else without_discriminator({"params": params})["params"]

    return dataclasses.replace(state, params=drop(state.params), ema_params=drop(state.ema_params))


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """The loss of a `SegmenterWithDiscriminator` (an `objective.Objective`): the losses of S and of D, added.

    With y the true label maps and p those of S:

        S: loss + weight·BCE(D(p), 1) + unlabelled·BCE(D(p), 1) + semi·CE(S, argmax p where σ(D(p)) > threshold)
        D: (BCE(D(y), 1) + BCE(D(p), 0)) / 2

    An image is unlabelled if all its labels are IGNORE. The last two terms of S are means over all pixels of the
    unlabelled images (Hung 2018, section 3.3 and equation 5), and are zero before the step `unlabelled_from`, since S
    and D are not accurate enough to learn from at first. The other terms, except the pixel loss, are means over
    labelled pixels. S's adversarial term is the form that does not saturate (Luc 2016, below equation 2; Hung 2018,
    equation 4). Ignored pixels of a labelled image are zero in y and in p, so that D cannot distinguish the two by
    them.

    Attributes:
        loss: the pixel loss of S.
        weight: λ_adv, weight of the adversarial term of labelled images (Hung: .01).
        unlabelled_weight: λ_adv, weight of the adversarial term of unlabelled images (Hung: .001).
        semi_weight: λ_semi, weight of cross-entropy with S's own classes where D classifies them as true (Hung: .1);
            of binary cross-entropy if `loss` trains one sigmoid for each class.
        semi_threshold: T_semi, the probability above which D classifies them as true (Hung: .2).
        unlabelled_from: steps without the terms of unlabelled images (Hung: 5000 of 20,000).
        truth_scaling: 0: true label maps are one-hot. Above 0: they are S's own, with the true class raised to at least
            this probability and the others lowered in proportion, so that D cannot recognise true maps by their values
            of 0 and 1 (τ of Luc 2016, section 3.2, "Scaling": .9).
    """

    loss: Loss
    weight: float = 0.01
    unlabelled_weight: float = 0.0
    semi_weight: float = 0.0
    semi_threshold: float = 0.2
    unlabelled_from: int = 0
    truth_scaling: float = 0.0

    @property
    def of_logits(self) -> Loss:
        """The loss of an auxiliary head: the terms of the pixel loss that read logits alone."""
        return self.loss.of_logits

    def stats(self, logits: Array, labels: Array, out: Mapping[str, Any]) -> dict[str, PyTree]:
        """f32[b,h,w,k], i32[b,h,w] -> sums that add over examples, devices and micro-batches, see `losses.Loss`.

        Args:
            logits: of S.
            labels: class indices or IGNORE.
            out: the second output of `SegmenterWithDiscriminator.apply`; if `unlabelled_from` is set, with the step
                i32[] added as "step".
        """
        judge: Callable[[jax.Array, bool], jax.Array] = out[DISCRIMINATOR]
        ignored = ignore_label(logits.shape[-1])
        labelled = (labels != ignored).astype(jnp.float32)
        empty = jnp.max(labelled, axis=(1, 2), keepdims=True) == 0
        visible = jnp.where(empty, 1.0, labelled)[..., None]
        predicted = label_maps(logits, self.loss.one_vs_rest)
        fixed = jax.lax.stop_gradient(predicted)
        verdict = judge(predicted * visible, True)
        stats = {
            "supervised": self.loss.stats(logits, labels, out),
            "fool": _mean_bce(verdict, True, labelled),
            "true": _mean_bce(judge(true_maps(labels, fixed, self.truth_scaling), False), True, labelled),
            "false": _mean_bce(judge(fixed * visible, False), False, labelled),
        }
        if self.unlabelled_weight or self.semi_weight:
            unlabelled = jnp.broadcast_to(empty, labels.shape)
            if self.unlabelled_from:
                unlabelled &= out["step"] >= self.unlabelled_from
            trusted = unlabelled & (jax.nn.sigmoid(verdict) > self.semi_threshold)
            pseudo_labels = jnp.where(trusted, predict_classes(logits), ignored)
            stats["unlabelled"] = _mean_bce(verdict, True, unlabelled.astype(jnp.float32))
            taught = binary_cross_entropy if self.loss.one_vs_rest else cross_entropy
            stats["semi"] = taught(logits, pseudo_labels)
        return stats

    def value(self, stats: Mapping[str, PyTree]) -> jax.Array:
        """Summed stats -> f32[], the sum of the losses of S and D."""
        mean = self._means(stats)
        return self._of_segmenter(stats, mean) + 0.5 * (mean["true"] + mean["false"])

    def report(self, stats: Mapping[str, PyTree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> the loss f32[] of S, and the value of each part.

        The parts are the terms of the pixel loss, "adversarial" (the term with `weight`), "adversarial_unlabelled" and
        "semi" where these have weights, and "discriminator", the loss of D.
        """
        mean = self._means(stats)
        parts = {**self.loss.values(stats["supervised"]), "adversarial": mean["fool"]}
        if "semi" in mean:
            parts |= {"adversarial_unlabelled": mean["unlabelled"], "semi": mean["semi"]}
        parts["discriminator"] = 0.5 * (mean["true"] + mean["false"])
        return self._of_segmenter(stats, mean), parts

    def _means(self, stats: Mapping[str, PyTree]) -> dict[str, jax.Array]:
        return {name: divide(*part) for name, part in stats.items() if name != "supervised"}

    def _of_segmenter(self, stats: Mapping[str, PyTree], mean: Mapping[str, jax.Array]) -> jax.Array:
        value = self.loss.value(stats["supervised"]) + self.weight * mean["fool"]
        if "semi" in mean:
            value += self.unlabelled_weight * mean["unlabelled"] + self.semi_weight * mean["semi"]
        return value


def true_maps(labels: Array, predicted: jax.Array, scaling: float = 0.0) -> jax.Array:
    """i32[b,h,w], f32[b,h,w,c] -> f32[b,h,w,c]: one-hot labels, or `predicted` scaled; 0 where a label is IGNORE.

    Args:
        labels: class indices or IGNORE.
        predicted: the label maps of S.
        scaling: 0: one-hot; above 0: `AdversarialLoss.truth_scaling`.
    """
    truth = one_hot(labels, predicted.shape[-1])
    if scaling == 0.0:
        return truth.astype(jnp.float32)
    right = jnp.sum(jnp.where(truth, predicted, 0.0), axis=-1, keepdims=True)
    raised = jnp.maximum(right, scaling)
    others = jnp.where(right < 1.0, (1.0 - raised) / jnp.where(right < 1.0, 1.0 - right, 1.0), 0.0)
    return jnp.where(
        (labels != ignore_label(truth.shape[-1]))[..., None], jnp.where(truth, raised, predicted * others), 0.0
    )


def _mean_bce(logits: jax.Array, real: bool, weight: jax.Array) -> SumWeight:
    """f32[b,h,w] -> binary cross-entropy with the target `real` at every pixel, as sum and weight."""
    return jnp.sum(weight * jax.nn.softplus(-logits if real else logits)), jnp.sum(weight)

"""Weighted sums of losses by name: `make_loss` and the `Loss` it returns."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.errors import nearest
from jaxseg.losses.boundary import boundary, boundary_f1
from jaxseg.losses.focal import focal
from jaxseg.losses.hard import ohem, sampled_cross_entropy
from jaxseg.losses.lovasz import lovasz
from jaxseg.losses.mask_classification import mask_classification_from_stats, mask_classification_stats
from jaxseg.losses.options import checked_option, checked_weights
from jaxseg.losses.overlap import (
    dice_from_stats,
    dice_stats,
    generalised_dice_from_stats,
    jaccard_from_stats,
    overlap_stats,
    tversky_from_stats,
)
from jaxseg.losses.pixels import SumWeight, divide
from jaxseg.losses.reconstruction import reconstruction
from jaxseg.losses.semantic_encoding import semantic_encoding
from jaxseg.losses.terms import binary_cross_entropy, cross_entropy, mse
from jaxseg.types import IGNORE, Array, PyTree


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of a sum of losses: `weight * name(logits, labels, **options)`."""

    name: str
    weight: float
    options: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Loss:
    """A weighted sum of losses in two halves, so that there is one division after all reductions. See `make_loss`.

    total = psum of `stats` over devices and micro-batches; then `value(total)` is the loss of the whole batch, and the
    gradient of `value` at the total, pulled back through every `stats`, is the whole batch's gradient.
    """

    terms: tuple[Term, ...]
    num_classes: int

    def stats(
        self,
        logits: Array,
        labels: Array,
        out: Mapping[str, Any] | None = None,
        out_labels: Array | None = None,
        inside: Array | None = None,
    ) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> {term: pytree of f32} that adds over pixels, examples, devices, micro-batches.

        Args:
            logits: f32[b,h,w,k].
            labels: i32[b,h,w].
            out: the model's further outputs, for the terms that read one of them instead of the logits.
            out_labels: i32[b,y,x], the labels for those terms, where the logits have been brought to another size than
                the image's; None: `labels`.
            inside: bool[b,y,x], False for pixels that fill images up, for the terms that compare images; None: none do.

        Raises:
            ValueError: if the shapes disagree, k is not `num_classes`, or a term reads what `out` does not have.
        """
        if logits.shape[-1] != self.num_classes:
            raise ValueError(f"The loss is for {self.num_classes} classes, got logits of shape {logits.shape}.")
        stats = {}
        for term in self.terms:
            kind = _TERMS[term.name]
            if kind.reads and kind.reads not in (out or {}):
                raise ValueError(
                    f"The loss {term.name} reads the output {kind.reads!r}, which this model has not; "
                    f"the model {kind.network!r} has it."
                )
            if kind.of_images:
                stats[term.name] = kind.stats(term, out[kind.reads], inside)
            elif kind.reads:
                stats[term.name] = kind.stats(term, out[kind.reads], labels if out_labels is None else out_labels)
            else:
                stats[term.name] = kind.stats(term, logits, labels)
        return stats

    @property
    def needs_labels(self) -> bool:
        """False where a term compares images, so that those without a label have a loss too."""
        return not any(_TERMS[t.name].of_images for t in self.terms)

    @property
    def of_logits(self) -> "Loss":
        """The terms that read logits alone: the loss of an auxiliary head."""
        return dataclasses.replace(self, terms=tuple(t for t in self.terms if not _TERMS[t.name].reads))

    def values(self, stats: PyTree) -> dict[str, jax.Array]:
        """The value f32[] of each term by its name, before its weight."""
        return {t.name: divide(*_TERMS[t.name].finish(t, stats[t.name])) for t in self.terms}

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[], the weighted sum of the terms; 0 with zero gradient if all pixels are IGNORE."""
        values = self.values(stats)
        return sum((t.weight * values[t.name] for t in self.terms), jnp.float32(0.0))

    def __call__(self, logits: Array, labels: Array) -> jax.Array:
        """f32[b,h,w,k], i32[b,h,w] -> f32[], the loss of one batch in one piece."""
        return self.value(self.stats(logits, labels))


def make_loss(
    terms: str = "cross_entropy",
    *,
    num_classes: int,
    class_weights: Sequence[float] | Array | None = None,
    label_smoothing: float = 0.0,
    args: Mapping[str, Mapping[str, Any]] | None = None,
) -> Loss:
    """Returns the loss that `terms` spells, such as "cross_entropy + 0.5 * dice".

    Args:
        terms: a sum of the losses of `jaxseg.losses` by name, each once and with a factor of its own.
        num_classes: k, the number of logits; 1 is binary.
        class_weights: k numbers (2 for k = 1), for the pixel losses among the terms.
        label_smoothing: in [0, 1), for the cross-entropies among the terms.
        args: further arguments of single terms: {"tversky": {"alpha": 0.3, "beta": 0.7}}.

    Raises:
        ValueError: for an unknown term or argument (naming the nearest), a spelling that cannot be read, class weights
            of a wrong number or sign, or weights or smoothing that no term takes.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ValueError(f"num_classes must lie in 1..{IGNORE} (label {IGNORE} means ignore), got {num_classes}.")
    common: dict[str, Any] = {}
    if class_weights is not None:
        common["class_weights"] = checked_weights(class_weights, max(num_classes, 2))
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
    if label_smoothing:
        common["label_smoothing"] = float(label_smoothing)
    weights = _parse_terms(terms)
    args = args or {}
    for name in args:
        if name not in weights:
            raise ValueError(f"The loss {terms!r} has no term {name!r} to give arguments to.{nearest(name, weights)}")
    for option in common:
        if not any(option in _TERMS[name].options for name in weights):
            raise ValueError(f"No term of the loss {terms!r} takes {option}.")
    built = []
    for name, weight in weights.items():
        known = _TERMS[name].options
        options = {key: value for key, value in common.items() if key in known}
        for key, value in (args[name] if name in args else {}).items():
            options[key] = checked_option(name, key, value, known, max(num_classes, 2))
        built.append(Term(name, weight, tuple(options.items())))
    return Loss(tuple(built), num_classes)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How the term of one name is computed: additive stats, and (sum, weight) from their total.

    `reads` names the output of the model that `stats` takes in place of the logits, and `network` the model of
    `jaxseg.models` that has it; empty: the logits, which all have. `of_images` says that images are compared: in place
    of labels `stats` takes which pixels are theirs, bool[b,y,x], or None.
    """

    stats: Callable[[Term, Any, Any], PyTree]
    finish: Callable[[Term, PyTree], SumWeight]
    options: tuple[str, ...]
    reads: str = ""
    network: str = ""
    of_images: bool = False


def _pixel_kind(function: Callable[..., SumWeight]) -> _Kind:
    """A loss whose (sum, weight) adds as it is: over pixels, or over images."""
    return _Kind(
        lambda term, logits, labels: function(logits, labels, **dict(term.options)),
        lambda term, stats: stats,
        _keywords(function),
    )


def _set_kind(sums: Callable[..., PyTree], ratio: Callable[..., SumWeight]) -> _Kind:
    """A loss that is a ratio of sums: of the batch's, formed after they have been added, or of each image's own."""
    above, below = _keywords(sums), _keywords(ratio)

    def stats(term: Term, logits: Array, labels: Array) -> PyTree:
        added = sums(logits, labels, **_pick(term, above))
        return ratio(added, **_pick(term, below)) if ("per_image", True) in term.options else added

    def finish(term: Term, stats: PyTree) -> SumWeight:
        return stats if ("per_image", True) in term.options else ratio(stats, **_pick(term, below))

    return _Kind(stats, finish, above + below)


def _keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY)


def _reading_kind(function: Callable[..., SumWeight], network: str, of_images: bool = False) -> _Kind:
    """A loss without options that reads the output of its own name, which `network` has."""
    return _Kind(
        lambda term, output, other: function(output, other),
        lambda term, stats: stats,
        (),
        reads=function.__name__,
        network=network,
        of_images=of_images,
    )


_TERMS = {
    "binary_cross_entropy": _pixel_kind(binary_cross_entropy),
    "boundary": _pixel_kind(boundary),
    "boundary_f1": _pixel_kind(boundary_f1),
    "cross_entropy": _pixel_kind(cross_entropy),
    "dice": _set_kind(dice_stats, dice_from_stats),
    "focal": _pixel_kind(focal),
    "generalised_dice": _set_kind(overlap_stats, generalised_dice_from_stats),
    "jaccard": _set_kind(overlap_stats, jaccard_from_stats),
    "lovasz": _pixel_kind(lovasz),
    "mask_classification": _Kind(
        lambda term, queries, labels: mask_classification_stats(queries, labels, **dict(term.options)),
        lambda term, stats: mask_classification_from_stats(
            stats, **_pick(term, ("class_weight", "mask_weight", "dice_weight"))
        ),
        ("class_weight", "mask_weight", "dice_weight", "no_object"),
        reads="queries",
        network="mask2former",
    ),
    "mse": _pixel_kind(mse),
    "ohem": _pixel_kind(ohem),
    "reconstruction": _reading_kind(reconstruction, "autoencoder", of_images=True),
    "sampled_cross_entropy": _pixel_kind(sampled_cross_entropy),
    "semantic_encoding": _reading_kind(semantic_encoding, "encnet"),
    "tversky": _set_kind(overlap_stats, tversky_from_stats),
}
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:(?P<weight>{_NUMBER})\s*\*\s*)?(?P<name>[A-Za-z_]\w*)\s*(?P<more>\+|$)")


def _pick(term: Term, names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in term.options if key in names}


def _parse_terms(text: str) -> dict[str, float]:
    """Reads "a + 0.5 * b" as {a: 1.0, b: 0.5}."""
    weights: dict[str, float] = {}
    position, more = 0, True
    while more:
        match = _TERM.match(text, position)
        if match is None:
            raise ValueError(f'The loss {text!r} cannot be read; write a sum such as "cross_entropy + 0.5 * dice".')
        name = match["name"]
        if name not in _TERMS:
            raise ValueError(f"There is no loss {name!r}.{nearest(name, _TERMS)}")
        if name in weights:
            raise ValueError(f"The loss {text!r} names {name} twice; give it one factor.")
        weights[name] = float(match["weight"] or 1.0)
        position, more = match.end(), match["more"] == "+"
    return weights

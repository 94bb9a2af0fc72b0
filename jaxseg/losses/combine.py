"""Weighted sums of losses by name: `make_loss` and the `Loss` it returns."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.arguments import BelowOne, NotNegative, checked, within
from jaxseg.errors import ArgumentError, counted
from jaxseg.losses.balance import logit_shift
from jaxseg.losses.class_sample import ClassSample
from jaxseg.losses.definition import GUIDE, Definition
from jaxseg.losses.hard import SAMPLES
from jaxseg.losses.hierarchy import Levels, level_shares
from jaxseg.losses.parsing import checked_options, parse_terms, require_taken
from jaxseg.losses.pixels import ClassWeights, checked_weights, divide
from jaxseg.losses.pixels import check as check_labels
from jaxseg.losses.possible import known
from jaxseg.losses.strips import MANY_CLASSES, Sums, add_in_strips
from jaxseg.losses.table import LOSSES
from jaxseg.sets import members
from jaxseg.types import IGNORE_16, MOST_IN_SETS, Array, PyTree


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of a sum of losses: `weight * name(logits, labels, **options)`."""

    name: str
    weight: float
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def definition(self) -> Definition:
        """The two halves of the loss."""
        return LOSSES[self.name]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A weighted sum of losses in two halves, so that there is one division, after all reductions. See `make_loss`.

    With total = the sum of `stats` over devices and micro-batches, `value(total)` is the loss of the whole batch. The
    gradient of `value` at the total, propagated back through every `stats`, is the gradient of the whole batch.

    Attributes:
        terms: the parts of the sum.
        num_classes: k.
        chosen: the s classes that the logits f32[b,h,w,s] given to `stats` belong to, for a loss with `class_samples`;
            None: the logits are those of all classes.
        multilabel: whether labels are sets of classes (`jaxseg.sets`): each term is then that of one logit, for
            each class.
        class_weights: the weight of each class of the sets; None: all 1. Of other labels it is in the terms' options.
        partly: whether sets may say of single classes that they are unknown; else such a label makes the loss NaN.
    """

    terms: tuple[Term, ...]
    num_classes: int
    chosen: ClassSample | None = dataclasses.field(default=None, compare=False)
    multilabel: bool = False
    class_weights: tuple[float, ...] | None = None
    partly: bool = False

    def stats(
        self,
        logits: Array,
        labels: Array,
        out: Mapping[str, Any] | None = None,
        out_labels: Array | None = None,
        inside: Array | None = None,
        covered: Array | None = None,
    ) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] -> {term: pytree of f32} that adds over pixels, examples, devices, micro-batches.

        Args:
            logits: f32[b,h,w,k].
            labels: i32[b,h,w].
            out: the model's other outputs, for the terms that read one of them instead of the logits.
            out_labels: i32[b,y,x], the labels for those terms, needed where the logits were resized and no longer have
                the image's size; None: `labels`.
            inside: bool[b,y,x], False for pixels that pad an image, for the terms that compare images; None: all True.
            covered: bool[b,h,w], False for pixels of the labels that pad an image, for the terms that unlabelled pixels
                add to; None: all True.

        Raises:
            ValueError: if the shapes disagree, k is not `num_classes`, or `out` lacks an output that a term reads.
        """
        if self.chosen is not None and logits.shape[-1] != len(self.chosen.classes):
            raise ValueError(
                f"The loss samples {counted(len(self.chosen.classes), 'class')}, but the network gives logits of shape "
                f"{logits.shape}: it cannot compute some classes alone."
            )
        if self.chosen is None and logits.shape[-1] != self.num_classes:
            raise ValueError(
                f"The loss is for {counted(self.num_classes, 'class')}, got logits of shape {logits.shape}."
            )
        if self.multilabel:
            return self._stats_of_sets(logits, labels)
        out = out or {}
        possible, labels = labels, known(labels, max(self.num_classes, 2)) if self.takes_possible else labels
        strips = self._in_strips if labels.ndim > 1 else ()
        # A term that unlabelled pixels add to has a value for those of an image alone: any class says that one is none.
        real = labels if covered is None else jnp.where(covered, labels, 0)
        if covered is not None:
            strips = tuple(term for term in strips if not term.definition.unlabelled)
        stats = {}
        for term in self.terms:
            loss = term.definition
            if loss.reads and loss.reads not in out:
                raise ValueError(
                    f"The loss {term.name} reads the output {loss.reads!r}, which this model does not have; "
                    f"the model {' or '.join(map(repr, loss.networks))} has it."
                    if loss.networks
                    else f"The loss {term.name} looks at the image: give out={{{GUIDE!r}: (image, logits)}}."
                )
            if term in strips:
                continue
            if loss.compares_images or loss.reads == GUIDE:
                target = inside
            elif loss.reads and out_labels is not None:
                target = known(out_labels, max(self.num_classes, 2)) if self.takes_possible else out_labels
            elif loss.unlabelled:
                target = real
            else:
                target = possible if loss.takes_possible else labels
            source = out[loss.reads] if loss.reads else logits
            given = () if self.chosen is None or loss.reads else (self.chosen,)
            stats[term.name] = loss.stats(source, target, dict(term.options), *given)
        if strips:
            check_labels(logits, labels)
            stats |= add_in_strips(_sums_of(strips), jnp.asarray(logits), jnp.asarray(labels))
        return stats

    def _stats_of_sets(self, logits: Array, labels: Array) -> PyTree:
        """f32[b,h,w,k], i32[b,h,w] of sets -> {term: pytree of f32[k,...], the sums of each class}."""
        check_labels(logits, labels)

        def of_class(z: jax.Array, y: jax.Array) -> PyTree:
            return {term.name: term.definition.stats(z[..., None], y, dict(term.options)) for term in self.terms}

        return jax.vmap(of_class, in_axes=-1)(jnp.asarray(logits), members(labels, self.num_classes, self.partly))

    @property
    def _in_strips(self) -> tuple[Term, ...]:
        """The terms whose sums are added in strips of pixels: those of many classes that add over pixels."""
        if self.num_classes < MANY_CLASSES or self.chosen is not None:
            return ()
        return tuple(term for term in self.terms if term.definition.adds_pixels(dict(term.options)))

    @property
    def needs_labels(self) -> bool:
        """False if a term compares images: images without a label then have a loss too."""
        return not any(term.definition.compares_images for term in self.terms)

    @property
    def learns_unlabelled(self) -> bool:
        """True if a term has a value for pixels without a label, so that images without labels teach something."""
        return any(term.definition.unlabelled for term in self.terms)

    @property
    def takes_possible(self) -> bool:
        """True if a term reads the labels of pixels that may be of a class; see `jaxseg.losses.possible`."""
        return any(term.definition.takes_possible for term in self.terms)

    @property
    def one_vs_rest(self) -> bool:
        """How `losses.probabilities` reads the logits that this loss trains: True: one sigmoid for each class.

        One such term is enough: it fixes every logit, while a softmax beside it only fixes their differences.
        """
        if self.multilabel:
            return True
        of_logits = (term for term in self.terms if not term.definition.reads)
        return any(term.definition.has_sigmoids(dict(term.options)) for term in of_logits)

    @property
    def class_samples(self) -> int | None:
        """The number of classes whose logits a training step computes (`sample_classes`); None: all classes."""
        for term in self.terms:
            options = {"samples": SAMPLES, **dict(term.options)}
            if term.definition.samples_classes(options):
                return min(options["samples"], self.num_classes)
        return None

    @property
    def of_logits(self) -> "Loss":
        """The terms that read only logits: the loss of an auxiliary head."""
        return dataclasses.replace(self, terms=tuple(term for term in self.terms if not term.definition.reads))

    def values(self, stats: PyTree) -> dict[str, jax.Array]:
        """The value f32[] of each term by its name, before its weight."""
        return {t.name: divide(*self._finish(t, stats[t.name])) for t in self.terms}

    def _finish(self, term: Term, stats: PyTree) -> tuple[jax.Array, jax.Array]:
        """Returns (sum, weight) of the total of a term's sums; of sets, both are added over the classes, weighted."""
        if not self.multilabel:
            return term.definition.finish(stats, dict(term.options))
        sums, weights = jax.vmap(lambda of_class: term.definition.finish(of_class, dict(term.options)))(stats)
        of_classes = jnp.asarray(self.class_weights or (1.0,) * self.num_classes, jnp.float32)
        return jnp.sum(of_classes * sums), jnp.sum(of_classes * weights)

    def value(self, stats: PyTree) -> jax.Array:
        """Summed stats -> f32[], the weighted sum of the terms; 0 with zero gradient if all pixels are IGNORE."""
        values = self.values(stats)
        return sum((t.weight * values[t.name] for t in self.terms), jnp.float32(0.0))

    def report(self, stats: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed stats -> (`value`, `values`): what training logs."""
        return self.value(stats), self.values(stats)

    def __call__(self, logits: Array, labels: Array) -> jax.Array:
        """f32[b,h,w,k], i32[b,h,w] -> f32[], the loss of one undivided batch."""
        return self.value(self.stats(logits, labels))


def _sums_of(terms: tuple[Term, ...]) -> Sums:
    """Returns the function (logits, labels) -> {term: its sums}."""

    def sums(logits: jax.Array, labels: jax.Array) -> PyTree:
        return {term.name: term.definition.stats(logits, labels, dict(term.options)) for term in terms}

    return sums


@checked
def make_loss(
    terms: str = "cross_entropy",
    *,
    num_classes: Annotated[int, within(1, IGNORE_16)],
    class_weights: ClassWeights = None,
    label_smoothing: BelowOne = 0.0,
    class_prior: ClassWeights = None,
    logit_adjustment: NotNegative = 0.0,
    levels: Levels = (),
    args: Mapping[str, Mapping[str, Any]] | None = None,
    multilabel: bool = False,
    partly: bool = False,
) -> Loss:
    """Returns the loss described by `terms`, such as "cross_entropy + 0.5 * dice".

    Args:
        terms: a sum of losses of `jaxseg.losses` by name, each at most once and with an optional factor.
        num_classes: k, the number of logits; 1 is binary. The label `types.ignore_label(k)` belongs to no class.
        class_weights: k numbers (2 for k = 1), for the pixel losses among the terms.
        label_smoothing: in [0, 1), for the cross-entropies among the terms.
        class_prior: k numbers (2 for k = 1), the share of each class among the training pixels, for the next.
        logit_adjustment: τ of `logit_shift`, for the softmax cross-entropies among the terms; 0: none.
        levels: the groups of the classes at each level, for `hierarchical_cross_entropy` if it is a term.
        args: further arguments of individual terms: {"tversky": {"alpha": 0.3, "beta": 0.7}}.
        multilabel: a pixel may have several of the k classes, or none: labels are sets (`jaxseg.sets`). Class
            weights then are k numbers that weigh the classes in every term; those in `args` are of a class that is
            absent and one that is there.
        partly: single classes may be unknown at a pixel, of at most 15 (with `multilabel`); else a label that says so
            makes the loss NaN, as every label outside the sets does.

    Raises:
        ArgumentError: for an unknown term or argument (naming the nearest), terms that cannot be parsed, class weights
            or a prior with a wrong count or sign, or weights, smoothing or an adjustment that no term takes.
    """
    classes = max(num_classes, 2)
    if multilabel:
        of_softmax = bool(logit_adjustment or levels)
        loss = _loss_of_sets(terms, num_classes, class_weights, label_smoothing, of_softmax, args)
        return dataclasses.replace(loss, partly=partly)
    common: dict[str, Any] = {}
    if class_weights is not None:
        common["class_weights"] = checked_weights(class_weights, classes)
    if label_smoothing:
        common["label_smoothing"] = label_smoothing
    if logit_adjustment and class_prior is not None:
        prior = np.array(checked_weights(class_prior, classes, "class_prior"))
        common["logit_shift"] = tuple(logit_shift(prior, logit_adjustment).tolist())
    weights, args = parse_terms(terms), args or {}
    require_taken(terms, weights, common, args)
    if levels:  # they describe the classes, and no term needs to take them
        common["levels"] = levels
    built = []
    for name, weight in weights.items():
        shared = {key: value for key, value in common.items() if key in LOSSES[name].options}
        own = checked_options(name, args[name], classes) if name in args else {}
        if "levels" in shared | own:
            given = shared | own
            level_shares(given["levels"], given["level_weights"] if "level_weights" in given else (), classes)
        built.append(Term(name, weight, tuple((shared | own).items())))
    loss = Loss(tuple(built), num_classes)
    if loss.class_samples is not None:
        _check_sampling(loss)
    return loss


def _loss_of_sets(
    terms: str,
    num_classes: int,
    class_weights: ClassWeights,
    label_smoothing: float,
    of_softmax: bool,
    args: Mapping[str, Mapping[str, Any]] | None,
) -> Loss:
    """Returns the loss of labels that are sets; `of_softmax`: an adjustment or a hierarchy is given, which has none."""
    if not 2 <= num_classes <= MOST_IN_SETS:
        raise ArgumentError(
            f"A pixel may have several of 2 to {MOST_IN_SETS} classes, and there are {counted(num_classes, 'class')}."
        )
    weights, args = parse_terms(terms), args or {}
    able = ", ".join(name for name, loss in LOSSES.items() if loss.multilabel)
    for name in weights:
        if not LOSSES[name].multilabel:
            raise ArgumentError(
                f"The term {name} is for pixels of one class, and here a pixel may have several (multi-label): terms "
                f"with a sigmoid for each class are {able}."
            )
    if of_softmax:
        raise ArgumentError(
            "logit_adjustment and a hierarchy change a softmax over the classes, and where a pixel may have several "
            "(multi-label) each class has a sigmoid; leave them out."
        )
    common = {"label_smoothing": label_smoothing} if label_smoothing else {}
    require_taken(terms, weights, common, args)
    built = []
    for name, weight in weights.items():
        own = checked_options(name, args[name], 2) if name in args else {}
        if "include_background" in own:
            raise ArgumentError(f"{name}.include_background is for pixels of one class; sets have no background.")
        shared = {key: value for key, value in common.items() if key in LOSSES[name].options}
        built.append(Term(name, weight, tuple((shared | own).items())))
    of_classes = None if class_weights is None else checked_weights(class_weights, num_classes)
    return Loss(tuple(built), num_classes, multilabel=True, class_weights=of_classes)


def _check_sampling(loss: Loss) -> None:
    """Raises ArgumentError if a loss of sampled classes has too few of them, or a term that needs all logits."""
    if loss.num_classes == 1 or loss.class_samples == 1:
        raise ArgumentError(
            "sampled_cross_entropy with sampling='uniform' needs at least two classes, and samples of at least 2; for "
            "a binary problem use cross_entropy."
        )
    for term in loss.terms:
        of_other = term.definition.reads and not term.definition.reads_classes
        if not (of_other or term.definition.samples_classes(dict(term.options))):
            raise ArgumentError(
                f"sampled_cross_entropy with sampling='uniform' trains on the logits of the sampled classes alone, but "
                f"the term {term.name} needs those of all classes; leave {term.name} out, or leave out sampling."
            )

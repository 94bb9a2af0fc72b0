"""The definition of a loss: one function for sums over a batch, and one that turns their total into (sum, weight)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxseg.arguments import annotations
from jaxseg.losses.class_sample import ClassSample
from jaxseg.losses.pixels import SumWeight
from jaxseg.types import PyTree


def unchanged(stats: SumWeight) -> SumWeight:
    """Returns (sum, weight) unchanged, for a loss whose sums already are its sum and weight."""
    return stats


GUIDE = "guide"
"""The output that every training step adds to those of the model: (image, logits) at the size of the image."""


@dataclass(frozen=True)
class Definition:
    """A loss in two halves, so that there is one division, after all reductions.

    The options of the loss are the keyword-only arguments of both functions; their annotations define the valid values
    (see `jaxseg.arguments`). With the option `per_image`, `ratio` is applied to the sums of each image, and the
    resulting (sum, weight) is added over images.

    Attributes:
        sums: (logits, labels, *, options) -> pytree of f32 that adds over pixels, examples, devices, micro-batches.
        ratio: (total of `sums`, *, options) -> (sum, weight); by default `sums` itself returns (sum, weight).
        reads: the output of the model that `sums` takes instead of the logits; empty: the logits.
        reads_classes: the output that `sums` reads holds the logits of the classes, beside something else.
        networks: the models of `jaxseg.models` that have this output.
        one_vs_rest: each class has a sigmoid of its own against all others, where there are several classes; a loss
            that has an option of this name is decided by that option. False: the probabilities are a softmax.
        compares_images: `sums` compares or judges images: it takes the mask of the pixels inside the images,
            bool[b,y,x] or None, instead of labels.
        trains_logits: the model makes its logits of the output that `sums` reads.
        by_pixel: `sums` adds over pixels, whichever image they belong to, so that it may be computed for some at a
            time.
        takes_possible: `sums` reads the labels 254 - c of pixels that may be of class c; every other loss takes them as
            IGNORE. See `jaxseg.losses.possible`.
        unlabelled: pixels without a label add to the loss too.
        multilabel: the loss for one logit is also that of each class where a pixel may have several; see
            `jaxseg.sets`.
    """

    sums: Callable[..., PyTree]
    ratio: Callable[..., SumWeight] = unchanged
    reads: str = ""
    reads_classes: bool = False
    networks: tuple[str, ...] = ()
    one_vs_rest: bool = False
    compares_images: bool = False
    trains_logits: bool = False
    by_pixel: bool = False
    takes_possible: bool = False
    unlabelled: bool = False
    multilabel: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """{name: annotation} of every option."""
        return annotations(self.sums) | annotations(self.ratio)

    def has_sigmoids(self, options: Mapping[str, Any]) -> bool:
        """Whether the loss with these options reads several logits as one sigmoid each."""
        return bool(options["one_vs_rest"]) if "one_vs_rest" in options else self.one_vs_rest

    def samples_classes(self, options: Mapping[str, Any]) -> bool:
        """Whether the loss with these options takes the logits of a `ClassSample` in training."""
        return "sampling" in options and options["sampling"] == "uniform"

    def adds_pixels(self, options: Mapping[str, Any]) -> bool:
        """Whether `stats` with these options adds over pixels, whichever image they belong to."""
        return self.by_pixel and not _per_image(options)

    def stats(self, source: Any, target: Any, options: Mapping[str, Any], *chosen: ClassSample) -> PyTree:
        """Returns the sums of `source` (logits, or the output that the loss reads) against `target`; they add.

        `chosen` is for a loss that takes the logits of sampled classes: the classes that they belong to.
        """
        added = self.sums(source, target, *chosen, **_of(self.sums, options))
        return self.ratio(added, **_of(self.ratio, options)) if _per_image(options) else added

    def finish(self, stats: PyTree, options: Mapping[str, Any]) -> SumWeight:
        """Returns (sum, weight) of the total of `stats`."""
        return stats if _per_image(options) else self.ratio(stats, **_of(self.ratio, options))


def _of(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    known = annotations(function)
    return {name: value for name, value in options.items() if name in known}


def _per_image(options: Mapping[str, Any]) -> bool:
    return "per_image" in options and options["per_image"]

"""The options of prediction that say how scores are read: a temperature, thresholds, or the likeliest classes alone."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from jaxseg.errors import ArgumentError, counted
from jaxseg.inference import temperature, thresholds
from jaxseg.inference.predictor import Predictor
from jaxseg.run.load import Run, require_one_class

NAMES = ("temperature", "thresholds", "top_k")
"""The options, as fields of the parsed ones."""

_NEED_ALL = ("probabilities", "crf", "regions", "uncertainty")  # options that read the probabilities of all classes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --temperature, --thresholds and --top-k."""
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="divide the logits by the temperature that evaluate --fit-temperature has kept with the run, so that "
        "probabilities fit how often they are right",
    )
    parser.add_argument(
        "--thresholds",
        action="store_true",
        help="use the thresholds that evaluate --fit-thresholds has kept with the run: a pixel has the class farthest "
        "above its threshold, and 255, no class, where none is above",
    )
    parser.add_argument(
        "--top-k",
        metavar="N",
        type=int,
        help="also write NAME.npz with the N likeliest classes of each pixel, `indices`, and their `probabilities` in "
        "float16: for many classes, of which --probabilities writes every one",
    )


def problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the options together; "" if nothing is."""
    if options.thresholds and (options.temperature or options.crf):
        other = "--temperature" if options.temperature else "--crf"
        return f"--thresholds are those of the network's own probabilities; they cannot be given with {other}"
    if options.top_k is not None:
        for name in _NEED_ALL:
            if getattr(options, name) not in (None, False, ""):
                return f"--top-k keeps the probabilities of few classes; it cannot be given with --{name}"
    return ""


def applied(predictor: Predictor, runs: Sequence[Run], options: argparse.Namespace) -> Predictor:
    """Returns the predictor that reads its scores as the options say.

    Raises:
        ArgumentError: for a --top-k that is not from 1 to the number of classes.
        ConfigError: as `temperature.read` and `thresholds.read` do.
    """
    if options.top_k is not None:
        require_one_class(runs[0], "--top-k")
    predictor = temperature.scaled(predictor, runs) if options.temperature else predictor
    predictor = thresholds.with_thresholds(predictor, runs) if options.thresholds else predictor
    return predictor if options.top_k is None else with_top_k(predictor, options.top_k)


def numbers(predictor: Predictor) -> tuple[float, ...]:
    """Returns the temperatures and thresholds that a predictor reads its scores by; () if there are none."""
    models = [member.model for member in predictor.networks.members]
    temperatures = [model.temperature for model in models if isinstance(model, temperature.ScaledModel)]
    return (*temperatures, *predictor.networks.thresholds)


def with_top_k(predictor: Predictor, count: int) -> Predictor:
    """Returns a predictor that gives the probabilities of `count` classes of each pixel alone, the likeliest first.

    Raises:
        ArgumentError: if `count` is not from 1 to the number of classes, or the network has one logit.
    """
    k = predictor.networks.num_classes
    if k == 1 or not 1 <= count <= k:
        limit = "has one logit, whose probability --probabilities writes" if k == 1 else f"has {counted(k, 'class')}"
        raise ArgumentError(f"--top-k must be from 1 to the number of classes, got {count}: the run {limit}.")
    return replace(predictor, networks=replace(predictor.networks, top_k=count))

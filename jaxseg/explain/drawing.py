"""The words and the form of the picture of an explanation."""

from collections.abc import Mapping

import numpy as np

from jaxseg.errors import counted, printable
from jaxseg.explain.question import Question
from jaxseg.explain.support import Box
from jaxseg.pictures.heat_map import heat_maps

TITLES = {
    "grad-cam": "Seg-Grad-CAM",
    "saliency": "gradient saliency",
    "smoothgrad": "SmoothGrad",
    "integrated-gradients": "integrated gradients",
    "attention": "attention",
    "receptive-field": "receptive field",
}
_OF_GRADIENTS = ("saliency", "smoothgrad", "integrated-gradients")


def draw_explanation(
    image: np.ndarray,
    question: Question,
    values: np.ndarray,
    maps: Mapping[str, np.ndarray],
    numbers: Mapping[str, float],
    box: Box | None,
) -> np.ndarray:
    """Returns u8[y,x,3], the picture of an explanation, see `Explanation`."""
    method, title = question.method, TITLES[question.method]
    shown = dict(maps) if len(maps) == 1 else {f"{title}, mean of {counted(len(maps), 'layer')}": values, **maps}
    if not maps:
        shown = {title: values}
    field = method == "receptive-field"
    of_gradients = method in _OF_GRADIENTS
    unit = "share of the strongest value" if not of_gradients else "share of the 99.5th percentile"
    return heat_maps(
        image,
        {name: np.sqrt(np.maximum(x, 0)) for name, x in shown.items()} if field else shown,
        caption(question, numbers, box),
        pixels=question.pixels,
        box=box,
        signed=method == "integrated-gradients",
        percentile=99.5 if of_gradients else 100.0,
        unit="root of the share of the strongest" if field else unit,
    )


def caption(question: Question, numbers: Mapping[str, float], box: Box | None) -> list[str]:
    """Returns the legend: method, class, target, and what belongs to the method."""
    method = question.method
    if method == "receptive-field":
        return [
            f"effective receptive field of {question.words}: {numbers['effective']:.0f} x {numbers['effective']:.0f} "
            "pixels of the network's input",
            f"theoretical: {describe_field(numbers)}" + (" (the box)" if box is not None else ""),
        ]
    lines = [f"{TITLES[method]}, class {printable(question.class_name)}", f"target: {question.words}"]
    if question.layer:
        lines.append(f"layer: {question.layer}")
    if method == "integrated-gradients":
        lines.append(
            f"red speaks for the class, blue against it; sum {numbers['sum']:.4g}, difference of the scores "
            f"{numbers['difference']:.4g}"
        )
    return lines


def describe_field(numbers: Mapping[str, float]) -> str:
    """Returns the size of a theoretical receptive field in words."""
    sides = [f"{numbers[name]:.0f}" if numbers[name] else "whole" for name in ("height", "width")]
    return "the whole image" if sides == ["whole", "whole"] else f"{' x '.join(sides)} pixels"

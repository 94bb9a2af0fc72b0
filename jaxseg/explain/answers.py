"""The answer to a question: the function from the variables of a network to the map of a method."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxseg.errors import ArgumentError, ConfigError, nearest
from jaxseg.explain.attention import attention_maps
from jaxseg.explain.grad_cam import on_image, seg_grad_cam
from jaxseg.explain.gradients import integrated_gradients, saliency, smooth_grad
from jaxseg.explain.programs import program
from jaxseg.explain.question import METHODS, Question
from jaxseg.explain.view import View
from jaxseg.run.load import Run
from jaxseg.types import PyTree

Answer: TypeAlias = tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]


def answer_of(
    run: Run, view: View, question: Question, layer: str | None, samples: int, steps: int, seed: int
) -> Callable[[PyTree], Answer]:
    """Returns the function variables -> (map f32[h,w], maps, numbers) of a question."""
    method, image = question.method, view.input
    if method == "attention":
        return functools.partial(_attention, run, view, question, layer)
    target = question.target(view, run.num_classes)

    def answer(variables: PyTree) -> Answer:
        if method == "integrated-gradients":
            found = program(run, integrated_gradients, steps=steps)(variables, image, target)
            attributions = np.asarray(found.attributions, np.float32)
            numbers = {
                "sum": float(attributions.sum(dtype=np.float64)),
                "difference": float(found.score) - float(found.baseline_score),
            }
            return view.to_image(attributions.sum(-1)), {}, numbers
        if method == "grad-cam":
            values = program(run, seg_grad_cam, layer=question.layer)(variables, image, target)
        elif method == "saliency":
            values = program(run, saliency)(variables, image, target)
        else:
            values = program(run, smooth_grad, samples=samples)(variables, image, target, jax.random.key(seed))
        return view.to_image(np.asarray(values)), {}, {}

    return answer


def _attention(run: Run, view: View, question: Question, layer: str | None, variables: PyTree) -> Answer:
    found = program(run, _maps_on_image, class_index=question.class_index)(
        variables, view.input, question.on_input(view)
    )
    if not found:
        raise ConfigError(
            f"The network {run.config.model.name} of the run in {run.workdir} has no attention over places; networks "
            "that have are attention_decoder, attention_unet, mask2former, ocrnet, segformer, and any network over an "
            "encoder mit_*, pvt_v2_* or vit_*. The other methods explain every network: "
            f"{', '.join(name for name in METHODS if name != 'attention')}."
        )
    if layer is not None:
        if layer not in found:
            raise ArgumentError(f"The network has no attention {layer!r}.{nearest(layer, found)}")
        found = {layer: found[layer]}
    maps = {name: view.to_image(np.asarray(values)) for name, values in found.items()}
    scaled = [values / max(float(values.max()), 1e-30) for values in maps.values()]
    return np.asarray(np.mean(scaled, axis=0, dtype=np.float32)), maps, {}


def _maps_on_image(
    model: Any, variables: PyTree, image: jax.Array, pixels: jax.Array, class_index: int
) -> dict[str, jax.Array]:
    maps = attention_maps(model, variables, image, pixels, class_index)
    return {name: on_image(x[None, :, :, None], image.shape[1:3])[0, :, :, 0] for name, x in maps.items()}

"""Explains the prediction of a trained run for one image: the map, its picture, and how far it can be trusted."""

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from scipy.ndimage import gaussian_filter

from jaxseg import models
from jaxseg.arguments import Count, check_value
from jaxseg.compiler import options_for_once
from jaxseg.config import KEYS
from jaxseg.errors import ArgumentError, ConfigError, naming_lack_of_memory
from jaxseg.explain.answers import answer_of
from jaxseg.explain.attention import attention_maps
from jaxseg.explain.deletion import Curves, curves
from jaxseg.explain.drawing import draw_explanation
from jaxseg.explain.fields import field_of, random_view
from jaxseg.explain.programs import program
from jaxseg.explain.question import Method, Pixel, Question, Rectangle, choose, require_pixel
from jaxseg.explain.randomisation import groups_from_the_top, sanity_check
from jaxseg.explain.stages import default_layer, layer_shapes, require_layer
from jaxseg.explain.support import Box
from jaxseg.explain.view import View, view_of
from jaxseg.inference.trained import ImageLike, read_input
from jaxseg.nn.draws import initialise
from jaxseg.run.load import Run, require_one_class, require_single
from jaxseg.types import PyTree


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The answer to a question about the prediction for an image.

    Attributes:
        image: u8|u16|f32[h,w,c].
        question: the method, class and pixels.
        map: f32[h,w]. It is at least 0, but for integrated gradients, whose values may speak against the class.
        maps: of attention, {module: f32[h,w]}, of which `map` is the mean, each divided by its largest value.
        numbers: of integrated gradients "sum", that of all attributions; "difference", that of the scores of image and
            baseline, which it should equal. Of receptive fields "effective", the side of the effective one, and
            "height" and "width" of the theoretical one, 0 for the whole image; all in pixels of the network's input.
        view: the image as the network sees it.
        box: of receptive fields, the pixels of the image that the theoretical one covers.
    """

    image: np.ndarray
    question: Question
    map: np.ndarray
    view: View
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    box: Box | None = None

    @property
    def signed(self) -> bool:
        """Whether values below 0 speak against the class."""
        return self.question.method == "integrated-gradients"

    def picture(self) -> np.ndarray:
        """Returns u8[y,x,3]: the image with the pixels in question, and the map laid over it, with a legend."""
        return draw_explanation(self.image, self.question, self.map, self.maps, self.numbers, self.box)

    def __repr__(self) -> str:
        q = self.question
        of_class = f" of {q.class_name}" if q.class_name else ""
        return f"{q.method}{of_class}, {q.words}: map f32{list(self.map.shape)}"


def explain(
    run: Run,
    image: ImageLike | None,
    *,
    method: Method = "grad-cam",
    class_name: str | int | None = None,
    pixel: Pixel | None = None,
    box: Rectangle | None = None,
    layer: str | None = None,
    samples: int = 25,
    steps: int = 64,
    seed: int = 0,
) -> Explanation:
    """Returns the explanation of a run's prediction for an image of any size, which is prepared as for prediction.

    What is explained is the sum of the logits of one class over pixels of the image: those predicted as the class, or
    one pixel, or a box. The network is compiled once for each method and each size that it sees.

    Args:
        run: from `jaxseg.load` or `load_run`.
        image: a file, a Pillow image, or an array; see `TrainedRun.predict`. None, for the method "receptive-field"
            alone, stands for random inputs of the size of training.
        method: one of `METHODS`. "receptive-field" explains no class; its pixel is by default the centre.
        class_name: the name of a class, or its index; None: the class predicted at the pixel, or at most pixels.
        pixel: (row, column) in the image.
        box: (top, left, bottom, right) in the image, bottom and right exclusive.
        layer: of "grad-cam", a name of `stages.layer_shapes`, by default the coarsest stage of the encoder. Of
            "attention", the module whose map is returned alone.
        samples: of "smoothgrad", the number of noisy copies; of "receptive-field", of random inputs or weights.
        steps: of "integrated-gradients", the number of points on the line.
        seed: of the noise of "smoothgrad" and of the random inputs of "receptive-field".

    Raises:
        ArgumentError: for an unknown method, class or layer, or a place outside the image.
        ConfigError: if the network generates images, or has no attention for the method "attention".
        DataError: if the image cannot be read.
        OutOfMemoryError: if the image is too large for the device.
    """
    require_one_class(run, "An explanation")
    require_single(run, "An explanation")
    method = check_value("method", method, Method)
    samples, steps = check_value("samples", samples, Count), check_value("steps", steps, Count)
    seed = check_value("seed", seed, KEYS["seed"].hint)
    if layer is not None and method not in ("grad-cam", "attention"):
        raise ArgumentError(f"layer belongs to the methods 'grad-cam' and 'attention'; {method!r} looks at the image.")
    require_segmenter(run)
    if method == "receptive-field":
        if class_name is not None or box is not None:
            raise ArgumentError("A receptive field is that of one pixel, for all classes; leave class and box out.")
        return _receptive_field(run, image, pixel, samples, seed)
    if image is None:
        raise ArgumentError(f"The method {method!r} explains the prediction for an image; give one.")
    array = read_input(image, run.config.data.channels, run.config.data.range)
    view = view_of(run.parts, array)
    with naming_lack_of_memory(f"Explaining an image of {view.size[0]}x{view.size[1]} pixels", "give a smaller image"):
        logits = np.asarray(program(run, _logits)(run.variables, view.input))[0]
        question = choose(method, run.classes, view.classes(logits), class_name, pixel, box)
        if method == "grad-cam":
            question = _with_layer(run, view, question, layer)
        answer = answer_of(run, view, question, layer, samples, steps, seed)
        values, maps, numbers = answer(run.variables)
    return Explanation(array, question, values, view, maps, numbers)


def faithfulness(run: Run, explanation: Explanation, steps: int = 32) -> Curves:
    """Returns the deletion and insertion curves of a map, see `jaxseg.explain.deletion`.

    Deleted pixels get the mean colour of the training data. Insertion starts from the image blurred by a Gaussian whose
    standard deviation is a tenth of the longer side.
    """
    view, question = explanation.view, explanation.question
    sigma = max(view.input_size) / 10
    blurred = gaussian_filter(np.asarray(view.input), (0, sigma, sigma, 0), mode="nearest")
    # The transpose of the way to the image puts each value of the input where the image was resized from.
    counts = np.maximum(view.to_input(np.ones(view.size)), 1e-6)
    ranking = view.to_input(explanation.map) / counts
    function = program(
        run, curves, class_index=question.class_index, steps=steps, one_vs_rest=run.parts.loss.one_vs_rest
    )
    pixels = question.on_input(view)
    arrays = function(run.variables, view.input, pixels, ranking=ranking, baseline=0.0, blurred=blurred)
    return Curves(*(np.asarray(values, np.float32) for values in arrays))


def sanity(
    run: Run, explanation: Explanation, *, seed: int = 1, samples: int = 25, steps: int = 64
) -> dict[str, float]:
    """Returns {group of parameters: rank correlation} of the randomisation check, see `jaxseg.explain.randomisation`.

    Args:
        run: the run that was explained.
        explanation: its explanation.
        seed: of the parameters that replace those of the run.
        samples, steps: as of `explain`.
    """
    view, variables = explanation.view, run.variables
    image = jax.ShapeDtypeStruct(view.input.shape, view.input.dtype)
    draw = jax.jit(functools.partial(initialise, run.model), compiler_options=options_for_once())
    fresh = draw({"params": jax.random.key(seed)}, np.zeros(image.shape, np.float32))
    groups = groups_from_the_top(run.model, variables, image)
    layer = explanation.question.layer or (next(iter(explanation.maps)) if len(explanation.maps) == 1 else None)
    answer = answer_of(run, view, explanation.question, layer, samples, steps, 0)
    return sanity_check(lambda mixed: answer(mixed)[0], variables, fresh, groups)


def layers(run: Run) -> dict[str, tuple[int, ...]]:
    """Returns {layer: (height, width, channels)} for the method "grad-cam", at the size of training."""
    require_segmenter(run)
    return layer_shapes(run.model, run.variables, _input_shape(run))


def attention_modules(run: Run) -> list[str]:
    """Returns the modules with attention over places, for the method "attention"; empty if there are none."""
    require_segmenter(run)
    image = _input_shape(run)
    pixels = jax.ShapeDtypeStruct(image.shape[1:3], np.float32)
    read = functools.partial(attention_maps, run.model, class_index=0)
    return list(jax.eval_shape(lambda *given: read(*given), run.variables, image, pixels))


def _input_shape(run: Run) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *run.parts.image_shape), np.float32)


def require_segmenter(run: Run) -> None:
    """Raises ConfigError for a network that makes images from noise."""
    if models.can_generate(run.model):
        raise ConfigError(
            f"The run in {run.workdir} trained {run.config.model.name}, which generates images and segments none; "
            "there is no prediction of classes to explain."
        )


def _receptive_field(run: Run, image: Any, pixel: Pixel | None, samples: int, seed: int) -> Explanation:
    noise = image is None
    if noise:
        view = random_view(run)
        array = np.full((*view.size, 1), 160, np.uint8)
    else:
        array = read_input(image, run.config.data.channels, run.config.data.range)
        view = view_of(run.parts, array)
    h, w = view.size
    y, x = require_pixel((h // 2, w // 2) if pixel is None else pixel, view.size)
    pixels = np.zeros((h, w), bool)
    pixels[y, x] = True
    words = f"the pixel ({y}, {x})" + (", mean over random inputs" if noise else "")
    question = Question("receptive-field", 0, "", pixels, words, place="" if pixel is None else f"at-{y}-{x}")
    with naming_lack_of_memory(f"The receptive field in {h}x{w} pixels", "give a smaller image"):
        values, box, numbers = field_of(run, view, (y, x), noise=noise, samples=samples, seed=seed)
    return Explanation(array, question, values, view, {}, numbers, box)


def _logits(model: Any, variables: PyTree, image: jax.Array) -> jax.Array:
    return model.apply(variables, image, train=False)[0]


def _with_layer(run: Run, view: View, question: Question, layer: str | None) -> Question:
    shapes = layer_shapes(run.model, run.variables, jax.ShapeDtypeStruct(view.input.shape, view.input.dtype))
    if layer is not None:
        require_layer(layer, shapes)
    return replace(question, layer=layer or default_layer(shapes))

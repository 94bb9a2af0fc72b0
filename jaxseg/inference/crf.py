"""Refining the probabilities of a network by a dense CRF over the image."""

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.compiler import compiler_options, jit
from jaxseg.errors import ArgumentError, ConfigError, OutOfMemoryError, counted
from jaxseg.inference.networks import Scores, to_classes, to_probabilities
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.segment import Segmentation
from jaxseg.memory import free_memory
from jaxseg.nn.crf import CRF, of_two_classes
from jaxseg.nn.ops.dense_crf import dense_crf, kernel_radius, pixel_features
from jaxseg.nn.ops.permutohedral import count_vertices
from jaxseg.types import label_type

_LEAST = 1e-8  # a probability of 0 is taken as this


def refine(image: np.ndarray, scores: np.ndarray, crf: CRF | str = "deeplab-v1", *, logits: bool = False) -> np.ndarray:
    """Returns the probabilities f32[h,w,k] of the mean field of a dense CRF; arrays may have a batch axis before h.

    Args:
        image: u8|u16[h,w,c], or floats in [0, 1].
        scores: probabilities f[h,w,k] of the network; those of one sigmoid for each class are taken in proportion. With
            k = 1 they are those of class 1, and so is the result.
        crf: the settings, the name of a preset, or a text for `CRF.parse`.
        logits: whether `scores` are logits.

    Raises:
        ArgumentError: for invalid settings, or shapes that do not fit each other.
        OutOfMemoryError: if the memory that it would take is not there; nothing is computed then.
    """
    crf = CRF.parse(crf) if isinstance(crf, str) else crf
    image, scores = np.asarray(image), np.asarray(scores)
    if image.ndim not in (3, 4) or image.ndim != scores.ndim or image.shape[:-1] != scores.shape[:-1]:
        raise ArgumentError(
            f"refine takes an image [h,w,c] and scores [h,w,k] of one size, got {image.shape} and {scores.shape}."
        )
    if image.ndim == 3:
        return refine(image[None], scores[None], crf, logits=logits)[0]
    require_memory(image.shape, scores.shape[-1], crf)  # before anything is computed or copied
    image, unary = colors(image), np.asarray(scores, np.float32) if logits else to_logits(scores)
    return np.asarray(refiner(crf, image, unary.shape[-1])(unary, image, numbers(crf)))


def colors(image: np.ndarray) -> np.ndarray:
    """u8|u16|f[...] -> f32[...] from 0 to 255."""
    scale = {"u": 255 / np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1.0, "f": 255.0}
    if image.dtype.kind not in scale:
        raise ArgumentError(f"An image holds bytes, 16-bit numbers or floats in [0, 1], got {image.dtype}.")
    return np.asarray(image, np.float32) * np.float32(scale[image.dtype.kind])


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities f[...,k] -> f32[...,k] whose softmax they are, or whose sigmoid for k = 1."""
    p = np.asarray(probabilities, np.float32)
    logs = np.log(np.clip(p, _LEAST, None))
    return logs - np.log(np.clip(1 - p, _LEAST, None)) if p.shape[-1] == 1 else logs


def numbers(crf: CRF) -> dict[str, np.float32]:
    """Returns the numbers of the settings as a compiled program takes them."""
    return {name: np.float32(value) for name, value in crf.numbers.items()}


def refiner(crf: CRF, image: np.ndarray, num_classes: int, radius: int | None = None) -> Callable[..., jax.Array]:
    """Returns the compiled (logits f32[b,h,w,k], image f32[b,h,w,c], numbers) -> probabilities f32[b,h,w,k].

    Args:
        crf: the settings; the program takes their `numbers` as arguments.
        image: the images, with colours from 0 to 255.
        num_classes: k.
        radius: as of `dense_crf`.

    Raises:
        OutOfMemoryError: if the memory that the program would take is not there.
    """
    require_memory(image.shape, num_classes, crf)
    capacity = 0
    if crf.method == "fast":
        capacity = capacity_for(crf, image)
        require_memory(image.shape, num_classes, crf, capacity)
    radius = kernel_radius(crf.smooth_xy) if radius is None else radius
    return _program(crf.iterations, crf.normalization, crf.method, capacity, radius)


def capacity_for(crf: CRF, image: np.ndarray) -> int:
    """Returns the rows of a lattice that holds all vertices of images, rounded up so that few programs are compiled."""
    vertices = int(np.max(_count(image, crf.appearance_xy, crf.appearance_rgb)))
    return _rounded(vertices, image.shape[1] * image.shape[2] * (image.shape[3] + 3))


def _rounded(vertices: int, most: int) -> int:
    """Returns the next 2^i or 3/4 2^i of at least 1024, and at most what any image of this size needs."""
    power = 1 << max(10, math.ceil(math.log2(max(1, vertices))))
    return min(most, 3 * power // 4 if 4 * vertices <= 3 * power else power)


@functools.cache
def _counter() -> Callable[..., jax.Array]:
    def count(colors: jax.Array, theta_xy: jax.Array, theta_rgb: jax.Array) -> jax.Array:
        features = pixel_features(colors, theta_xy, theta_rgb)
        return count_vertices(features.reshape(len(colors), -1, features.shape[-1]))

    return jit(count, compiler_options())


def _count(colors: np.ndarray, theta_xy: float, theta_rgb: float) -> np.ndarray:
    return np.asarray(_counter()(colors, np.float32(theta_xy), np.float32(theta_rgb)))


@functools.cache
def _program(iterations: int, normalization: str, method: str, capacity: int, radius: int) -> Callable[..., jax.Array]:
    def program(logits: jax.Array, colors: jax.Array, numbers: Mapping[str, jax.Array]) -> jax.Array:
        options: dict[str, Any] = {"iterations": iterations, "normalization": normalization, "method": method}
        options |= {"capacity": capacity, "radius": radius, **numbers}
        refined = of_two_classes(logits, lambda logits: dense_crf(logits, colors, **options))
        return jax.nn.sigmoid(refined) if refined.shape[-1] == 1 else jax.nn.softmax(refined)

    return jit(program, compiler_options())


def memory_of(shape: Sequence[int], num_classes: int, crf: CRF, vertices: int | None = None) -> int:
    """Returns about how many bytes `refine` takes for images of a shape [b,h,w,c].

    Args:
        shape: of the images.
        num_classes: k.
        crf: the settings.
        vertices: of the lattice of an image; None: one for two pixels, a photograph with many colours.
    """
    b, h, w, c = shape
    pixels, k = b * h * w, max(num_classes, 2)
    if crf.method == "exact":
        return 4 * (8 * pixels * k + 2**23)
    rows = pixels // 2 if vertices is None else b * vertices
    return 4 * ((c + 5) * pixels * k + 12 * (c + 3) * pixels + (3 * k + 45) * rows)


def require_memory(shape: Sequence[int], num_classes: int, crf: CRF, vertices: int | None = None) -> None:
    """Raises OutOfMemoryError if the memory that `refine` would take is not there; see `memory_of`."""
    needed, free = memory_of(shape, num_classes, crf, vertices), free_memory()
    if needed > free:
        b, h, w, _ = shape
        images = "an image" if b == 1 else f"{b} images"
        raise OutOfMemoryError(
            f"A dense CRF of {counted(max(num_classes, 2), 'class')} over {images} of {h}x{w} pixels would take about "
            f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; refine smaller images, or cut them up "
            "(--tiles does not: the CRF sees the image in one piece)."
        )


def refinement(crf: CRF) -> Callable[[np.ndarray, Segmentation], Segmentation]:
    """Returns (image u8|u16[h,w,c], prediction with probabilities) -> prediction, for `FolderPrediction.refine`."""

    lock = threading.Lock()  # one image at a time: each asks for memory by itself

    def refined(image: np.ndarray, found: Segmentation) -> Segmentation:
        assert found.probabilities is not None
        with lock:
            shares = refine(image, found.probabilities, crf)
        likeliest = shares[..., 0] > 0.5 if shares.shape[-1] == 1 else shares.argmax(-1)
        return Segmentation(likeliest.astype(label_type(shares.shape[-1])), shares)

    return refined


def refined_scores(segment: Callable[[np.ndarray], Scores], crf: CRF, one_vs_rest: bool) -> Callable[..., Scores]:
    """Returns `segment`, u8|u16[h,w,c] -> the scores of one image, with its probabilities refined.

    Args:
        segment: such as `Predictor.scores`.
        crf: the settings.
        one_vs_rest: whether the probability of a class is the sigmoid of its logit.
    """

    def refined(image: np.ndarray) -> Scores:
        scores = segment(image)
        h, w = scores.sizes[0]
        shares = np.asarray(to_probabilities(scores, one_vs_rest))[:, :h, :w]
        return Scores(jnp.asarray(refine(image[None], shares, crf)), False, ((h, w),))

    return refined


@dataclasses.dataclass(frozen=True, eq=False)
class RefinedPredictor(Predictor):
    """A predictor whose `scores` are refined by a dense CRF; make it with `with_crf`.

    Attributes:
        crf: the settings.
    """

    crf: CRF = dataclasses.field(default_factory=CRF)

    def scores(self, image: np.ndarray) -> Scores:
        """u8|u16|f32[h,w,c] -> the refined probabilities of an image."""
        require_memory((1, *image.shape), self.networks.num_classes, self.crf)  # before the network runs
        return refined_scores(super().scores, self.crf, self.networks.one_vs_rest)(image)

    def __call__(self, image: np.ndarray, probabilities: bool = False) -> Segmentation:
        """u8|u16|f32[h,w,c] -> the refined classes u8[h,w] of an image, and with `probabilities` those, f32[h,w,k]."""
        scores, (h, w) = self.scores(image), image.shape[:2]
        classes = np.asarray(to_classes(scores)).astype(label_type(self.networks.num_classes))[0, :h, :w]
        return Segmentation(classes, np.asarray(scores.values)[0, :h, :w] if probabilities else None)

    def launch(self, images: Sequence[np.ndarray], probabilities: bool = False) -> Callable[[], list[Segmentation]]:
        """Returns the function that segments the images, see `Predictor.launch`."""
        return lambda: [self(image, probabilities) for image in images]

    def alone(self) -> list[tuple[str, Predictor]]:
        """Returns (name, predictor) of each network by itself in one view, without the CRF."""
        fields = [field.name for field in dataclasses.fields(Predictor)]
        return [(name, Predictor(**{f: getattr(each, f) for f in fields})) for name, each in super().alone()]

    def __str__(self) -> str:
        return f"{super().__str__()}, refined by a dense CRF ({self.crf})"


def with_crf(predictor: Predictor, crf: CRF) -> RefinedPredictor:
    """Returns a predictor with a dense CRF after it; raises ConfigError where a pixel may have several classes."""
    if predictor.networks.multilabel:
        raise ConfigError(
            "A dense CRF takes each pixel for one of one class, and the run was trained with data.multilabel, where a "
            "pixel may have several or none."
        )
    values = {field.name: getattr(predictor, field.name) for field in dataclasses.fields(predictor)}
    return RefinedPredictor(**values, crf=crf)

"""Images that a network with a generator makes from noise: samples, their picture, and how far they are from real ones.

Noise comes from a seed: the first samples of a seed are the same, however many are made.
"""

import functools
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from PIL import Image

from jaxseg import models, pictures
from jaxseg.arguments import Count, check_value
from jaxseg.build import Parts
from jaxseg.config import KEYS
from jaxseg.data.base import Source
from jaxseg.data.notes import log_once
from jaxseg.data.reading import Reading
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ConfigError, naming_lack_of_memory
from jaxseg.inference.outputs import MARK, is_output
from jaxseg.metrics.frechet import SIDE, frechet_distance, thumbnails
from jaxseg.pictures.marks import FIGURE
from jaxseg.run.data import Problem, reading_of
from jaxseg.run.drawing import drawing
from jaxseg.run.report import Reporter
from jaxseg.types import PyTree

SHEET = "samples.png"  # in the workdir
_ON_SHEET = 64
_COMPARED = 1024  # images, at most
_AT_ONCE = 64  # samples in one call of the network


def sample(parts: Parts, variables: PyTree, count: int, seed: int = 0) -> np.ndarray:
    """Returns u8[count,size,size,c]: images from the noise of `seed`.

    Args:
        parts: of a run of a network with a generator.
        variables: of the network.
        count: number of images.
        seed: base of the noise, below 2^32; image i has the noise of (seed, i).

    Raises:
        ArgumentError: if `count` or `seed` is invalid.
        ConfigError: if the network has no generator.
        OutOfMemoryError: if 64 images do not fit into the device's memory.
    """
    count, seed = check_value("count", count, Count), check_value("seed", seed, KEYS["seed"].hint)
    if not models.can_generate(parts.model):
        raise ConfigError(
            f"Samples need a network that generates images, dcgan; {parts.config.model.name} segments images and "
            "generates none."
        )
    batches = []
    with naming_lack_of_memory("Sampling", "use a device with more memory"):
        for start in range(0, count, _AT_ONCE):
            places = np.arange(start, start + _AT_ONCE)
            batches.append(np.asarray(_generate(parts.model, variables, jax.random.key(seed), places)))
    mean, std = (np.asarray(values, np.float32) for values in (parts.config.data.mean, parts.config.data.std))
    images = np.concatenate(batches)[:count] * std + mean
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


@functools.partial(jax.jit, static_argnums=0)
def _generate(model: nn.Module, variables: PyTree, key: jax.Array, places: jax.Array) -> jax.Array:
    """Returns f32[n,size,size,c] of the noise with these places in the stream of `key`."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
    noise = jax.vmap(lambda key: jax.random.normal(key, (model.latent,), jnp.float32))(keys)
    return model.generate(variables, noise)


def distances(parts: Parts, variables: Callable[[], PyTree], problem: Problem) -> dict[str, float]:
    """Returns how far samples are from validation images; an empty dictionary for a network without a generator.

    Args:
        parts, problem: the parts and the data of the run.
        variables: returns those of the network.

    Returns:
        "frechet_distance" between as many samples as there are validation images, at most 1024, and these, all of the
        samples' size; "frechet_distance_of_training" of as many training images, which is what perfect samples have.
        Neither in several processes, with a note.
    """
    count = min(len(problem.val), len(problem.train), _COMPARED)
    if not models.can_generate(parts.model) or count < 2:
        return {}
    if jax.process_count() > 1:
        log_once(
            "A training in several processes draws no samples and gives no Fréchet distance; jaxseg predict "
            "--samples N makes images of its checkpoints, in one process."
        )
        return {}
    made = sample(parts, variables(), count)
    size = made.shape[1:3]
    real = _real_thumbnails(problem.val, count, size, Reading(timeout=parts.config.data.timeout))
    other = _real_thumbnails(problem.train, count, size, reading_of(parts.config))
    return {
        "frechet_distance": frechet_distance(thumbnails(made), real),
        "frechet_distance_of_training": frechet_distance(other, real),
    }


_THUMBNAILS: weakref.WeakKeyDictionary[Source, dict[tuple[int, ...], np.ndarray]] = weakref.WeakKeyDictionary()


def _real_thumbnails(source: Source, count: int, size: tuple[int, ...], reading: Reading) -> np.ndarray:
    """Returns f64[count,SIDE·SIDE·c] of images spread over the source; they are kept while the source is."""

    def image(place: int) -> np.ndarray:
        return reading.first(lambda later: reading.example(source, (place + later) % len(source)))["image"]

    known = _THUMBNAILS.setdefault(source, {})
    if (count, *size) not in known:
        places = np.linspace(0, len(source) - 1, count).round().astype(int)
        images = [thumbnails(resize_image(image(int(i)), size)[None], SIDE) for i in places]
        known[count, *size] = np.concatenate(images)
    return known[count, *size]


def draw_samples(parts: Parts, variables: PyTree, workdir: Path, reporter: Reporter, step: int) -> None:
    """Draws 64 samples to samples.png and TensorBoard, always from the same noise, if the network has a generator."""
    if not models.can_generate(parts.model):
        return
    with drawing(reporter):
        sheet = pictures.grid(list(sample(parts, variables, _ON_SHEET)))
        pictures.save_image(sheet, workdir / SHEET, software=FIGURE)
        reporter.picture(step, "samples", sheet)


def samples_of_earlier_calls(files: Sequence[Path]) -> list[Path]:
    """Returns the pictures beside `files`, the samples of a call, that prediction wrote under the name of a sample."""
    beside = sorted(files[0].parent.glob("sample-*.png"))
    return [file for file in beside if file not in files and re.fullmatch(r"sample-\d+", file.stem) and is_output(file)]


def write_samples(images: np.ndarray, out: Path) -> list[Path]:
    """Writes u8[n,h,w,c] to sample-00.png, sample-01.png, ... in the folder `out`; returns the files.

    One channel is written as grey, and of more than three the first three, as in other pictures (`pictures.to_rgb`).

    Raises:
        ConfigError: if they cannot be written, or would replace a file that prediction did not write.
    """
    digits = max(2, len(str(len(images) - 1)))
    files = [out / f"sample-{i:0{digits}d}.png" for i in range(len(images))]
    for file in files:
        if file.exists() and not is_output(file):
            raise ConfigError(
                f"The sample {file} would replace a file that prediction did not write; give another --out."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for image, file in zip(images, files):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else pictures.to_rgb(image))
            pictures.save_image(picture, file, software=MARK)
    except OSError as error:
        raise ConfigError(f"The samples cannot be written to {out}: {error.strerror or error}.") from error
    return files

"""The receptive field of a trained run: effective and theoretical, amid random inputs or in an image."""

import jax
import numpy as np

from jaxseg.build import input_size
from jaxseg.explain.effective import effective_field, effective_size
from jaxseg.explain.programs import program
from jaxseg.explain.support import Box, box_of, field_size, receptive_field
from jaxseg.explain.view import View
from jaxseg.run.load import Run


def random_view(run: Run) -> View:
    """Returns a view of nothing: an input of the size of training, whose values do not matter."""
    h, w = input_size(run.config)
    rows, columns = (np.eye(side, dtype=np.float32) for side in (h, w))
    return View(jax.numpy.zeros((1, h, w, run.config.data.channels)), rows, columns)


def field_of(
    run: Run, view: View, pixel: tuple[int, int], *, noise: bool, samples: int, seed: int
) -> tuple[np.ndarray, Box, dict[str, float]]:
    """Returns the effective receptive field f32[h,w] of a pixel, the box of the theoretical one, and their sizes.

    The sizes count pixels of the network's input: "effective" is the side of a square as large as the effective field;
    "height" and "width" are those of the theoretical field amid a large image, 0 for the whole image.

    Args:
        run: a run.
        view: the image.
        pixel: (row, column) of the image.
        noise: whether the inputs are drawn from a normal distribution, in place of the image.
        samples: number of inputs, or of random weights of the classes for the image.
        seed: of both.
    """
    place = np.zeros(view.size, np.float32)
    place[pixel] = 1.0
    row, column = np.unravel_index(view.to_input(place).argmax(), view.input_size)
    inputs, weights = jax.random.split(jax.random.key(seed))
    shape = (samples, *view.input.shape[1:])
    images = jax.random.normal(inputs, shape) if noise else jax.numpy.broadcast_to(view.input, shape)
    where = np.array([row, column], np.int32)
    field = np.asarray(program(run, effective_field)(run.variables, images, where, weights))
    reached = receptive_field(
        run.model, run.variables, (*view.input_size, view.input.shape[-1]), (int(row), int(column))
    )
    height, width = field_size(run.model, run.variables, view.input.shape[-1])
    numbers = {"effective": effective_size(field), "height": float(height), "width": float(width)}
    return view.to_image(field), box_of(view.to_image(reached) > 0), numbers

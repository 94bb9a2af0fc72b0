"""Inference as compiled for a CPU: no map is copied or transposed between the layers."""

import re

import jax
import jax.numpy as jnp
import pytest
from helpers.tiny_models import tiny

from jaxseg.compiler import compiler_options, jit

_MOVED = re.compile(r" = f32\[([\d,]+)\]\S* (?:copy|transpose)\(")
SIZE = 32
BATCH, SIZE = 3, 32
# The shapes that the networks of `benchmarks/compare_torch.py` move. The 2x2 pixels of a transposed convolution go from
# the channels to their places, in each of U-Net's two levels. Heads come before tokens in the products of attention.
MOVED = {
    "unet": {(BATCH, 8, 2, 8, 2, 8), (BATCH, 16, 2, 16, 2, 4)},
    "resunet": set(),
    "deeplabv3plus": set(),
    "segformer": {(BATCH, 64, 2, 4), (BATCH, 2, 64, 4)},
}


def moved(program):
    """The shapes of all copies and transposes of a batch."""
    shapes = {tuple(map(int, found.split(","))) for found in _MOVED.findall(program)}
    return {shape for shape in shapes if shape[0] == BATCH and len(shape) >= 4}


@pytest.mark.parametrize("name", MOVED)
def test_inference_moves_no_map_between_layers(name):
    model = tiny(name)
    x = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), "float32")
    init = lambda key: model.init({"params": key}, jnp.zeros(x.shape))  # noqa: E731
    variables = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))
    infer = jit(lambda variables, x: model.apply(variables, x, train=False)[0], compiler_options())
    program = infer.lower(variables, x).compile().as_text()
    assert moved(program) <= MOVED[name]


def test_a_map_that_is_moved_would_be_found():
    x = jnp.zeros((BATCH, 4, 5, 6))
    program = jax.jit(lambda x: (x.transpose(0, 3, 1, 2), 1.0)).lower(x).compile().as_text()
    assert moved(program) == {(BATCH, 6, 4, 5)}

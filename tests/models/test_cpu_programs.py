"""What programs compiled for a CPU move and keep: no map between layers, no parameter, two maps a layer in training."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.tiny_models import tiny

from jaxseg import losses, parallel
from jaxseg.compiler import compiler_options, jit
from jaxseg.nn import ConvNormAct, Layers, classifier, make_norm
from jaxseg.state import init_state
from jaxseg.step import make_train_step

_MOVED = re.compile(r" = f32\[([\d,]+)\]\S* (?:copy|transpose)\(")
BATCH, SIZE = 3, 32
# The shapes that the networks of `benchmarks/compare_torch.py` move. The 2x2 pixels of a transposed convolution go from
# the channels to their places, in each of U-Net's two levels; so do those of a convolution of up-sampled features in
# ResUNet's, with jax 0.12. Heads come before tokens in the products of attention.
MOVED = {
    "unet": {(BATCH, 8, 2, 8, 2, 8), (BATCH, 16, 2, 16, 2, 4)},
    "resunet": {(BATCH, 9, 2, 9, 2, 8), (BATCH, 17, 2, 17, 2, 4)},
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


def compiled_step(model, image: tuple[int, ...]):
    """The training step of a model, compiled as training compiles it for one CPU."""
    strategy = parallel.make_strategy("jit", {"--batch": image[0]}, jax.devices()[:1])
    optimiser = optax.sgd(0.1, momentum=0.9)
    step = make_train_step(model, optimiser, losses.make_loss("cross_entropy", num_classes=3))
    state = jax.eval_shape(lambda key: init_state(model, optimiser, key, image[1:]), jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct(image, jnp.float32),
        "label": jax.ShapeDtypeStruct(image[:3], jnp.uint8),
    }
    return strategy.compile_train(step).lower(state, batch, jax.eval_shape(jax.random.key, 0)).compile()


class Stack(nn.Module):
    """Convolutions, norms and activations, which keep the size."""

    depth: int
    norm: str

    @nn.compact
    def __call__(self, x, *, train=False):
        for i in range(self.depth):
            x = ConvNormAct(16, common=Layers(norm=make_norm(self.norm)), name=f"layer{i}")(x, train=train)
        return classifier(3)(x), {"aux": ()}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_training_step_copies_no_parameter_and_keeps_two_maps_a_layer(norm):
    depth, image = 8, (2, 64, 64, 16)
    program = compiled_step(Stack(depth, norm), image)
    assert not re.findall(r"copy\(%?state_params\S*kernel", program.as_text())
    # The outputs of each convolution and of each activation, one of which jax 0.12 keeps padded in strips (a seventh
    # more); 3 maps for what the layer at work needs.
    assert program.memory_analysis().temp_size_in_bytes < (2.5 * depth + 3) * 4 * np.prod(image)

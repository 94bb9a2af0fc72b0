"""Receptive fields: the theoretical one against closed forms and gradients, the effective one against convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_models import TINY, tiny
from helpers.variables import drawn, initialised

from jaxseg.explain.effective import effective_field, effective_size
from jaxseg.explain.support import Box, box_of, field_size, receptive_field
from jaxseg.nn import max_pool, resize


class Stack(nn.Module):
    """3x3, max-pooling by 2, 3x3 of rate 2, 5x5 of stride 2, and nearest up-sampling; or global pooling as well."""

    pooled: bool = False
    num_classes: int = 2

    @nn.compact
    def __call__(self, image, *, train=False):
        x = jax.nn.relu(nn.Conv(4, (3, 3), name="a", kernel_init=nn.initializers.zeros)(image))
        x = max_pool(x, 2)
        x = jax.nn.relu(nn.Conv(4, (3, 3), kernel_dilation=2, name="b")(x))
        x = nn.Conv(self.num_classes, (5, 5), strides=2, padding=2, name="c")(x)
        if self.pooled:
            x = x + x.mean((1, 2), keepdims=True)
        return jnp.repeat(jnp.repeat(x, 4, 1), 4, 2), {"aux": ()}


def variables_of(model, side=32):
    return initialised(model, ((1, side, side, 3),))[1]


def test_the_field_of_a_stack_is_the_sum_of_its_kernels():
    """1 + 2 (3x3), + 1 (pooling), + 4·2 (rate 2 at stride 2), + 4·2 (5x5 at stride 2): 20 pixels each way."""
    model = Stack()
    field = receptive_field(model, variables_of(model), (64, 64, 3), (33, 32))
    box = box_of(field)
    assert (box.bottom - box.top, box.right - box.left) == (20, 20) and field[box.top : box.bottom, 30].all()
    # The output of rows 32 to 35 is that of row 16 at stride 2, whose window there is rows 14 to 18; 4 more by rate 2.
    assert box == Box(32 - 4 - 4 - 1, 32 - 4 - 4 - 1, 32 + 4 + 4 + 1 + 2, 32 + 4 + 4 + 1 + 2)
    assert field_size(model, variables_of(model), 3, sides=(64,)) == (20, 20)


def test_global_pooling_sees_the_whole_image():
    model = Stack(pooled=True)
    assert receptive_field(model, variables_of(model), (32, 32, 3), (0, 0)).all()
    assert field_size(model, variables_of(model), 3, sides=(32, 64)) == (0, 0)


def test_a_field_that_ends_beyond_the_image_is_found_in_a_larger_one():
    model = Stack()
    assert field_size(model, variables_of(model), 3, sides=(16, 64)) == (20, 20)


@pytest.mark.parametrize(
    "name",
    [
        "unet",
        "segnet",
        *(pytest.param(n, marks=pytest.mark.slow) for n in TINY if n not in ("unet", "dcgan")),
    ],
)
def test_no_gradient_leaves_the_field(name):
    model, shape = tiny(name), (1, 32, 32, 3)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    variables = drawn(model, image)
    pixel = (17, 12)
    reached = np.asarray(
        jax.jit(lambda v, x, key: effective_field(model, v, x, jnp.array(pixel), key))(
            variables, jnp.concatenate([image, -image, 2 * image[:, ::-1]]), jax.random.key(0)
        )
    )
    field = receptive_field(model, variables, shape[1:], pixel)
    assert field[pixel] and not (reached > 0)[~field].any()
    if name in ("unet", "segnet"):  # random inputs reach nearly all of it
        assert (reached > 0).sum() > 0.4 * field.sum()


def test_the_effective_field_of_box_filters_is_their_convolution():
    class Boxes(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            ones = nn.initializers.ones
            x = nn.Conv(1, (3, 3), use_bias=False, kernel_init=ones, name="a")(image)
            return nn.Conv(1, (3, 3), use_bias=False, kernel_init=ones, name="b")(x), {"aux": ()}

    model, images = Boxes(), jnp.zeros((2, 9, 9, 1))
    field = effective_field(
        model, model.init(jax.random.key(0), images[:1]), images, jnp.array([4, 4]), jax.random.key(1)
    )
    tent = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
    np.testing.assert_allclose(field[2:7, 2:7] / field[4, 4], tent / 9, rtol=1e-5)
    assert float(jnp.abs(field).sum()) == pytest.approx(float(field[2:7, 2:7].sum()))
    assert effective_size(np.asarray(field)) == 5.0  # the corners have 1/9 of the largest value


def test_interpolation_reads_its_nonzero_weights_alone():
    class Doubled(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return nn.Conv(2, (1, 1), name="a")(resize(image, (16, 16))), {"aux": ()}

    model = Doubled()
    field = receptive_field(model, variables_of(model, 8), (8, 8, 3), (7, 8))
    assert box_of(field) == Box(3, 3, 5, 5)  # pixel 7 lies between 3 and 4 of half the size, and 8 too

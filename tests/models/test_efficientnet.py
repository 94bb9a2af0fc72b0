"""EfficientNet against torchvision, and its published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.parity import check_pyramid
from helpers.variables import count_parameters, drawn

from jaxseg.models import encoders
from jaxseg.models.encoders.efficientnet import EfficientNet
from jaxseg.nn import Layers, make_norm
from jaxseg.pretrained import efficientnet as rules

# Width, depth, parameters with the classifier, features before it.
SIZES = (
    (1.0, 1.0, 5_288_548, 1280),
    (1.0, 1.1, 7_794_184, 1280),
    (1.1, 1.2, 9_109_994, 1408),
    (1.2, 1.4, 12_233_232, 1536),
    (1.4, 1.8, 19_341_616, 1792),
    (1.6, 2.2, 30_389_784, 2048),
    (1.8, 2.6, 43_040_704, 2304),
    (2.0, 3.1, 66_347_960, 2560),
)


@at_each_size
def test_b0_is_torchvisions(size):
    module, encoder = oracles.torchvision().models.efficientnet_b0(), encoders.build("efficientnet_b0", last=True)
    check_pyramid(encoder, module, rules.torchvision(last=True), (1, 2, 3, 5, 8), [size])


def test_b0_ends_before_the_classifiers_features():
    encoder = encoders.build("efficientnet_b0")
    assert encoder.widths == (16, 24, 40, 112, 320) and encoder.strides == (2, 4, 8, 16, 32)
    parity.load(encoder, oracles.torchvision().models.efficientnet_b0(), rules.torchvision())


@pytest.mark.slow  # the last convolution alone is left out of what is compared above
def test_b0_without_the_classifiers_features_is_torchvisions():
    module, encoder = oracles.torchvision().models.efficientnet_b0(), encoders.build("efficientnet_b0")
    check_pyramid(encoder, module, rules.torchvision(), (1, 2, 3, 5, 7), ((33, 47),))


# The sizes between follow the same rounding of widths and depths.
@pytest.mark.parametrize("size", some_slow(range(8), (1, 2, 4, 5, 6, 7)))
def test_counts_are_the_published_ones(size):
    width, depth, published, features = SIZES[size]
    encoder = encoders.build(f"efficientnet_b{size}", last=True)
    assert (encoder.width, encoder.depth) == (width, depth) and encoder.widths[-1] == features
    assert count_parameters(encoder) + 1000 * features + 1000 == published


@pytest.mark.parametrize("size", some_slow((2, 7), (7,)))
def test_big_members_take_torchvisions_weights(size):
    torch = oracles.torch()
    module = getattr(oracles.torchvision().models, f"efficientnet_b{size}")
    with torch.device("meta"):
        module = module()
    norms = {m.eps for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    encoder = encoders.build(f"efficientnet_b{size}")
    assert norms == {encoder.epsilon}
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for array in (*module.parameters(), *module.buffers()):  # that memory may hold NaN, which is refused
            array.zero_()
    parity.load(encoder, module, rules.torchvision(SIZES[size][1]))


def test_a_dilated_stage_keeps_its_size():
    encoder = encoders.build("efficientnet_b0", output_stride=8)
    assert encoder.strides == (2, 4, 8, 8, 8)
    x = jax.ShapeDtypeStruct((1, 33, 47, 3), jnp.float32)
    pyramid = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x)[0], x)
    assert [f.shape[1:3] for f in pyramid] == [(17, 24), (9, 12), (5, 6), (5, 6), (5, 6)]


def test_blocks_are_dropped_in_training_alone():
    """The second and third of three residual blocks may go; which, depends on the key and the example."""
    common = Layers(make_norm("none"))
    encoder = EfficientNet(rows=((1, 3, 4, 1, 1), (2, 3, 4, 3, 1)), stem=4, divisor=4, drop=0.9, common=common)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32).repeat(8, axis=0)
    variables = drawn(encoder, x)

    @functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=parity.FAST_COMPILE)
    def run(drop, train, key):
        return encoder.clone(drop=drop).apply(variables, x, train=train, rngs={"dropout": key})[-1]

    one, two = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(0.9, False, one), run(0.0, True, one))
    np.testing.assert_array_equal(run(0.9, True, one), run(0.9, True, one))
    assert np.abs(run(0.9, True, one) - run(0.9, True, two)).max() > 0
    assert len({np.asarray(run(0.9, True, one)[i]).tobytes() for i in range(8)}) > 1

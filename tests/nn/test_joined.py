"""Up-sampled features in two parts: the same numbers as in one array, in the stages of every decoder that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg.models.manet import FusionStage
from jaxseg.models.resunet import ResUNetStage
from jaxseg.models.resunetpp import ResUNetPPStage
from jaxseg.models.summary import matrix_flops
from jaxseg.models.unet import UNetStage
from jaxseg.nn import Conv, Joined, Layers, Quantisation, WithQuantisedInputs, join_upsampled, make_norm
from jaxseg.nn.joined import whole
from jaxseg.nn.ops.forms import traced_for

STAGES = {
    "resunet": ResUNetStage(3),
    "resunet-basic": ResUNetStage(3, unit="basic", common=Layers(act=jax.nn.silu)),
    "resunet-identity": ResUNetStage(5, shortcut="weighted"),
    "resunet-group": ResUNetStage(3, common=Layers(norm=make_norm("group", num_groups=2))),
    "resunet-act": ResUNetStage(3, common=Layers(act=lambda x: x * jax.nn.softmax(x))),
    "unet": UNetStage(3, up="nearest"),
    "unet-valid": UNetStage(3, up="nearest", padding="valid"),
    "manet": FusionStage(3, reduction=2),
    "resunetpp": ResUNetPPStage(8),
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1.0, 1.0, shape), jnp.float32)


def compare(ours, one_array):
    """Asserts that two pytrees have the same numbers, up to 1e-5 of the largest in each array."""
    assert jax.tree.structure(ours) == jax.tree.structure(one_array)
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(one_array), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5 * np.abs(right).max(initial=0.0))


def run(stage, variables, x, skip, apart, train):
    """(output, statistics, gradients of parameters, x and skip) of one compiled program."""

    def loss(params, x, skip):
        with traced_for("strips" if apart else "usual"):
            given = {**variables, "params": params}
            y, new = stage.apply(given, x, skip, train=train, mutable=["batch_stats"])
        return (y * draw(*y.shape, seed=3)).mean(), (y, new)

    value = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (_, aux), gradients = value(variables["params"], x, skip)
    return aux, gradients


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_the_same_numbers(name):
    stage, x, skip = STAGES[name], draw(2, 8, 8, 3), draw(2, 16, 16, 2, seed=1)
    variables = stage.init(jax.random.key(0), x, skip)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * draw(*leaf.shape, seed=2), variables)
    compare(*(run(stage, variables, x, skip, apart, train=True) for apart in (True, False)))


def test_a_stage_has_the_same_numbers_in_evaluation():
    stage, x, skip = STAGES["resunet"], draw(2, 8, 8, 3), draw(2, 16, 16, 2, seed=1)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, stage.init(jax.random.key(0), x, skip))
    compare(*(run(stage, variables, x, skip, apart, train=False) for apart in (True, False)))


def test_the_stage_multiplies_less():
    """Of the up-sampled channels the 3x3 convolution has 4 taps of 9, and its and the 1x1's pixels are fewer."""
    x, skip = draw(2, 8, 8, 30), draw(2, 16, 16, 2)
    stage = ResUNetStage(4)
    variables = stage.init(jax.random.key(0), x, skip)

    def products(apart, layer):
        with traced_for("strips" if apart else "usual"):
            program = jax.make_jaxpr(lambda x, skip: stage.apply(variables, x, skip))(x, skip)
        return sum(flops // 2 for names, flops in matrix_flops(program.jaxpr) if layer in names)

    sums_of_taps = 16 * 9 * 30 * 4
    assert products(False, "conv1") == 2 * 16 * 16 * 9 * 32 * 4
    assert products(True, "conv1") == 2 * (9 * 9 * 4 * 30 * 16 + 16 * 16 * 9 * 2 * 4) + sums_of_taps
    assert products(False, "shortcut") == 2 * 16 * 16 * 32 * 4
    assert products(True, "shortcut") == 2 * (8 * 8 * 30 + 16 * 16 * 2) * 4


def test_a_skip_without_channels_gives_the_size_alone():
    stage, x, skip = UNetStage(3, up="nearest", convs=1), draw(2, 8, 8, 3), draw(2, 16, 16, 0)
    variables = stage.init(jax.random.key(0), x, skip)
    compare(*(run(stage, variables, x, skip, apart, train=True) for apart in (True, False)))


@pytest.mark.parametrize(
    ("coarse", "fine", "dtype", "method", "forms", "joined"),
    [
        ((2, 8, 8), (16, 16), "float32", "nearest", "strips", True),
        ((2, 8, 8), (16, 16), "float32", "nearest", "usual", False),
        ((2, 8, 8), (16, 16), "float32", "bilinear", "strips", False),
        ((2, 8, 8), (16, 16), "bfloat16", "nearest", "strips", False),  # sums of the taps would be rounded
        ((2, 8, 8), (16, 15), "float32", "nearest", "strips", False),
        ((2, 8, 8), (32, 32), "float32", "nearest", "strips", False),
        ((1, 8, 8), (16, 16), "float32", "nearest", "strips", False),  # too few pixels
    ],
)
def test_what_is_kept_in_two_parts(coarse, fine, dtype, method, forms, joined):
    x, skip = draw(*coarse, 3).astype(dtype), draw(coarse[0], *fine, 2).astype(dtype)
    one_array = join_upsampled(x, skip, method)
    with traced_for(forms):
        result = join_upsampled(x, skip, method)
    assert isinstance(result, Joined) == joined
    assert result.shape == one_array.shape
    np.testing.assert_array_equal(whole(result), one_array)


def test_layers_that_need_one_array_get_it():
    x = Joined(draw(2, 8, 8, 3), draw(2, 16, 16, 2))
    others = Conv(2, stride=2), Conv(2, dilation=2), Conv(5, groups=5), Conv(2, 5), Conv(2, (1, 3)), Conv(2, padding=0)
    for layer in others:
        variables = layer.init(jax.random.key(0), x)
        np.testing.assert_array_equal(layer.apply(variables, x), layer.apply(variables, whole(x)))


def test_a_convolution_in_bfloat16_takes_one_array():
    x, layer = Joined(draw(2, 8, 8, 3), draw(2, 16, 16, 2)), Conv(2, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(layer.apply(variables, x), layer.apply(variables, whole(x)))


def test_numbers_of_few_bits_are_read_from_one_array():
    class Level(nn.Module):
        @nn.compact
        def __call__(self, image, train=False):
            return ResUNetStage(3, name="stage")(image, draw(2, 16, 16, 2, seed=1), train=train), {}

    model, x = WithQuantisedInputs(Level(), Quantisation(8, 8)), draw(2, 8, 8, 3)
    variables = model.init(jax.random.key(0), x)

    def ranges(apart):
        with traced_for("strips" if apart else "usual"):
            _, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
        block = new["batch_stats"]["stage"]["block1"]
        return [block[name]["input_range"] for name in ("conv1", "shortcut")]

    compare(ranges(True), ranges(False))
    assert all(low < high for low, high in ranges(True))

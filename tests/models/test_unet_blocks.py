"""The blocks of MultiResUNet, R2U-Net and ResUNet++ in NumPy and float64, and the parameters of these networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import numpy_layers as layers
from helpers.papers import conv, count, normed
from helpers.parity import FAST_COMPILE, images
from helpers.variables import drawn, shapes, variable_shapes

from jaxseg import models
from jaxseg.models.multiresunet import MultiResBlock, ResPath, convolution_widths
from jaxseg.models.r2unet import RecurrentBlock
from jaxseg.models.resunetpp import AttentionUnit, GatedUnit, SummedASPP
from jaxseg.nn import Layers, make_norm

COMMON = Layers(make_norm("instance"))


def compare(block, reference, *inputs):
    """The block's result is that of `reference(params, *inputs)`."""
    variables = drawn(block, *(jnp.asarray(x) for x in inputs))
    given = jax.jit(block.apply, compiler_options=FAST_COMPILE)(variables, *inputs)
    expected = reference(jax.tree.map(np.float64, variables["params"]), *(x.astype(np.float64) for x in inputs))
    np.testing.assert_allclose(given, expected, atol=2e-5 * np.abs(expected).max())


def layer(x, params, rate=1):
    """Convolution and norm."""
    return layers.instance_norm(layers.conv(x, params["conv"]["kernel"], rate=rate), params["norm"])


def test_a_multires_block_concatenates_three_convolutions():
    assert convolution_widths(32, 1.67) == (8, 17, 26)  # section 3.4: 51 of 53

    def reference(params, x):
        first = layers.relu(layer(x, params["conv1"]))
        second = layers.relu(layer(first, params["conv2"]))
        third = layers.relu(layer(second, params["conv3"]))
        y = layers.instance_norm(np.concatenate([first, second, third], -1), params["norm1"])
        return layers.instance_norm(layers.relu(y + layer(x, params["shortcut"])), params["norm2"])

    compare(MultiResBlock(8, common=COMMON), reference, images(6, 7))


def test_a_res_path_is_a_row_of_units():

    def reference(params, x):
        for i in "12":
            y = layers.relu(layer(x, params[f"conv{i}"])) + layer(x, params[f"shortcut{i}"])
            x = layers.instance_norm(layers.relu(y), params[f"norm{i}"])
        return x

    compare(ResPath(4, 2, COMMON), reference, images(5, 6))


@pytest.mark.parametrize("kernels", ["one", "two"])
def test_a_recurrent_layer_reads_its_input_and_its_own_result(kernels):

    def recurrent(params, x):
        first = layers.conv(x, params["forward"]["kernel"])
        y = layers.relu(layers.instance_norm(first, params["norm0"]))
        for t in (1, 2):
            if kernels == "one":
                y = layers.conv(x + y, params["forward"]["kernel"])
            else:
                y = first + layers.conv(y, params["recurrent"]["kernel"])
            y = layers.relu(layers.instance_norm(y, params[f"norm{t}"]))
        return y

    def reference(params, x):
        x = layers.conv(x, params["project"]["kernel"]) + params["project"]["bias"]
        return x + recurrent(params["layer2"], recurrent(params["layer1"], x))

    compare(RecurrentBlock(4, 2, kernels, COMMON), reference, images(6, 5))


def test_a_gated_unit_weighs_the_channels_of_a_residual_unit():

    def reference(params, x):
        unit, squeeze = params["unit"], params["squeeze"]
        y = layers.conv(layers.relu(layers.instance_norm(x, unit["norm1"])), unit["conv1"]["kernel"], 2)
        y = layers.conv(layers.relu(layers.instance_norm(y, unit["norm2"])), unit["conv2"]["kernel"])
        y = y + unit["conv2"]["bias"] + layers.conv(x, unit["shortcut"]["kernel"], 2)
        hidden = y.mean((1, 2), keepdims=True) @ squeeze["reduce"]["kernel"][0, 0] + squeeze["reduce"]["bias"]
        gate = layers.relu(hidden) @ squeeze["expand"]["kernel"][0, 0] + squeeze["expand"]["bias"]
        return y / (1 + np.exp(-gate))

    compare(GatedUnit(8, 2, common=COMMON), reference, images(6, 8))


def test_atrous_convolutions_are_summed_and_projected():

    def reference(params, x):
        y = layer(x, params["local"]) + layer(x, params["atrous1"], 2) + layer(x, params["atrous2"], 3)
        return layers.conv(y, params["project"]["kernel"]) + params["project"]["bias"]

    compare(SummedASPP(5, (2, 3), COMMON), reference, images(8, 7))


def test_the_attention_unit_weighs_the_decoder_by_both():

    def branch(x, params):
        return layers.conv(layers.relu(layers.instance_norm(x, params["norm"])), params["conv"]["kernel"])

    def reference(params, x, skip):
        y = layers.halved(branch(skip, params["skip"])) + branch(x, params["x"])
        return x * branch(y, params["weights"])

    compare(AttentionUnit(COMMON), reference, images(4, 5, 6), images(8, 10, 3))


def test_multiresunet_has_the_parameters_of_the_paper():
    """Counted by Keras: with the statistics of norms, of which some have no scale, and with a norm after the logits."""
    variables = variable_shapes(models.build("multiresunet", num_classes=1), (1, 32, 32, 3))
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    scales = sum(leaf.size for path, leaf in leaves if [p.key for p in path[-2:]] == ["norm", "scale"])
    assert sum(leaf.size for _, leaf in leaves) - scales + 2 == 7_262_750


def test_parameters_by_layer():
    def recurrent(c, o, two=False):
        return conv(1, c, o) + 2 * ((1 + two) * 9 * o * o + 6 * o)

    expected = recurrent(3, 4) + recurrent(4, 8) + conv(2, 8, 4) + recurrent(8, 4) + conv(1, 4, 5)
    assert count("r2unet", 3, num_classes=5, widths=(4, 8)) == expected
    more = 2 * 9 * (16 + 64 + 16)
    assert count("r2unet", 3, num_classes=5, widths=(4, 8), kernels="two") == expected + more

    def gated(c, o, first=False):
        unit = (0 if first else 2 * c) + conv(3, c, o, False) + 2 * o + conv(3, o, o) + conv(1, c, o, False)
        return unit + conv(1, o, max(1, o // 8)) + conv(1, max(1, o // 8), o)

    def aspp(c, o):
        return 2 * normed(3, c, o) + conv(1, o, o)

    def before(c, o):
        return 2 * c + conv(3, c, o, False)

    expected = gated(3, 4, True) + gated(4, 8) + aspp(8, 16) + before(4, 16) + 2 * before(16, 16) + gated(20, 8)
    assert count("resunetpp", 3, num_classes=5, widths=(4, 8, 16), rates=(2,)) == expected + aspp(8, 4) + conv(1, 4, 5)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "multiresunet",
            {"lengths": (1,)},
            "lengths must have a number for .*, got 1 number for 2 stages",
        ),
        ("resunetpp", {"widths": (4,)}, r"widths must be those of a stage and the bridge at least, got \(4,\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(models.build(name, num_classes=2, **{"widths": (4, 4, 4)} | fields), (1, 8, 8, 3))

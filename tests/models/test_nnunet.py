"""The networks of nnU-Net against those of MONAI and of its own package, and its rules against documented plans."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import numpy_layers as layers
from helpers import oracles
from helpers.papers import conv as conv_count
from helpers.papers import count, normed
from helpers.parity import (
    FAST_COMPILE,
    assert_close,
    check_eval,
    check_gradients,
    draw,
    images,
    load,
    nchw,
    nhwc,
)
from helpers.variables import drawn, shapes

from jaxseg import models
from jaxseg.errors import ArgumentError
from jaxseg.models.nnunet import AxisUp, ResidualBlock
from jaxseg.models.nnunet_topology import stage_widths, supervision_weights, topology
from jaxseg.nn import Layers, make_norm
from jaxseg.pretrained.rules import Rule, conv_norm, conv_transpose, layer

WIDTHS = (4, 6, 8, 8)
INSTANCE = {"norm": "instance", "act": "leaky_relu"}


@pytest.mark.parametrize(
    ("patch", "poolings"),
    [
        # nnU-Net, documentation/tutorials/edit_plans_files.md: the plan of Task120 and its two variants.
        ((1280, 1024), (8, 8)),
        ((512, 512), (7, 7)),
        ((256, 256), (6, 6)),
        ((8, 8), (1, 1)),
        ((7, 7), (0, 0)),
    ],
)
def test_the_plans_of_nnunet_have_as_many_poolings(patch, poolings):
    plan = topology(patch)
    assert plan.poolings == poolings and plan.patch == patch
    assert plan.factors == ((1, 1), *((2, 2),) * poolings[0])
    assert plan.kernels == ((3, 3),) * (poolings[0] + 1)


def test_a_short_axis_is_halved_less_often():
    # 40, 20, 10, 5 by 320, 160, 80, 40: then the longer goes on alone, from 12 pixels on, 40, 20, 10.
    plan = topology((40, 320))
    assert plan.poolings == (3, 5)
    assert plan.factors == ((1, 1), (2, 2), (2, 2), (2, 2), (1, 2), (1, 2))
    assert plan.kernels == ((3, 3),) * 6 and plan.patch == (40, 320)
    # 8 pixels of one axis alone are too few, 12 are enough.
    assert topology((7, 8)).poolings == (0, 0) and topology((7, 12)).poolings == (0, 1)
    assert topology((100, 70)).patch == (112, 80) and topology((100, 70)).poolings == (4, 4)


def test_a_coarse_axis_is_halved_and_convolved_once_the_fine_one_is_near():
    plan = topology((64, 64), (5.0, 1.0))  # spacings 5 and 1, 2, 4: the factor falls below 2 after two poolings
    assert plan.factors == ((1, 1), (1, 2), (1, 2), (2, 2), (2, 2), (2, 1))
    assert plan.kernels == ((1, 3), (1, 3), (3, 3), (3, 3), (3, 3), (3, 3))
    assert topology((64, 64), most=2).poolings == (2, 2)
    with pytest.raises(ArgumentError, match=r"patch must be .* got \(0, 64\)"):
        topology((0, 64))


def test_features_double_up_to_512_and_the_weights_of_the_levels_halve():
    assert stage_widths(8) == models.build("nnunet", num_classes=2).widths == (32, 64, 128, 256, 512, 512, 512, 512)
    assert supervision_weights(4) == (4 / 7, 2 / 7, 1 / 7)
    assert supervision_weights(1) == supervision_weights(2) == (1.0,)


def test_parameters_by_layer():
    widths = (32, 64, 128, 256)
    plain = normed(3, 3, 32) + normed(3, 32, 32)
    plain += sum(normed(3, c, o) + normed(3, o, o) for c, o in itertools.pairwise(widths))
    up = [conv_count(2, c, o) for o, c in itertools.pairwise(widths)]
    twice = [normed(3, 2 * o, o) for o in widths[:-1]]
    heads = conv_count(1, 32, 5) + conv_count(1, 64, 5)
    assert count("nnunet", 3, num_classes=5, widths=widths) == (
        plain + sum(up) + sum(twice) + sum(normed(3, o, o) for o in widths[:-1]) + heads
    )
    unit = lambda c, o: normed(3, c, o) + normed(3, o, o) + (c != o) * normed(1, c, o)  # noqa: E731
    residual = normed(3, 3, 32) + unit(32, 32)
    residual += sum(unit(c, o) + (n - 1) * unit(o, o) for c, o, n in zip(widths, widths[1:], (3, 4, 6)))
    assert count("nnunet", 3, num_classes=5, widths=widths, unit="residual") == (
        residual + sum(up) + sum(twice) + heads
    )


def dynunet(deep_supervision=True):
    from monai.networks.nets import DynUNet

    form = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3, "filters": list(WIDTHS)}
    return DynUNet(2, 3, 5, **form, trans_bias=True, deep_supervision=deep_supervision, deep_supr_num=1)


def of_dynunet():
    rules = [Rule(r"skip_layers\..*", None)]
    for theirs, ours in (("input_block", "stage0"), ("downsamples.0", "stage1"), ("downsamples.1", "stage2")):
        theirs = theirs.replace(".", r"\.")
        rules += conv_norm(rf"{theirs}\.conv(\d)\.conv", rf"{theirs}\.norm(\d)", f"encoder/{ours}/conv{{1}}")
    rules += conv_norm(r"bottleneck\.conv(\d)\.conv", r"bottleneck\.norm(\d)", "encoder/stage3/conv{1}")
    for i in range(3):
        block, ours = rf"upsamples\.{2 - i}", f"decoder/stage{i}"
        rules += layer(rf"{block}\.transp_conv\.conv", f"{ours}/up", conv_transpose)
        block += r"\.conv_block"
        rules += conv_norm(rf"{block}\.conv(\d)\.conv", rf"{block}\.norm(\d)", f"{ours}/conv{{1}}")
    return [
        *rules,
        *layer(r"output_block\.conv\.conv", "head"),
        *layer(r"deep_supervision_heads\.0\.conv\.conv", "head1"),
    ]


@pytest.fixture(scope="module")
def ours():
    return models.build("nnunet", num_classes=5, widths=WIDTHS, **INSTANCE)


def test_the_plain_network_is_that_of_monai_in_evaluation_and_training(ours):
    """At an odd size it is theirs of the image with zeros at the bottom and right."""
    torch = oracles.torch()
    pytest.importorskip("monai")
    module = dynunet()
    draw(module)
    variables, x = load(ours, module, of_dynunet()), images(19, 37)
    padded = nchw(np.pad(x, ((0, 0), (0, 5), (0, 3), (0, 0))))
    heads = []
    module.deep_supervision_heads[0].register_forward_hook(lambda *given: heads.append(given[-1]))
    with torch.no_grad():
        expected = nhwc(module.eval()(padded))[:, :19, :37]
        coarse = torch.nn.functional.interpolate(heads[-1], scale_factor=2, mode="bilinear")

    @jax.jit
    def apply(x):
        logits, out = ours.apply(variables, x, train=True)
        return ours.apply(variables, x)[0], logits, out["aux"]

    evaluated, trained, (aux,) = apply(x)
    assert_close(evaluated, expected)
    assert_close(trained, expected)
    assert_close(aux, nhwc(coarse)[:, :19, :37])


@pytest.mark.slow  # the logits above, and tests/models/test_models.py has the gradients of the layers
def test_the_gradients_of_a_step_are_those_of_monai(ours):
    oracles.torch()
    pytest.importorskip("monai")
    module = dynunet(deep_supervision=False)
    check_gradients(ours.clone(deep_supervision=False), module, of_dynunet()[:-2], (16, 24))


# The blocks of ResEnc with their shortcuts, and kernels and factors that differ between the axes.
FACTORS = ((1, 1), (2, 2), (1, 2), (2, 2))
KERNELS = ((1, 3), (3, 3), (3, 3), (3, 3))


@pytest.mark.parametrize("unit", ["plain", "residual"])
def test_the_networks_are_those_of_nnunets_own_package(unit):
    torch = oracles.torch()
    nets = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    common = {
        "input_channels": 3,
        "n_stages": 4,
        "features_per_stage": WIDTHS,
        "conv_op": torch.nn.Conv2d,
        "kernel_sizes": KERNELS,
        "strides": FACTORS,
        "num_classes": 5,
        "conv_bias": True,
        "norm_op": torch.nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": torch.nn.LeakyReLU,
    }
    blocks, convs = ((2, 2, 2, 2), 2) if unit == "plain" else ((1, 3, 4, 6), 1)
    if unit == "plain":
        module = nets.PlainConvUNet(**common, n_conv_per_stage=blocks, n_conv_per_stage_decoder=convs)
    else:
        module = nets.ResidualEncoderUNet(**common, n_blocks_per_stage=blocks, n_conv_per_stage_decoder=convs)
    model = models.build(
        "nnunet", num_classes=5, widths=WIDTHS, unit=unit, factors=FACTORS, kernels=KERNELS, **INSTANCE
    )
    check_eval(model.clone(deep_supervision=False), module, of_package(unit, convs), [(16, 32)])


def of_package(unit, convs):
    # Names of the same arrays a second time, and biases that an instance norm removes.
    rules = [Rule(r"decoder\.encoder\..*|.*\.all_modules\..*|decoder\.seg_layers\.[01]\..*", None)]
    rules += [Rule(r".*convs?\d?(\.\d)?\.conv\.bias", None)]

    def block(theirs, ours):
        return conv_norm(rf"{theirs}\.conv", rf"{theirs}\.norm", ours)

    for i in range(4):
        for j in range(6):
            if unit == "plain":
                rules += block(rf"encoder\.stages\.{i}\.0\.convs\.{j}", f"encoder/stage{i}/conv{j + 1}")
                continue
            theirs, ours_ = rf"encoder\.stages\.{i}\.blocks\.{j}", f"encoder/stage{i}/block{j + 1}"
            rules += block(rf"{theirs}\.conv(\d)", f"{ours_}/conv{{1}}") + block(
                rf"{theirs}\.skip\.\d", f"{ours_}/shortcut"
            )
    rules += block(r"encoder\.stem\.convs\.0", "encoder/stem")
    for i in range(3):
        theirs, ours_ = rf"decoder\.transpconvs\.{2 - i}", f"decoder/stage{i}/up"
        if FACTORS[i + 1] == (2, 2):
            rules += layer(theirs, ours_, conv_transpose)
        else:
            window = lambda x: x.transpose(0, 2, 3, 1).reshape(len(x), -1)  # noqa: E731
            rules += [Rule(rf"{theirs}\.weight", f"params/{ours_}/dense/kernel", window)]
            rules += [Rule(rf"{theirs}\.bias", f"params/{ours_}/bias")]
        for j in range(convs):
            rules += block(rf"decoder\.stages\.{2 - i}\.convs\.{j}", f"decoder/stage{i}/conv{j + 1}")
    return rules + layer(r"decoder\.seg_layers\.2", "head")


def test_the_residual_block_takes_means_where_it_reduces_and_projects_where_channels_change():
    common = Layers(make_norm("instance"), jax.nn.leaky_relu)
    x = images(6, 8, 4)
    leaky = lambda x: np.where(x > 0, x, 0.01 * x)  # noqa: E731
    for features in (4, 6):
        block = ResidualBlock(features, stride=(2, 2), common=common)
        variables = drawn(block, jnp.asarray(x))
        params = variables["params"]
        assert ("shortcut" in params) == (features == 6)

        def layer(x, name, stride=1, params=params):
            return layers.instance_norm(layers.conv(x, params[name]["conv"]["kernel"], stride), params[name]["norm"])

        h = layer(leaky(layer(x, "conv1", 2)), "conv2")
        means = x.astype(np.float64).reshape(2, 3, 2, 4, 2, 4).mean((2, 4))
        expected = leaky(h + (layer(means, "shortcut") if features == 6 else means))
        given = jax.jit(block.apply, compiler_options=FAST_COMPILE)(variables, x)
        np.testing.assert_allclose(given, expected, atol=1e-5)


def test_an_axis_alone_is_enlarged():
    up, x = AxisUp(3, (1, 2)), images(4, 5, 2)
    variables = drawn(up, jnp.asarray(x))
    kernel, bias = variables["params"]["dense"]["kernel"], variables["params"]["bias"]
    given = jax.jit(up.apply)(variables, x)
    assert given.shape == (2, 4, 10, 3)
    for column in (0, 1):
        np.testing.assert_allclose(given[:, :, column::2], x @ kernel[:, 3 * column : 3 * column + 3] + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": (1, 2)}, r"nnunet.blocks must have a value for each of the 3 stages of widths, got \(1, 2\)"),
        ({"factors": ((2, 2), (2, 2), (2, 2))}, r"nnunet.factors must start with \(1, 1\), .* got \(2, 2\)"),
        ({"factors": ((1, 1), (0, 2), (2, 2))}, r"nnunet.factors must be .* of at least 1, got \(\(1, 1\), \(0, 2\)"),
        ({"kernels": ((3, 3), (2, 3), (3, 3))}, "nnunet.kernels must have odd sides"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        shapes(models.build("nnunet", num_classes=2, widths=(4, 4, 4)).clone(**fields), (1, 8, 8, 3))

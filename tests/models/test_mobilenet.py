"""MobileNetV2, MobileNetV3 and LR-ASPP against torchvision, and their published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.parity import check_pyramid
from helpers.variables import count_parameters

from jaxseg import models
from jaxseg.models import encoders
from jaxseg.models.encoders.mobilenet import MobileNetV2, MobileNetV3, places
from jaxseg.nn import InvertedResidual, Layers, make_norm, round_channels
from jaxseg.pretrained import mobilenet as rules

# Rows of a MobileNetV2 with a second block in one of them, which has the code of further ones; and those published.
SHORT = ((6, 24, 2, 2), (6, 32, 1, 2), (6, 64, 1, 2), (6, 96, 1, 1), (6, 160, 1, 2), (6, 320, 1, 1))
each_depth = pytest.mark.parametrize("rows", some_slow((SHORT, rules.V2), (rules.V2,)))


def torchvision_v2(rows):
    """Returns the network and the numbers of its layers at the ends of our levels."""
    module = oracles.torchvision().models.mobilenet_v2(
        width_mult=0.35, inverted_residual_setting=[(1, 16, 1, 1), *rows]
    )
    return module, (1, 3, 4, 6, 9) if rows == SHORT else (1, 3, 6, 13, 18)


@each_depth
@at_each_size
def test_mobilenet_v2_is_torchvisions(rows, size):
    module, at = torchvision_v2(rows)
    check_pyramid(MobileNetV2(width=0.35, rows=rows), module, rules.torchvision_v2(rows), at, [size])


@at_each_size
def test_mobilenet_v3_small_is_torchvisions(size):
    module = oracles.torchvision().models.mobilenet_v3_small()
    check_pyramid(MobileNetV3(variant="small"), module, rules.torchvision_v3_small(), (0, 1, 3, 8, 12), [size])


def dilate(module, output_stride: int, channels) -> None:
    """segmentation_models.pytorch's way: every convolution from the stage on gets stride 1 and its dilation."""
    replace = oracles.smp().encoders._utils.replace_strides_with_dilation
    for layers, rate in channels[output_stride]:
        for layer in layers:
            replace(module=layer, dilation_rate=rate)


@each_depth
@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilated_mobilenet_v2_is_segmentation_models(output_stride, rows):
    module, at = torchvision_v2(rows)
    two, three = at[2] + 1, at[3] + 1
    stages = {16: [(module.features[three:], 2)], 8: [(module.features[two:three], 2), (module.features[three:], 4)]}
    dilate(module, output_stride, stages)
    encoder = MobileNetV2(width=0.35, rows=rows, output_stride=output_stride)
    assert encoder.strides == (2, 4, 8, output_stride, output_stride)
    check_pyramid(encoder, module, rules.torchvision_v2(rows), at, ((65, 79),))


def test_big_members_take_torchvisions_weights():
    tv = oracles.torchvision().models
    for name, module, mapping, widths, head in (
        ("mobilenet_v2", tv.mobilenet_v2(), rules.torchvision_v2, (16, 24, 32, 96, 1280), 1_281_000),
        ("mobilenet_v3_large", tv.mobilenet_v3_large(), rules.torchvision_v3_large, (16, 24, 40, 112, 960), 2_511_080),
        ("mobilenet_v3_small", tv.mobilenet_v3_small(), rules.torchvision_v3_small, (16, 16, 24, 48, 576), 1_615_848),
    ):
        encoder = encoders.build(name)
        assert encoder.widths == widths and encoder.strides == (2, 4, 8, 16, 32)
        parity.load(encoder, module, mapping())
        published = {"mobilenet_v2": 3_504_872, "mobilenet_v3_large": 5_483_032, "mobilenet_v3_small": 2_542_856}
        assert count_parameters(encoder) + head == published[name] == sum(p.numel() for p in module.parameters())


def test_the_last_convolution_can_be_left_out():
    module = oracles.torchvision().models.mobilenet_v2()
    encoder = MobileNetV2(last=None)
    assert encoder.widths == (16, 24, 32, 96, 320)
    parity.load(encoder, module, rules.torchvision_v2(last=False))
    encoder = MobileNetV3(last=False)
    assert encoder.widths == (16, 24, 40, 112, 160)
    parity.load(encoder, oracles.torchvision().models.mobilenet_v3_large(), rules.torchvision_v3_large(last=False))


def test_channels_are_rounded_as_the_reference_does():
    theirs = oracles.torchvision().models._utils._make_divisible
    for channels in np.arange(1, 700, 2.75):
        assert round_channels(channels) == theirs(channels, 8)
    for width in (0.35, 0.5, 0.75, 1.0, 1.4):
        module = oracles.torchvision().models.mobilenet_v2(width_mult=width)
        wide = [module.features[i][-1].num_features if i == 18 else module.features[i].out_channels for i in (1, 6)]
        assert [MobileNetV2(width=width).widths[i] for i in (0, 2)] == wide


def test_blocks_are_dilated_where_they_would_shrink():
    found = places([1, 2, 2, 1, 2, 1], 8)
    assert [(p.level, p.number) for p in found] == [(0, 1), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert [(p.stride, p.dilation) for p in found] == [(1, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 2)]
    assert [p.dilation for p in places([2, 2, 2, 2], 8)] == [1, 1, 2, 4]


def test_inverted_residual_says_what_it_cannot_add():
    with pytest.raises(ValueError, match="cannot add 4 channels to 6 at stride 1"):
        InvertedResidual(6, 8, residual=True).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))


def test_rows_name_their_activation():
    encoder = MobileNetV3(rows=((3, 8, 8, False, "swish", 2),))
    with pytest.raises(ValueError, match="one of relu, hard_swish, got 'swish'"):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_a_norms_own_epsilon_holds():
    """The published epsilon is a default: what the user says comes first."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 3)), jnp.float32)
    rows = ((3, 8, 8, False, "relu", 2),)
    encoder = MobileNetV3(rows=rows, divisor=4)
    variables = encoder.init(jax.random.key(0), x)
    a, b, c = (
        MobileNetV3(rows=rows, divisor=4, common=Layers(norm)).apply(variables, x)[-1]
        for norm in (make_norm("batch"), make_norm("batch", epsilon=1e-3), make_norm("batch", epsilon=0.5))
    )
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0


@at_each_size
def test_lraspp_is_torchvisions(size):
    module = oracles.torchvision().models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5
    )
    model = models.build("lraspp", num_classes=5)
    mapping = rules.torchvision_lraspp(rules.torchvision_v3_large())
    parity.check_eval(model, module, mapping, [size], theirs=lambda result: [result["out"]])


def test_lraspp_count():
    # 3,221,538: torchvision's figure for its weights of 21 classes, running statistics not counted.
    assert count_parameters(models.build("lraspp", num_classes=21)) == 3_221_538


def test_lraspp_takes_the_level_it_is_told():
    tiny = {"rows": ((3, 8, 8, False, "relu", 2), (3, 16, 12, True, "hard_swish", 2)), "divisor": 4}
    build = functools.partial(models.build, "lraspp", num_classes=2, encoder="mobilenet_v3_small", encoder_args=tiny)
    for stride, channels in ((2, 16), (4, 8), (100, 8)):
        model = build(low_stride=stride)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 9, 9, 3)))
        assert shapes["params"]["head_low"]["kernel"].shape == (1, 1, channels, 2)
    with pytest.raises(ValueError, match="no level of stride 1 or less above the coarsest"):
        jax.eval_shape(build(low_stride=1).init, jax.random.key(0), jnp.zeros((1, 9, 9, 3)))

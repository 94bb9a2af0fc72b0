"""EfficientNet, Lite and V2 against torchvision and timm, and their published sizes."""

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
from jaxseg.models.encoders.efficientnet import ROWS, EfficientNet
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


@pytest.mark.slow  # blocks of each kind are compared below
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


LITE = (4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568)
V2 = {"s": 21_458_488, "m": 54_139_356, "l": 118_515_272}


@pytest.mark.parametrize("n", some_slow(range(5), (0, 1, 3, 4)))
def test_counts_of_lite_are_those_of_timm(n):
    encoder = encoders.build(f"efficientnet_lite{n}", last=True)
    assert encoder.widths[-1] == 1280
    assert count_parameters(encoder) + 1000 * 1280 + 1000 == LITE[n]


@pytest.mark.parametrize("size", some_slow(V2, ("m", "l")))
def test_counts_of_v2_are_those_of_torchvision(size):
    encoder = encoders.build(f"efficientnet_v2_{size}", last=True)
    assert count_parameters(encoder) + 1000 * 1280 + 1000 == V2[size]


@pytest.mark.slow  # a third of a billion numbers
@pytest.mark.parametrize("size", ["s", "m", "l"])
def test_v2_takes_the_weights_of_torchvision_and_timm(size):
    rows = ROWS[f"v2_{size}"]
    theirs = _zeros(getattr(oracles.torchvision().models, f"efficientnet_v2_{size}"))
    parity.load(encoders.build(f"efficientnet_v2_{size}"), theirs, rules.torchvision(rows=rows))
    theirs = _zeros(functools.partial(oracles.timm().create_model, f"tf_efficientnetv2_{size}"))
    parity.load(encoders.build(f"tf_efficientnet_v2_{size}"), theirs, rules.timm(rows=rows))


SMALL_LITE = ((1, 3, 8, 1, 1), (6, 3, 16, 2, 2), (6, 5, 24, 2, 2))
SMALL_V2 = ((1, 3, 8, 2, 1, True), (4, 3, 16, 2, 2, True), (4, 3, 24, 2, 2))


def of_timm(blocks, **fields):
    """timm's network of features with these blocks, in the form of its ports of TensorFlow."""
    oracles.timm()
    from timm.models import _efficientnet_builder as builder
    from timm.models.efficientnet import EfficientNetFeatures

    norm = functools.partial(oracles.torch().nn.BatchNorm2d, eps=1e-3)
    return EfficientNetFeatures(
        block_args=builder.decode_arch_def(blocks),
        out_indices=(0, 1, 2),
        stem_size=8,
        pad_type="same",
        norm_layer=norm,
        **fields,
    )


SIZES_OF_SAME = ((33, 46), (16, 31))  # TensorFlow's zeros differ for odd and even sizes


def test_lite_is_timms():
    blocks = [["ds_r1_k3_s1_e1_c8"], ["ir_r2_k3_s2_e6_c16"], ["ir_r2_k5_s2_e6_c24"]]
    module = of_timm(blocks, act_layer=oracles.torch().nn.ReLU6)
    encoder = encoders.build("efficientnet_lite0", rows=SMALL_LITE, stem=8)
    theirs = rules.timm(rows=SMALL_LITE, fixed_ends=True)
    parity.check_eval(encoder, module, theirs, SIZES_OF_SAME, ours=list, theirs=list)


def test_lite_is_that_of_its_package():
    """Of the package efficientnet-lite-pytorch, which images of any size go through without a size of its own."""
    oracles.torch()
    peer = pytest.importorskip("efficientnet_lite_pytorch")
    module = peer.EfficientNet.from_name("efficientnet-lite0", image_size=None, depth_coefficient=0.3)
    module.forward = module.extract_features
    encoder = encoders.build("efficientnet_lite0", depth=0.3, last=True)
    theirs = rules.numbered(0.3, last=True, fixed_ends=True)
    parity.check_eval(encoder, module, theirs, SIZES_OF_SAME, ours=lambda levels: levels[-1:])


def test_v2_with_the_zeros_of_tensorflow_is_timms():
    blocks = [["cn_r2_k3_s1_e1_c8_skip"], ["er_r2_k3_s2_e4_c16"], ["ir_r2_k3_s2_e4_c24_se0.25"]]
    module = of_timm(blocks, act_layer=oracles.torch().nn.SiLU)
    encoder = encoders.build("tf_efficientnet_v2_s", rows=SMALL_V2, stem=8)
    parity.check_eval(encoder, module, rules.timm(rows=SMALL_V2), SIZES_OF_SAME, ours=list, theirs=list)


def test_the_blocks_of_b0_are_torchvisions():
    oracles.torchvision()
    from torchvision.models import efficientnet as peer

    blocks = ((1, 3, 1, 8, 8, 1), (6, 3, 2, 8, 16, 2), (6, 5, 2, 16, 24, 2))
    module = peer.EfficientNet([peer.MBConvConfig(*block) for block in blocks], dropout=0.0, last_channel=32)
    encoder = encoders.build("efficientnet_b0", rows=SMALL_LITE, stem=8, last=True, features=32)
    check_pyramid(encoder, module, rules.torchvision(rows=SMALL_LITE, last=True), (1, 2, 4), ((65, 79),))


def test_v2_is_torchvisions():
    oracles.torchvision()
    from torchvision.models import efficientnet as peer

    config = [
        peer.FusedMBConvConfig(1, 3, 1, 8, 8, 2),
        peer.FusedMBConvConfig(4, 3, 2, 8, 16, 2),
        peer.MBConvConfig(4, 3, 2, 16, 24, 2),
    ]
    norm = functools.partial(oracles.torch().nn.BatchNorm2d, eps=1e-3)
    module = peer.EfficientNet(config, dropout=0.0, last_channel=32, norm_layer=norm)
    encoder = encoders.build("efficientnet_v2_s", rows=SMALL_V2, stem=8, last=True, features=32)
    check_pyramid(encoder, module, rules.torchvision(rows=SMALL_V2, last=True), (1, 2, 4), ((33, 46),))


def _zeros(make):
    """A network of torch whose weights are zero, so that drawing them takes no time."""
    torch = oracles.torch()
    with torch.device("meta"):
        module = make()
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for array in (*module.parameters(), *module.buffers()):  # that memory may hold NaN, which is refused
            array.zero_()
    return module


@pytest.mark.parametrize("size", some_slow((2, 7), (7,)))
def test_big_members_take_torchvisions_weights(size):
    torch = oracles.torch()
    module = _zeros(getattr(oracles.torchvision().models, f"efficientnet_b{size}"))
    norms = {m.eps for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    encoder = encoders.build(f"efficientnet_b{size}")
    assert norms == {encoder.epsilon}
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

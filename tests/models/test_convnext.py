"""ConvNeXt against torchvision, timm and transformers, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size, some_slow
from helpers.parity import check_pyramid
from helpers.variables import count_parameters, drawn

from jaxseg.models import encoders
from jaxseg.models.encoders.convnext import ConvNeXt, ResponseNorm
from jaxseg.pretrained import convnext as rules

WIDTHS, DEPTHS = (4, 6, 8, 10), (1, 2, 1, 1)


def small_torchvision():
    convnext = oracles.torchvision().models.convnext
    settings = [convnext.CNBlockConfig(c, o, n) for c, o, n in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS)]
    return convnext.ConvNeXt(settings)


@at_each_size
def test_pyramid_is_torchvisions(size):
    module = small_torchvision()
    encoder = ConvNeXt(WIDTHS, DEPTHS, rounding="down")
    check_pyramid(encoder, module, rules.torchvision(), (1, 3, 5, 7), [size])


def test_pyramid_rounded_up_is_torchvisions():
    module, encoder = small_torchvision(), ConvNeXt(WIDTHS, DEPTHS, rounding="up")
    # Where the strides divide the image there is nothing to round.
    check_pyramid(encoder, module, rules.torchvision(), (1, 3, 5, 7), ((32, 64),))


def test_normed_pyramid_is_transformers():
    peers = oracles.transformers()
    names = ["stage1", "stage2", "stage3", "stage4"]
    config = peers.ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS), out_features=names)
    encoder = ConvNeXt(WIDTHS, DEPTHS, rounding="down", output_norm=True)
    parity.check_eval(
        encoder,
        peers.ConvNextBackbone(config),
        rules.transformers(),
        ((65, 79),),
        ours=list,
        theirs=lambda result: list(result.feature_maps),
    )


def small_v2():
    module = oracles.timm().create_model("convnextv2_tiny", depths=DEPTHS, dims=WIDTHS)
    parity.draw(module)
    return module.eval(), ConvNeXt(WIDTHS, DEPTHS, response_norm=True, rounding="down")


def test_v2_is_timms():
    module, encoder = small_v2()
    module.forward = lambda x: module.forward_intermediates(x, intermediates_only=True)
    parity.check_eval(encoder, module, rules.timm(), ((65, 79),), ours=list, theirs=list)


def test_v2_is_transformers():
    peers = oracles.transformers()
    names = ["stage1", "stage2", "stage3", "stage4"]
    config = peers.ConvNextV2Config(hidden_sizes=list(WIDTHS), depths=list(DEPTHS), out_features=names)
    encoder = ConvNeXt(WIDTHS, DEPTHS, response_norm=True, rounding="down", output_norm=True)
    variables = parity.load(encoder, peers.ConvNextV2Backbone(config), rules.transformers())
    assert variables["params"]["stage0"]["block1"]["response"]["scale"].shape == (16,)


# Parameters with the norm and the classifier, as timm's documentation gives them.
V2 = {
    "atto": 3_708_400,
    "femto": 5_233_240,
    "pico": 9_066_280,
    "nano": 15_623_800,
    "tiny": 28_635_496,
    "base": 88_717_800,
    "large": 197_956_840,
}


@pytest.mark.parametrize("size", some_slow(V2, set(V2) - {"nano"}))
def test_counts_of_v2_are_those_of_timm(size):
    encoder = encoders.build(f"convnextv2_{size}")
    c = encoder.widths[-1]
    assert count_parameters(encoder) + 2 * c + 1000 * c + 1000 == V2[size]


def test_response_norm_of_a_black_image_has_a_finite_gradient():
    norm = ResponseNorm()
    params = {"params": {"scale": jnp.full(3, 0.5), "bias": jnp.ones(3)}}
    value, grad = jax.value_and_grad(lambda x: norm.apply(params, x).sum())(jnp.zeros((1, 2, 2, 3)))
    assert value == 12.0
    np.testing.assert_allclose(grad, 1.0)  # x n is of second order there
    # By hand: lengths 2 and 4 over four pixels, mean 3.
    x = jnp.stack([jnp.ones((2, 2)), jnp.full((2, 2), 2.0)], -1)[None]
    params = {"params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    np.testing.assert_allclose(norm.apply(params, x)[0, 0, 0], [1 + 2 / 3, 2 + 2 * 4 / 3], rtol=1e-5)


def test_timms_weights_fit():
    module = oracles.timm().create_model("convnext_tiny", depths=DEPTHS, dims=WIDTHS)
    parity.draw(module)
    encoder = ConvNeXt(WIDTHS, DEPTHS)
    x = parity.images(32, 64)
    theirs = parity.nhwc(module.eval().forward_intermediates(parity.nchw(x), intermediates_only=True)[-1])
    ours = jax.jit(encoder.apply, compiler_options=parity.FAST_COMPILE)(parity.load(encoder, module, rules.timm()), x)
    parity.assert_close(ours[-1], theirs)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("tiny", 28_589_128),
        ("small", 50_223_688),
        pytest.param("base", 88_591_464, marks=pytest.mark.slow),
        pytest.param("large", 197_767_336, marks=pytest.mark.slow),
    ],
)
def test_counts_are_the_published_ones(name, published):
    encoder = encoders.build(f"convnext_{name}")
    features = encoder.widths[-1]
    assert count_parameters(encoder) + 2 * features + 1000 * features + 1000 == published


def test_convnext_tiny_takes_torchvisions_weights():
    module = oracles.torchvision().models.convnext_tiny()
    encoder = encoders.build("convnext_tiny")
    parity.load(encoder, module, rules.torchvision())
    theirs = [m.p for m in module.modules() if type(m).__name__ == "StochasticDepth"]
    ours = [encoder.drop * i / (len(theirs) - 1) for i in range(len(theirs))]
    np.testing.assert_allclose(ours, theirs)


def test_rounding_down_needs_enough_pixels():
    encoder = ConvNeXt((4, 6), (1, 1), rounding="down")
    with pytest.raises(ValueError, match="at least 4 pixels a side, got 3x9"):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 3, 9, 3)))
    with pytest.raises(ValueError, match="must be as many as widths"):
        jax.eval_shape(ConvNeXt((4, 6), (1,)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_gradients_reach_every_parameter():
    encoder = ConvNeXt((4, 6), (1, 2), output_norm=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 15, 18, 3)), jnp.float32)
    variables = drawn(encoder, x)

    def loss(params):
        levels = encoder.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(0)})
        return sum((level**3).sum() for level in levels)

    gradients = jax.jit(jax.grad(loss), compiler_options=parity.FAST_COMPILE)(variables["params"])
    for path, g in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        assert np.isfinite(g).all() and np.abs(g).max() > 0, path

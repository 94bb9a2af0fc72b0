"""ConvNeXt against torchvision, timm and transformers, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size
from helpers.parity import check_pyramid
from helpers.variables import count_parameters, drawn

from jaxseg.models import encoders
from jaxseg.models.encoders.convnext import ConvNeXt
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

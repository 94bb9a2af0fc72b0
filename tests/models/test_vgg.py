"""VGG encoders beside torchvision, and the networks built on them beside their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from helpers.marks import at_each_size
from helpers.papers import conv
from helpers.variables import drawn, variable_shapes

from jaxseg import pretrained
from jaxseg.models import encoders
from jaxseg.pretrained import vgg as rules

jit = functools.partial(jax.jit, compiler_options=parity.FAST_COMPILE)

PUBLISHED = [("vgg11", 132_863_336), ("vgg13", 133_047_848), ("vgg16", 138_357_544), ("vgg19", 143_667_240)]
NAMES = [name for name, _ in PUBLISHED]
DENSE = conv(7, 512, 4096) + conv(1, 4096, 4096) + conv(1, 4096, 1000)  # the three layers that the encoder leaves out


def shapes_of(module, channels=3, size=64):
    return variable_shapes(module, (1, size, size, channels))


def count(module, channels=3) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(module, channels)["params"]))


def on_meta(name):
    """The torch network without memory for its weights."""
    torchvision = oracles.torchvision()
    import torch

    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_parameters_are_the_published_ones(name, published):
    assert count(encoders.build(name)) + DENSE == published
    norms = sum(2 * 2 * c * n for c, n in zip((64, 128, 256, 512, 512), encoders.build(name).depths)) // 2
    assert count(encoders.build(f"{name}_bn")) + DENSE == published + norms
    assert count(encoders.build(f"{name}_bn", use_bias=False)) + DENSE == published + norms // 2


@pytest.mark.parametrize("name", [name + norm for name in NAMES for norm in ("", "_bn")])
def test_every_weight_of_torchvision_has_a_place(name):
    state = {key: np.broadcast_to(np.float32(0), x.shape) for key, x in on_meta(name).state_dict().items()}
    loaded = pretrained.convert(state, rules.torchvision(name))
    ours = pretrained.flatten(shapes_of(encoders.build(name)))
    assert {path: x.shape for path, x in loaded.items()} == {path: x.shape for path, x in ours.items()}


@at_each_size
@pytest.mark.parametrize("name", [pytest.param("vgg11", marks=pytest.mark.slow), "vgg11_bn"])
def test_features_are_torchvisions(name, size):
    torchvision = oracles.torchvision()
    import torch

    class Levels(torch.nn.Module):
        """The features before each pooling, and the last."""

        def __init__(self):
            super().__init__()
            self.features = getattr(torchvision.models.vgg, name)(weights=None, init_weights=False).features

        def forward(self, x):
            levels = []
            for module in self.features:
                if isinstance(module, torch.nn.MaxPool2d):
                    levels.append(x)
                x = module(x)
            return [*levels, x]

    # Where the strides divide the image there is nothing to round.
    for encoder, each in ((encoders.build(name, rounding="floor"), size), (encoders.build(name), (32, 64))):
        same = {"ours": lambda pyramid: pyramid, "theirs": lambda pyramid: pyramid}
        parity.check_eval(encoder, Levels(), rules.torchvision(name), [each], **same)


def test_pooled_levels_are_the_poolings():
    fields = {"channels": [4, 6, 8], "depths": [1, 2, 1]}
    before, after = (encoders.build("vgg16", levels=levels, **fields) for levels in ("convolved", "pooled"))
    assert (before.strides, after.strides) == ((1, 2, 4, 8), (2, 4, 8))
    assert (before.widths, after.widths) == ((4, 6, 8, 8), (4, 6, 8))
    x = jnp.asarray(parity.images(13, 9))
    variables = drawn(before, x)
    convolved, pooled = jit(before.apply)(variables, x), jit(after.apply)(variables, x)
    assert [f.shape[1:3] for f in pooled] == [(7, 5), (4, 3), (2, 2)]
    np.testing.assert_array_equal(pooled[-1], convolved[-1])
    padded = np.pad(convolved[0], ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    np.testing.assert_array_equal(pooled[0], padded.reshape(2, 7, 2, 5, 2, 4).max((2, 4)))


def test_output_stride_gives_the_same_features_more_densely():
    """At every second pixel of the dilated stage: the strided stage's features (Chen 2015, section 3.1, Fig. 1)."""
    fields = {"channels": [4, 6, 8], "depths": [1, 1, 2]}
    strided, dilated = (encoders.build("vgg16", levels="convolved", output_stride=s, **fields) for s in (32, 2))
    assert dilated.strides == (1, 2, 2, 2)
    x = jnp.asarray(parity.images(32, 48))
    variables = drawn(strided, x)

    dense, coarse = jit(dilated.apply)(variables, x), jit(strided.apply)(variables, x)
    np.testing.assert_allclose(dense[1], coarse[1], rtol=1e-6)
    assert dense[2].shape[1:3] == (16, 24) and dense[3].shape == dense[2].shape
    kernels = variables["params"]["stage2"]
    pooled = jax.lax.reduce_window(
        dense[1], -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]
    )
    y = pooled[:, ::2, ::2]
    for i in (1, 2):
        y = jax.lax.conv_general_dilated(
            y, kernels[f"conv{i}"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = jax.nn.relu(y + kernels[f"conv{i}"]["bias"][None, None, None])
    np.testing.assert_allclose(dense[2][:, ::2, ::2], y, rtol=1e-5, atol=1e-5)


def test_dropout_follows_the_deeper_poolings():
    encoder = encoders.build("vgg16", channels=[4, 4, 4, 4, 4], depths=[1] * 5, levels="pooled", dropout=0.5)
    x = jnp.asarray(parity.images(64, 64))
    variables = drawn(encoder, x)
    run = jit(lambda key: encoder.apply(variables, x, train=True, rngs={"dropout": key}))
    one, two = run(jax.random.key(1)), run(jax.random.key(2))
    for i in range(5):
        assert (np.abs(one[i] - two[i]).max() > 0) == (i >= 2)


def test_fields_must_agree():
    x = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="of one length"):
        encoders.build("vgg16", channels=[4, 4]).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        encoders.build("vgg16", kernel_size=2).init(jax.random.key(0), x)

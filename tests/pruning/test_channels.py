"""Channels that go together: by hand, and for every network against the same network with zeros in their place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import TINY

from jaxseg import models
from jaxseg.errors import ArgumentError
from jaxseg.nn import BatchNorm, Conv, ConvTranspose
from jaxseg.pruning.channels import channel_groups, shapes_of
from jaxseg.pruning.fields import smaller_fields
from jaxseg.pruning.removal import (
    by_chance,
    by_norm,
    by_scale,
    by_taylor,
    kept_channels,
    removed,
    silenced,
    without_channels,
)

IMAGE = (16, 16, 3)


class Toy(nn.Module):
    """A residual sum, a concatenation with the image, a depthwise and a transposed convolution."""

    width: int = 4
    inner: int = 6

    @nn.compact
    def __call__(self, image, *, train=False):
        x = Conv(self.width, use_bias=False, name="first")(image)
        x = BatchNorm(name="norm")(x, train=train)
        y = nn.relu(Conv(self.inner, name="inner")(x))
        y = Conv(self.inner, groups=self.inner, name="depthwise")(y)
        x = x + Conv(self.width, kernel_size=1, name="second")(y)
        x = ConvTranspose(self.width, 2, 2, name="up")(jnp.concatenate([x, image], -1))
        return Conv(5, kernel_size=1, name="head")(x), {"aux": ()}


class Mixing(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.LayerNorm(name="norm")(Conv(self.width, name="first")(image))
        return Conv(5, name="head")(x), {"aux": ()}


def random_variables(shapes, seed=0):
    """Variables of any values; variances are positive."""
    rng = np.random.default_rng(seed)
    flat = {path: 0.5 * rng.normal(size=x.shape).astype(np.float32) for path, x in shapes.items()}
    return unflatten_dict({p: np.abs(x) + 0.3 if p.endswith("/var") else x for p, x in flat.items()}, sep="/")


def places_of(groups, path):
    """[(axis, indices of the first channels, kept)] of the groups that an array has."""
    return [
        (axis, indices[:, 0].tolist(), group.kept)
        for group in groups
        for (name, axis), indices in group.places.items()
        if name == path
    ]


def test_the_groups_of_a_network_by_hand():
    groups = channel_groups(Toy(), Toy(width=2, inner=3), IMAGE)
    residual = next(group for group in groups if ("params/first/kernel", 3) in group.places)
    assert (residual.size, residual.kept) == (4, 2)
    assert residual.places.keys() == {
        *(("params/first/kernel", 3), ("params/norm/scale", 0), ("params/norm/bias", 0)),
        *(("batch_stats/norm/mean", 0), ("batch_stats/norm/var", 0), ("params/inner/kernel", 2)),
        *(("params/second/kernel", 3), ("params/second/bias", 0), ("params/up/kernel", 2)),
    }
    up = sorted(places_of(groups, "params/up/kernel"))
    assert up == [(2, [0, 1, 2, 3], 2), (2, [4, 5, 6], 3), (3, [0, 1, 2, 3], 2)]
    assert places_of(groups, "params/depthwise/kernel") == [(3, [0, 1, 2, 3, 4, 5], 3)]
    assert removed(groups) == (14, 7)


def compare(network, smaller, seed=0):
    """Removes random channels: the arrays are those of the smaller network, and it computes what zeros would give."""
    shapes = shapes_of(network, IMAGE)
    variables = random_variables(shapes, seed)
    groups = channel_groups(network, smaller, IMAGE)
    kept = kept_channels(groups, by_chance(seed))
    small = without_channels(variables, groups, kept)
    assert {path: x.shape for path, x in flatten_dict(small, sep="/").items()} == {
        path: x.shape for path, x in shapes_of(smaller, IMAGE).items()
    }
    image = jax.random.normal(jax.random.key(2), (2, *IMAGE))

    def logits(model, values):
        program = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=FAST_COMPILE)
        return np.asarray(program(values, image))

    whole = logits(network, silenced(variables, groups, kept))
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(logits(smaller, small), whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_a_network_of_any_layers_without_its_channels():
    compare(Toy(), Toy(width=3, inner=2), seed=1)


REFUSED = {
    "attention_decoder": r"of .* cannot be removed one by one, because of a change of shape that splits or joins",
    "dcgan": "a change of shape that splits or joins channels",
    "encnet": "a sum, mean or norm over the channels",
    "pointrend": "the operation gather",
    "mask2former": "a sum, mean or norm over the channels",
    **{name: "a change of shape that splits or joins" for name in ("dpt", "eomt", "knet", "linear_head", "segmenter")},
    **{
        name: "a sum, mean or norm over the channels"
        for name in ("danet", "gcnet", "pidnet", "pp_liteseg", "segformer", "segnext", "transunet", "unetr")
    },
}
ABLE = sorted(TINY.keys() - REFUSED.keys())


def half(name):
    """A tiny network and the same with half of the channels."""
    # ENet's first channels are those of a convolution and the three of the image.
    tiny = TINY[name] | ({"widths": [8, 8, 8]} if name == "enet" else {})
    network = models.build(name, num_classes=5, **tiny)
    # At few channels a smaller MobileNet has a block without its first convolution, and an STDC too few for its parts.
    own = {"lraspp": {"width": 4}, "pp_liteseg": {"context_width": 4}}
    fields = own[name] if name in own else smaller_fields(network, 0.5)
    if name in ("ann", "isanet"):  # the scale of their attention depends on the channels of the keys
        fields |= {"key_width": TINY[name]["key_width"]}
    inner = fields["encoder_args"] if "encoder_args" in fields else {}
    args = tiny | fields | ({"encoder_args": dict(TINY[name]["encoder_args"]) | inner} if inner else {})
    return network, models.build(name, num_classes=5, **args)


@pytest.mark.parametrize("name", some_slow(ABLE, set(ABLE) - {"encoder_decoder", "resunet", "unet"}))
def test_a_network_without_half_of_its_channels(name):
    compare(*half(name))


@pytest.mark.parametrize("name", some_slow(sorted(REFUSED), set(REFUSED) - {"segformer"}))
def test_networks_that_mix_their_channels_are_refused(name):
    with pytest.raises(ArgumentError, match=REFUSED[name]):
        channel_groups(*half(name), IMAGE)


def test_networks_that_do_not_compare_are_refused():
    with pytest.raises(ArgumentError, match=r"^the channels of first/kernel cannot be removed .* norm over the chan"):
        channel_groups(Mixing(), Mixing(2), IMAGE)
    with pytest.raises(
        ArgumentError, match=r"^the smaller network must not have more channels, and depthwise/bias has"
    ):
        channel_groups(Toy(), Toy(inner=7), IMAGE)
    small = models.build("cnn", num_classes=5, widths=(4,), hidden=8)
    with pytest.raises(
        ArgumentError, match=r"^the smaller network must have the layers .* only the network has .*stage1"
    ):
        channel_groups(models.build("cnn", num_classes=5, widths=(4, 8), hidden=8), small, IMAGE)
    assert channel_groups(Toy(), Toy(), IMAGE) == ()


# --- criteria ---


@pytest.fixture(scope="module")
def toy():
    groups = channel_groups(Toy(), Toy(width=2, inner=3), IMAGE)
    return groups, random_variables(shapes_of(Toy(), IMAGE))


def group_of(groups, path):
    return next(group for group in groups if (path, 3) in group.places)


def test_criteria_by_hand(toy):
    groups, variables = toy
    p = jax.tree.map(lambda x: x.astype(np.float64), variables["params"])
    residual, inner = group_of(groups, "params/first/kernel"), group_of(groups, "params/inner/kernel")
    norms = sum(np.abs(p[name]["kernel"]).sum((0, 1, 2)) for name in ("first", "second"))
    np.testing.assert_allclose(by_norm(variables)(residual), norms)
    np.testing.assert_allclose(by_scale(variables)(residual), np.abs(p["norm"]["scale"]))
    np.testing.assert_allclose(by_scale(variables)(inner), by_norm(variables)(inner))  # it has no norm
    gradients = [jax.tree.map(lambda x, s=s: np.random.default_rng(s).normal(size=x.shape), p) for s in (0, 1)]
    taylor = 0.0
    for g in gradients:
        for layer, name in (("inner", "kernel"), ("inner", "bias"), ("depthwise", "kernel"), ("depthwise", "bias")):
            taylor = taylor + ((g[layer][name] * p[layer][name]) ** 2).reshape(-1, 6).sum(0) / 2
    np.testing.assert_allclose(by_taylor(variables, gradients)(inner), taylor)
    np.testing.assert_array_equal(by_chance(3)(inner), by_chance(3)(inner))


def test_the_channels_of_the_highest_scores_are_kept_in_their_order(toy):
    groups, variables = toy
    kept = kept_channels(groups, by_norm(variables))
    for group, channels in zip(groups, kept):
        scores = by_norm(variables)(group)
        assert len(channels) == group.kept and list(channels) == sorted(channels)
        gone = np.setdiff1d(np.arange(group.size), channels)
        assert gone.size == 0 or scores[channels].min() >= scores[gone].max()
    small = without_channels(variables, groups, kept)
    (made,) = (kept[n] for n, group in enumerate(groups) if ("params/up/kernel", 3) in group.places)
    head = variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(small["params"]["head"]["kernel"], head[:, :, made])


def test_the_fields_of_half_the_channels():
    network = models.build("fpn", num_classes=5, **TINY["fpn"])
    assert smaller_fields(network, 0.5) == {"width": 4, "branch_width": 2, "encoder_args": {"widths": (2, 3, 4)}}
    assert smaller_fields(models.build("unet", num_classes=2, widths=(1, 3)), 0.25) == {"widths": (1, 1)}

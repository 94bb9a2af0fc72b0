"""Networks with a context module: each against NumPy in float64, pixel by pixel as the equations are written."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.numpy_layers import Layers64
from helpers.papers import conv, count, normed
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import TINY
from helpers.variables import drawn, paths, shapes

from jaxseg import models
from jaxseg.models.ccnet import CrissCrossAttention, criss_cross
from jaxseg.models.danet import ChannelAttention, PositionAttention
from jaxseg.models.gcnet import GlobalContext
from jaxseg.models.isanet import grouped_attention
from jaxseg.models.nonlocal_net import NonLocal


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def each_pixel(x):
    return itertools.product(*(range(n) for n in x.shape[:3]))


def attended(query, key, value, sees, scale=1.0):
    """At each pixel the mean of the values of the pixels `sees(i, j)` [(y, x), ...], by the softmax of the products."""
    y = np.zeros((*query.shape[:3], value.shape[-1]))
    for n, i, j in each_pixel(query):
        places = sees(i, j)
        weights = softmax(np.array([scale * query[n, i, j] @ key[n, r, c] for r, c in places]))
        y[n, i, j] = sum(weight * value[n, r, c] for weight, (r, c) in zip(weights, places))
    return y


def everywhere(x):
    return lambda i, j: list(itertools.product(range(x.shape[1]), range(x.shape[2])))


def pooled(x, bins):
    """The windows of torch's AdaptiveAvgPool2d, as tokens f[b,s,c]."""
    h, w = x.shape[1:3]
    return np.stack(
        [
            x[:, i * h // n : -(-(i + 1) * h // n), j * w // n : -(-(j + 1) * w // n)].mean((1, 2))
            for n in bins
            for i, j in itertools.product(range(n), repeat=2)
        ],
        axis=1,
    )


# --- the modules, as their equations say ------------------------------------------------------------------------------


def nonlocal_reference(t, x, name="nonlocal", pairwise="embedded_gaussian"):
    query, key, value = (t.conv(x, f"{name}/{part}") for part in ("query", "key", "value"))
    if pairwise == "embedded_gaussian":
        y = attended(query, key, value, everywhere(x))
    else:
        y, pixels = np.zeros_like(value), x.shape[1] * x.shape[2]
        for n, i, j in each_pixel(x):
            y[n, i, j] = sum((query[n, i, j] @ key[n, r, c]) * value[n, r, c] for r, c in everywhere(x)(i, j)) / pixels
    return x + t.conv(y, f"{name}/out")


def global_context_reference(t, x):
    b, h, w, _ = x.shape
    share = np.stack([softmax(scores).reshape(h, w) for scores in t.conv(x, "context/score").reshape(b, -1)])
    mean = np.array([sum(share[n, i, j] * x[n, i, j] for i in range(h) for j in range(w)) for n in range(b)])
    y = t.conv(mean[:, None, None], "context/transform1")
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = np.maximum(y * t.leaves["context/norm/scale"] + t.leaves["context/norm/bias"], 0)
    return x + t.conv(y, "context/transform2")


def criss_cross_reference(t, x, recurrence=2):
    h, w = x.shape[1:3]

    def cross(i, j):
        return [(i, c) for c in range(w)] + [(r, j) for r in range(h) if r != i]

    for _ in range(recurrence):
        query, key, value = (t.conv(x, f"attention/{part}") for part in ("query", "key", "value"))
        x = t.leaves["attention/gamma"] * attended(query, key, value, cross) + x
    return x


def interlaced_reference(t, x, block):
    h, w = x.shape[1:3]
    pixels = list(itertools.product(range(h), range(w)))
    groups = {
        "long": lambda i, j: [p for p in pixels if (p[0] - i) % block == 0 and (p[1] - j) % block == 0],
        "short": lambda i, j: [p for p in pixels if p[0] // block == i // block and p[1] // block == j // block],
    }
    for name, group in groups.items():
        query, key = (t.layer(t.layer(x, f"{name}/{part}1"), f"{name}/{part}2") for part in ("query", "key"))
        value = t.conv(x, f"{name}/value")
        x = t.layer(attended(query, key, value, group, query.shape[-1] ** -0.5), f"{name}/out")
    return x


def asymmetric_reference(t, name, high, low, bins, act):
    query = t.layer(high, f"{name}/query")
    key = query if low is high else t.layer(low, f"{name}/key")
    key, value = pooled(key, bins), pooled(t.conv(low, f"{name}/value"), bins)
    y = np.zeros((*high.shape[:3], value.shape[-1]))
    for n, i, j in each_pixel(high):
        y[n, i, j] = softmax(key[n] @ query[n, i, j] / np.sqrt(key.shape[-1])) @ value[n]
    return t.layer(np.concatenate([t.conv(y, f"{name}/out"), high], -1), f"{name}/fuse", act)


# --- the networks -----------------------------------------------------------------------------------------------------


def between(context):
    def network(t, levels):
        x = levels[-1]
        y = t.layer(context(t, t.layer(x, "reduce")), "project")
        return t.layer(np.concatenate([x, y], -1), "fuse")

    return network


def danet_reference(t, levels):
    x = t.layer(levels[-1], "position_reduce")
    query, key, value = (t.conv(x, f"position/{part}") for part in ("query", "key", "value"))
    x = t.leaves["position/alpha"] * attended(query, key, value, everywhere(x)) + x
    positions = t.layer(x, "position_project")
    x = t.layer(levels[-1], "channel_reduce")
    y = np.zeros_like(x)
    for n, j in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        energy = np.array([(x[n, ..., i] * x[n, ..., j]).sum() for i in range(x.shape[-1])])
        y[n, ..., j] = x[n] @ softmax(-energy)
    return positions + t.layer(t.leaves["channel/beta"] * y + x, "channel_project")


def isanet_reference(t, levels):
    x = t.layer(levels[-1], "reduce")
    return t.layer(np.concatenate([interlaced_reference(t, x, 3), x], -1), "fuse")


def ann_reference(t, levels):
    low, high = levels[-2:]
    x = t.layer(asymmetric_reference(t, "fusion", high, low, (1, 3), False), "reduce")
    return asymmetric_reference(t, "context", x, x, (1, 3), True)


REFERENCES = {
    "ann": ann_reference,
    "ccnet": between(criss_cross_reference),
    "danet": danet_reference,
    "gcnet": between(global_context_reference),
    "isanet": isanet_reference,
    "nonlocal_net": between(nonlocal_reference),
    "nonlocal_net:dot_product": between(lambda t, x: nonlocal_reference(t, x, pairwise="dot_product")),
}


@pytest.mark.parametrize("form", REFERENCES)
def test_features_are_those_of_the_equations(form):
    """Every layer behind the encoder, from the encoder's own features, at sizes that no block divides."""
    name, _, pairwise = form.partition(":")
    fields = TINY[name] | {"encoder_args": {"widths": [3, 6], "convs": 1}, "width": 8}
    model = models.build(name, num_classes=3, **fields, **({"pairwise": pairwise} if pairwise else {}))
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 10, 14, 3)), jnp.float32)
    variables = drawn(model, image)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False), compiler_options=FAST_COMPILE)
    logits, out = apply(variables, image)
    t = Layers64(variables)
    features = REFERENCES[name if not pairwise else form](t, [np.asarray(out[f"encoder/stage{i}"]) for i in range(2)])
    np.testing.assert_allclose(out["decoder/stage0"], features, rtol=1e-4, atol=1e-4)
    assert np.ptp(features) > 0.5 and logits.shape == (2, 10, 14, 3)


def test_recurrence_reaches_every_pixel():
    """One pass of criss-cross attention moves a change along its row and column alone, the second everywhere."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 5, 3))
    moved = x.copy()
    moved[0, 1, 2] += 1.0

    def change(passes):
        a, b = x, moved
        for _ in range(passes):
            a, b = (np.asarray(criss_cross(*3 * [jnp.asarray(v, jnp.float32)])) for v in (a, b))
        return np.abs(a - b).max(-1)[0] > 1e-6

    once = np.zeros((4, 5), bool)
    once[1], once[:, 2] = True, True
    np.testing.assert_array_equal(change(1), once)
    assert change(2).all()


def test_equal_scores_give_means():
    """Queries of zero: the mean over row and column, each pixel once; over the block, and over its places."""
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 6, 1)
    nothing = jnp.zeros((1, 4, 6, 2))
    cross = criss_cross(nothing, nothing, jnp.asarray(x))
    assert cross[0, 1, 2, 0] == pytest.approx((6 + 7 + 8 + 9 + 10 + 11 + 2 + 14 + 20) / 9)
    short, long = (grouped_attention(nothing, nothing, jnp.asarray(x), 4, d) for d in ("short", "long"))
    # Blocks of 4 x 4: columns 0 to 3, then 4 and 5 alone. Of each place the pixels are 4 columns apart.
    assert short[0, 2, 5, 0] == pytest.approx((4 + 5 + 10 + 11 + 16 + 17 + 22 + 23) / 8)
    assert long[0, 2, 5, 0] == pytest.approx((13 + 17) / 2) and long[0, 2, 3, 0] == 15


def test_zero_weights_start_as_the_identity():
    """A non-local, a global context and a criss-cross block, and both attentions of DANet, return their input."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4, 8)), jnp.float32)
    blocks = NonLocal(), GlobalContext(), CrissCrossAttention(), PositionAttention(), ChannelAttention()
    results = jax.jit(lambda x: [block.init_with_output(jax.random.key(0), x)[0] for block in blocks])(x)
    for y in results:
        np.testing.assert_array_equal(y, x)


def test_counts():
    """The layers behind levels as wide as those of ResNet-50 and -101, for 19 classes, layer by layer."""
    encoder = normed(3, 3, 1024) + normed(3, 1024, 2048)

    def of(name, **fields):
        args = {"encoder": "plain", "encoder_args": {"widths": [1024, 2048], "convs": 1}}
        return count(name, 3, num_classes=19, **args, **fields) - encoder

    around = normed(3, 2048, 512) + normed(3, 512, 512) + normed(3, 2560, 512) + conv(1, 512, 19)
    aux256, aux512 = (normed(3, 1024, w) + conv(1, w, 19) for w in (256, 512))
    # Keys have no bias where a softmax over them would take it away.
    nonlocal_ = around + aux256 + 2 * conv(1, 512, 256) + conv(1, 256, 512)
    assert of("nonlocal_net") == nonlocal_ + conv(1, 512, 256, bias=False)
    assert of("nonlocal_net", pairwise="dot_product") == nonlocal_ + conv(1, 512, 256)
    assert of("gcnet") == around + aux256 + 512 + conv(1, 512, 32) + 2 * 32 + conv(1, 32, 512)
    attention = conv(1, 512, 64) + conv(1, 512, 64, bias=False) + conv(1, 512, 512) + 1
    assert of("ccnet") == around + aux512 + attention == of("ccnet", recurrence=3)
    branches = 2 * (normed(3, 2048, 512) + normed(3, 512, 512))
    assert of("danet") == branches + attention + 1 + 3 * conv(1, 512, 19)
    one = 2 * (normed(1, 512, 256) + normed(1, 256, 256)) + conv(1, 512, 512) + normed(1, 512, 512)
    assert of("isanet") == normed(3, 2048, 512) + 2 * one + normed(1, 1024, 512) + conv(1, 512, 19) + aux512
    fusion = normed(1, 2048, 256) + normed(1, 1024, 256) + conv(1, 1024, 256) + conv(1, 256, 2048)
    fusion += normed(1, 4096, 2048)
    pyramid = normed(1, 512, 256) + conv(1, 512, 256) + conv(1, 256, 512) + normed(1, 1024, 512)
    assert of("ann") == fusion + normed(3, 2048, 512) + pyramid + conv(1, 512, 19) + aux512


def test_auxiliary_heads_and_what_makes_no_sense():
    _, logits, out = shapes(models.build("danet", num_classes=3, **TINY["danet"]), (1, 9, 8, 3), train=True)
    assert [x.shape for x in out["aux"]] == [logits.shape] * 2
    for name in ("ann", "ccnet", "gcnet", "isanet", "nonlocal_net"):
        model = models.build(name, num_classes=3, **TINY[name] | {"aux_width": None})
        variables, _, out = shapes(model, (1, 9, 8, 3), train=True)
        assert out["aux"] == () and not any("aux" in path for path in paths(variables["params"]))
    one_level = {"encoder": "plain", "encoder_args": {"widths": [4]}}
    with pytest.raises(ValueError, match="ANN fuses the last two levels of its encoder, and this encoder has one"):
        shapes(models.build("ann", num_classes=3, **TINY["ann"] | one_level), (1, 9, 8, 3))
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        models.build("isanet", num_classes=3, block=0)
    with pytest.raises(ValueError, match="'embedded_gaussian'"):
        models.build("nonlocal_net", num_classes=3, pairwise="gauss")

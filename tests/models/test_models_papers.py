"""Each model against its paper: parameters counted by hand, and the same function written out in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.papers import compare, conv, count, normed, padded
from helpers.torch_layers import plain_levels, resized
from helpers.variables import drawn

from jaxseg import models
from jaxseg.models.attention_decoder import AttentionStage
from jaxseg.models.unet import mirrored, pad_for_valid, valid_size
from jaxseg.nn import Layers, make_norm


def test_unet_count():
    # Ronneberger 2015, Fig. 1: one channel in, two classes, biases everywhere, no norm.
    layer = conv
    contracting = layer(3, 1, 64) + layer(3, 64, 64)
    for c, o in ((64, 128), (128, 256), (256, 512), (512, 1024)):
        contracting += layer(3, c, o) + layer(3, o, o)
    expanding = 0
    for c, o in ((1024, 512), (512, 256), (256, 128), (128, 64)):
        expanding += (
            layer(2, c, o) + layer(3, c, o) + layer(3, o, o)
        )  # up-conv, then conv over the concatenation 2o = c
    paper = contracting + expanding + conv(1, 64, 2)
    assert paper == 31_030_658
    assert count("unet", 1, num_classes=2, norm="none", padding="valid") == paper
    # Three channels, one class, batch norm in place of the biases of the 18 3x3 convolutions.
    widths = (64, 128, 256, 512, 1024)
    biases = 2 * sum(widths) + 2 * sum(widths[:-1])
    assert count("unet", 3, num_classes=1) == paper + 2 * 9 * 64 - 65 + biases == 31_037_633


def test_resunet_count():
    # Zhang 2018, Table I: 15 convolutions, RGB, one class.
    units = [(3, 64), (64, 128), (128, 256), (256, 512)]  # levels 1-3 and the bridge
    units += [(512 + 256, 256), (256 + 128, 128), (128 + 64, 64)]  # levels 5-7, over the concatenations
    table = sum(conv(3, c, o, False) + conv(3, o, o, False) for c, o in units) + conv(1, 64, 1)
    assert table == 7_780_097  # the paper's 7.8 million
    projections = sum(c * o for c, o in units)
    second_biases = sum(o for _, o in units)
    norms = sum(2 * c + 2 * o for c, o in units) - 2 * 3  # the first unit has no norm before its first convolution
    assert count("resunet", 3, num_classes=1) == table + projections + second_biases + norms == 8_218_177
    assert count("resunet", 3, num_classes=1, shortcut="none") == table + second_biases + norms


def test_cnn_count():
    expected = normed(3, 3, 32) + normed(3, 32, 64) + normed(7, 64, 128) + conv(1, 128, 10)
    assert count("cnn", 3, num_classes=10) == expected == 422_442


def test_encoder_decoder_count():
    expected = normed(3, 3, 64) + normed(3, 64, 128) + normed(3, 128, 128) + normed(3, 128, 64) + conv(1, 64, 10)
    assert count("encoder_decoder", 3, num_classes=10) == expected == 298_058


def test_attention_decoder_count():
    expected = conv(1, 64, 10)
    for c, o in ((3, 64), (64, 128), (128, 256), (256, 512)):
        expected += normed(3, c, o) + normed(3, o, o)
    for below, o in ((512, 256), (256, 128), (128, 64)):
        c = below + o  # the concatenation
        expected += 2 * c + 3 * (c * o + o) + (o * c + c) + normed(3, c, o)  # norm; query, key, value; out; convolution
    assert count("attention_decoder", 3, num_classes=10) == expected == 8_048_842


def test_valid_sizes_are_those_of_figure_1():
    assert valid_size(388, 5) == (572, 388)
    before, after = valid_size(389, 5)
    assert (before, after) == (588, 404)
    assert valid_size(1, 3) == (44, 4)  # from a bottom of 8: in 8, 20, 44; out 4, 4, 4


def test_mirroring_is_numpys_reflection():
    image = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7, 1)
    padded = pad_for_valid(jnp.asarray(image), levels=2)
    margins = []
    for size in (5, 7):
        before, after = valid_size(size, 2)
        margins.append(((before - after) // 2, before - (before - after) // 2 - size))
    np.testing.assert_array_equal(padded, np.pad(image, ((0, 0), *margins, (0, 0)), mode="reflect"))
    np.testing.assert_array_equal(mirrored(np.arange(-3, 4), 1), 0)


@pytest.mark.parametrize(("padding", "norm"), [("same", "batch"), ("valid", "none")])
def test_unet_is_figure_1(padding, norm):
    margin = {"same": 1, "valid": 0}[padding]

    def network(t, x):
        skips = []
        for i in range(3):
            x = x if i == 0 else t.f.max_pool2d(x, 2)
            for j in (1, 2):
                x = t.layer(x, f"encoder/stage{i}/conv{j}", margin)
            skips.append(x)
        for i in (1, 0):
            x = t.up(x, f"decoder/stage{i}/up")
            top, left = ((a - b) // 2 for a, b in zip(skips[i].shape[2:], x.shape[2:]))
            skip = skips[i][:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = t.torch.cat([x, skip], 1)
            for j in (1, 2):
                x = t.layer(x, f"decoder/stage{i}/conv{j}", margin)
        return t.conv(x, "head")

    def mirror(t, x):
        # 20 pixels of context on each side; torch reflects over size - 1 of them at most, so twice.
        for amount in ((15, 15, 11, 11), (5, 5, 9, 9)):
            x = t.f.pad(x, amount, mode="reflect")
        return x

    model = models.build("unet", num_classes=2, widths=[4, 6, 8], padding=padding, norm=norm)
    if padding == "valid":
        assert valid_size(12, 3) == (52, 12) and valid_size(16, 3) == (56, 16)
        compare(model, network, pad=mirror)
    else:
        compare(model, network, (13, 18), padded)


def test_resunet_is_figure_2():
    def unit(t, x, name, stride=1, first=False):
        h = x if first else t.f.relu(t.norm(x, f"{name}/norm1"))
        h = t.conv(h, f"{name}/conv1", stride=stride, padding=1)
        h = t.conv(t.f.relu(t.norm(h, f"{name}/norm2")), f"{name}/conv2", padding=1)
        return h + t.conv(x, f"{name}/shortcut", stride=stride)

    def network(t, x):
        one = unit(t, x, "encoder/stage0/block1", first=True)
        two = unit(t, one, "encoder/stage1/block1", stride=2)
        bridge = unit(t, two, "encoder/stage2/block1", stride=2)
        up = t.torch.cat([t.f.interpolate(bridge, scale_factor=2), two], 1)
        up = unit(t, up, "decoder/stage1/block1")
        up = t.torch.cat([t.f.interpolate(up, scale_factor=2), one], 1)
        return t.conv(unit(t, up, "decoder/stage0/block1"), "head")

    compare(models.build("resunet", num_classes=2, widths=[4, 6, 8]), network, (13, 18), padded)


def test_encoder_decoder_is_its_layers():
    def network(t, x):
        for i in (0, 1):
            x = t.f.max_pool2d(t.layer(x, f"encoder/stage{i}/conv1"), 2)
        for i in (1, 0):
            x = t.up(x, f"decoder/stage{i}/up", padding=1, output_padding=1)
            x = t.f.relu(t.norm(x, f"decoder/stage{i}/norm"))
        return t.conv(x, "head")

    compare(models.build("encoder_decoder", num_classes=2, widths=[4, 6]), network)


def test_attention_decoder_is_its_layers():
    def attention(t, x, name):
        """Two heads over all pixels, without position encoding."""

        def dense(x, part):
            return x @ t.leaves[f"{name}/{part}/kernel"] + t.leaves[f"{name}/{part}/bias"]

        tokens = x.flatten(2).mT
        q, k, v = (dense(tokens, part).unflatten(2, (2, -1)).transpose(1, 2) for part in ("query", "key", "value"))
        heads = t.torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        return dense(heads.transpose(1, 2).flatten(2), "out").mT.unflatten(2, x.shape[2:])

    def network(t, x):
        *skips, x = plain_levels(t, x, 3)
        for i in (1, 0):
            x = t.torch.cat([resized(t, x, skips[i]), skips[i]], 1)
            name = f"decoder/stage{i}"
            x = t.layer(x + attention(t, t.norm(x, f"{name}/attention_norm"), f"{name}/attention"), f"{name}/conv")
        return t.conv(x, "head")

    fields = {"widths": [4, 6, 8], "num_heads": 2, "position": "none"}
    compare(models.build("attention_decoder", num_classes=2, **fields), network, (13, 18), padded)


def test_cnn_is_its_layers():
    def network(t, x):
        size = x.shape[2:]
        for i in (0, 1):
            x = t.f.max_pool2d(t.layer(x, f"encoder/stage{i}/conv1"), 2)
        x = t.conv(t.layer(x, "hidden", padding=3), "head")
        return t.f.interpolate(x, size=size, mode="bilinear", align_corners=False)

    compare(models.build("cnn", num_classes=2, widths=[4, 6], hidden=8), network)


def test_cnn_holds_the_dense_classifier():
    """At the centre of a 28x28 image the convolutional classifier is the dense one (Long 2015, section 3.1)."""
    model = models.build("cnn", num_classes=10, widths=[4, 6], hidden=8, norm="none")
    image = np.random.default_rng(2).normal(size=(1, 28, 28, 1)).astype(np.float32)
    variables = drawn(model, jnp.asarray(image))
    _, out = jax.jit(model.apply)(variables, image)
    features = np.asarray(out["encoder/stage1"], np.float64).reshape(7, 2, 7, 2, 6).max((1, 3))
    hidden = variables["params"]["hidden"]["conv"]
    dense = features.reshape(-1) @ hidden["kernel"].reshape(-1, 8).astype(np.float64) + hidden["bias"]
    np.testing.assert_allclose(out["hidden"][0, 3, 3], np.maximum(dense, 0), rtol=1e-4, atol=1e-5)


def test_attention_stage_is_its_equation():
    """act(conv(z)), z = x + softmax(q k^T / sqrt(d)) v W_o, x = concat(up(coarse), skip), in float64 NumPy."""
    stage = AttentionStage(4, num_heads=2, position="none", common=Layers(make_norm("none")))
    rng = np.random.default_rng(3)
    coarse, skip = rng.normal(size=(1, 2, 3, 4)), rng.normal(size=(1, 2, 3, 2))  # the same size: nothing to up-sample
    inputs = [jnp.asarray(v, jnp.float32) for v in (coarse, skip)]
    variables = drawn(stage, *inputs)
    found = jax.jit(stage.apply)(variables, *inputs)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    x = np.concatenate([coarse, skip], -1)[0]
    tokens = x.reshape(6, 6)
    q, k, v = (
        (tokens @ params["attention"][n]["kernel"] + params["attention"][n]["bias"]).reshape(6, 2, 2)
        for n in ("query", "key", "value")
    )
    scores = np.einsum("qnd,knd->nqk", q, k) / np.sqrt(2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    heads = np.einsum("nqk,knd->qnd", weights, v).reshape(6, 4)
    out = params["attention"]["out"]
    z = np.pad((tokens + heads @ out["kernel"] + out["bias"]).reshape(2, 3, 6), ((1, 1), (1, 1), (0, 0)))
    kernel, bias = params["conv"]["conv"]["kernel"], params["conv"]["conv"]["bias"]
    expected = np.zeros((2, 3, 4))
    for u in range(3):
        for w in range(3):
            expected += z[u : u + 2, w : w + 3] @ kernel[u, w]
    np.testing.assert_allclose(found[0], np.maximum(expected + bias, 0), rtol=1e-4, atol=1e-5)


def test_valid_unet_does_not_see_past_its_field():
    """A pixel's logits depend on the 20 pixels around it alone: what lies farther may change."""
    model = models.build("unet", num_classes=2, widths=[4, 6, 8], padding="valid", norm="none")
    image = np.random.default_rng(5).normal(size=(1, 60, 60, 3)).astype(np.float32)
    variables = drawn(model, jnp.asarray(image))
    other = image.copy()
    other[:, :, 45:] += 1.0
    run = jax.jit(lambda x: model.apply(variables, x)[0])
    a, b = run(image), run(other)
    np.testing.assert_array_equal(a[:, :, :20], b[:, :, :20])
    assert np.abs(a[:, :, 45:] - b[:, :, 45:]).max() > 0

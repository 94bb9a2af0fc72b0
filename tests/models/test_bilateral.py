"""Real-time networks over STDC and ResNet-18: the same in torch, blocks in float64 NumPy, and numbers of parameters."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.papers import conv, count, normed
from helpers.tiny_models import TINY, tiny
from helpers.torch_layers import cna, resized, same_in_torch
from helpers.variables import drawn, shapes, variable_shapes

from jaxseg import models
from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.encoders.stdc import ShortTermConcat
from jaxseg.models.pp_liteseg import AttentionFusion
from jaxseg.nn import AttentionRefinement, GatedFusion, SummedPyramidPooling


def stdc_features(t, x, depths, convs=4):
    """The levels of the encoder, finest first."""
    levels = [cna(t, x, "encoder/stem1", stride=2)]
    levels.append(cna(t, levels[0], "encoder/stem2", stride=2))
    x = levels[1]
    for stage, blocks in enumerate(depths, start=1):
        for block in range(1, blocks + 1):
            name = f"encoder/stage{stage}/block{block}"
            first = x = cna(t, x, f"{name}/conv1")
            if block == 1:
                x = cna(t, x, f"{name}/depthwise", act=False, stride=2, groups=x.shape[1])
                first = t.f.avg_pool2d(first, 3, 2, 1)
            parts = [first]
            for i in range(2, convs + 1):
                x = cna(t, x, f"{name}/conv{i}")
                parts.append(x)
            x = t.torch.cat(parts, 1)
        levels.append(x)
    return levels


def mean_conv(t, x, name):
    return t.norm(t.conv(x.mean((2, 3), keepdim=True), f"{name}/conv"), f"{name}/norm")


def refined(t, x, name):
    x = cna(t, x, f"{name}/conv")
    return x * mean_conv(t, x, f"{name}/gate").sigmoid()


def context_path(t, middle, coarse, size, up):
    x = refined(t, coarse, "context/attention1") + t.f.relu(mean_conv(t, coarse, "context/mean"))
    step = cna(t, up(x, middle.shape[2:]), "context/up1")
    x = refined(t, middle, "context/attention0") + step
    return cna(t, up(x, size), "context/up0")


def gated_fusion(t, *levels):
    x = cna(t, t.torch.cat(levels, 1), "fuse/conv")
    gate = t.f.relu(t.conv(x.mean((2, 3), keepdim=True), "fuse/gate/reduce"))
    return x + x * t.conv(gate, "fuse/gate/expand").sigmoid()


def test_stdc_is_figures_3_and_4():
    def network(t, image):
        fine, middle, coarse = stdc_features(t, image, (1, 2, 1))[-3:]
        context = context_path(t, middle, coarse, fine.shape[2:], t.f.interpolate)
        logits = t.conv(cna(t, gated_fusion(t, fine, context), "hidden"), "head")
        details = t.conv(cna(t, fine, "detail_hidden"), "detail")
        return [resized(t, logits, image), resized(t, details, image)]

    same_in_torch(tiny("stdc"), network, (69, 93))


def test_bisenetv1_is_figure_2():
    def network(t, image):
        x = t.f.max_pool2d(cna(t, image, "encoder/stem", stride=2), 3, 2, 1)
        levels = []
        for stage, stride in enumerate((1, 2, 2, 2), start=1):
            name = f"encoder/stage{stage}/block1"
            h = cna(t, cna(t, x, f"{name}/conv1", stride=stride), f"{name}/conv2", act=False)
            if f"{name}/shortcut/kernel" in t.leaves:
                x = t.norm(t.conv(x, f"{name}/shortcut", stride=stride), f"{name}/shortcut_norm")
            x = t.f.relu(h + x)
            levels.append(x)
        spatial = image
        for i in (1, 2, 3):
            spatial = cna(t, spatial, f"spatial/conv{i}", stride=2)
        spatial = cna(t, spatial, "spatial/conv4")
        context = context_path(t, *levels[-2:], spatial.shape[2:], lambda x, size: resized(t, x, size))
        return [resized(t, t.conv(cna(t, gated_fusion(t, spatial, context), "hidden"), "head"), image)]

    resnet = {"encoder": "resnet18", "encoder_args": {"depths": [1, 1, 1, 1], "widths": [4, 4, 4, 8, 8]}}
    same_in_torch(models.build("bisenetv1", num_classes=5, **TINY["bisenetv1"] | resnet), network, (69, 93))


@pytest.mark.parametrize("attention", ["spatial", "channel"])
def test_pp_liteseg_is_figures_2_to_4(attention):
    def fusion(t, fine, coarse, name):
        fine = cna(t, fine, f"{name}/fine")
        up = resized(t, coarse, fine)
        if attention == "spatial":
            seen = [f for x in (up, fine) for f in (x.mean(1, keepdim=True), x.amax(1, keepdim=True))]
        else:
            seen = [f for x in (up, fine) for f in (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))]
        seen = t.torch.cat(seen, 1)
        share = cna(t, cna(t, seen, f"{name}/attention1"), f"{name}/attention2", act=False).sigmoid()
        return cna(t, share * up + (1 - share) * fine, f"{name}/out")

    def network(t, image):
        levels = stdc_features(t, image, (1, 1, 1))
        means = [cna(t, t.f.adaptive_avg_pool2d(levels[-1], side), f"pyramid/bin{side}") for side in (1, 2)]
        x = cna(t, sum(resized(t, mean, levels[-1]) for mean in means), "pyramid/out")
        for i in (2, 1, 0):
            x = fusion(t, levels[i + 2], x, f"fuse{i}")
        return [resized(t, t.conv(cna(t, x, "hidden"), "head"), image)]

    same_in_torch(tiny("pp_liteseg", attention=attention), network, (69, 93))


def in_float64(module, *images):
    """(ours f32, leaves in float64) of a module at random weights, in evaluation."""
    variables = drawn(module, *map(jnp.asarray, images))
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        leaves["/".join(p.key for p in path[1:])] = np.asarray(leaf, np.float64)
    return np.asarray(jax.jit(module.apply)(variables, *images)), leaves


def conv64(x, leaves, name, stride=1, groups=1):
    """A convolution with zeros around, channel by channel of the result, and its norm if it has one."""
    kernel = leaves[f"{name}/kernel"]
    side, c = kernel.shape[0], kernel.shape[2]
    before = side // 2
    padded = np.pad(x, ((0, 0), (before, before), (before, before), (0, 0)))
    b, h, w, _ = x.shape
    y = np.zeros((b, -(-h // stride), -(-w // stride), kernel.shape[3]))
    for i, row, column, o in np.ndindex(*y.shape):
        window = padded[i, row * stride : row * stride + side, column * stride : column * stride + side]
        first = o // (kernel.shape[3] // groups) * c
        y[i, row, column, o] = (window[..., first : first + c] * kernel[..., o]).sum()
    return y + leaves[f"{name}/bias"] if f"{name}/bias" in leaves else y


def layer64(x, leaves, name, act=True, **options):
    x = conv64(x, leaves, f"{name}/conv", **options)
    mean, var, scale, bias = (leaves[f"{name}/norm/{leaf}"] for leaf in ("mean", "var", "scale", "bias"))
    x = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    return np.maximum(x, 0) if act else x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def noise(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


COMMON = models.build("stdc", num_classes=2).common


def test_a_block_of_stdc_in_numpy():
    x = noise(2, 5, 4, 3)
    ours, leaves = in_float64(ShortTermConcat(8, 2, 3, COMMON), x)
    first = layer64(x, leaves, "conv1")
    second = layer64(layer64(first, leaves, "depthwise", act=False, stride=2, groups=4), leaves, "conv2")
    third = layer64(second, leaves, "conv3")
    padded, mean = np.pad(first, ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros((2, 3, 2, 4))
    for row, column in np.ndindex(3, 2):
        mean[:, row, column] = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].sum((1, 2)) / 9
    assert [part.shape[-1] for part in (mean, second, third)] == [4, 2, 2]
    np.testing.assert_allclose(ours, np.concatenate([mean, second, third], -1), rtol=1e-4, atol=1e-5)


def test_attention_refinement_and_fusion_in_numpy():
    x, y = noise(2, 4, 3, 5), noise(2, 4, 3, 2)
    ours, leaves = in_float64(AttentionRefinement(3, COMMON), x)
    h = layer64(x, leaves, "conv")
    expected = h * sigmoid(layer64(h.mean((1, 2), keepdims=True), leaves, "gate", act=False))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    ours, leaves = in_float64(GatedFusion(4, 2, COMMON), x, y)
    h = layer64(np.concatenate([x, y], -1), leaves, "conv")
    inner = np.maximum(conv64(h.mean((1, 2), keepdims=True), leaves, "gate/reduce"), 0)
    assert inner.shape[-1] == 2
    np.testing.assert_allclose(ours, h + h * sigmoid(conv64(inner, leaves, "gate/expand")), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attention", "axes"), [("spatial", 3), ("channel", (1, 2))])
def test_attention_fusion_in_numpy(attention, axes):
    fine, coarse = noise(2, 4, 6, 3), noise(2, 2, 3, 4)
    ours, leaves = in_float64(AttentionFusion(2, attention, COMMON), fine, coarse)
    low = layer64(fine, leaves, "fine")
    up = np.zeros((2, 4, 6, 4))
    for row, column in np.ndindex(4, 6):  # bilinear, to twice the size
        for (i, a), (j, b) in itertools.product(neighbours(row, 2), neighbours(column, 3)):
            up[:, row, column] += a * b * coarse[:, i, j]
    seen = [x for y in (up, low) for x in (y.mean(axes, keepdims=True), y.max(axes, keepdims=True))]
    share = layer64(np.concatenate(seen, -1), leaves, "attention1")
    share = sigmoid(layer64(share, leaves, "attention2", act=False))
    assert share.shape == ((2, 4, 6, 1) if attention == "spatial" else (2, 1, 1, 4))
    np.testing.assert_allclose(ours, layer64(share * up + (1 - share) * low, leaves, "out"), rtol=1e-4, atol=1e-5)


def neighbours(place, size):
    """[(index, weight)] of a sample of an axis of `size` that is enlarged to twice as many."""
    position = min(max((place + 0.5) / 2 - 0.5, 0), size - 1)
    low = int(position)
    return [(low, 1 - position + low), (min(low + 1, size - 1), position - low)]


def test_summed_pooling_in_numpy():
    x = noise(1, 5, 3, 2)
    ours, leaves = in_float64(SummedPyramidPooling(3, (1,), COMMON), x)
    mean = layer64(x.mean((1, 2), keepdims=True), leaves, "bin1")
    np.testing.assert_allclose(ours, layer64(np.broadcast_to(mean, (1, 5, 3, 3)), leaves, "out"), rtol=1e-4, atol=1e-5)


def parameters_of(encoder):
    module = encoders.build(encoder)
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(module, (1, 32, 32, 3))["params"]))


@pytest.mark.parametrize(("name", "millions"), [("stdc1", "8.44"), ("stdc2", "12.47")])
def test_parameters_of_the_encoders_are_the_papers(name, millions):
    """Fan 2021, Table 5, with the 1x1 convolution and the two dense layers of Table 2."""
    classifier = normed(1, 1024, 1024) + normed(1, 1024, 1024) + 1024 * 1000
    assert f"{(parameters_of(name) + classifier) / 1e6:.2f}" == millions


def heads(width, c, k):
    return normed(3, c, width) + conv(1, width, k)


def test_stdc_count():
    """By layer, as the paper has no number; without what is for training it is what the module says."""
    refinement = normed(1, 1024, 128) + 2 * normed(1, 128, 128) + 2 * normed(3, 128, 128)
    refinement += normed(3, 512, 128) + normed(3, 1024, 128)
    fusion = normed(1, 256 + 128, 256) + conv(1, 256, 64) + conv(1, 64, 256)
    for name, millions in (("stdc1", "8.28"), ("stdc2", "12.31")):
        total = parameters_of(name) + refinement + fusion + heads(256, 256, 19)
        assert f"{total / 1e6:.2f}" == millions
        training = heads(64, 256, 1) + 2 * heads(64, 128, 19)
        assert count("stdc", 3, num_classes=19, encoder=name) == total + training


def test_bisenetv1_count():
    """By layer: not the 49.0 million of the paper's Table 3."""
    total = parameters_of("resnet18") + normed(7, 3, 64) + 2 * normed(3, 64, 64) + normed(1, 64, 128)
    total += normed(1, 512, 128) + normed(3, 512, 128) + normed(3, 256, 128) + 2 * normed(1, 128, 128)
    total += 2 * normed(3, 128, 128) + normed(1, 256, 256) + 2 * conv(1, 256, 256) + heads(64, 256, 19)
    assert f"{total / 1e6:.2f}" == "12.89"
    assert count("bisenetv1", 3, num_classes=19) == total + 2 * heads(256, 128, 19)


def test_pp_liteseg_count():
    """By layer, as the paper has no number."""
    for name, widths, head, millions in (("stdc1", (32, 64, 128), 32, "8.03"), ("stdc2", (64, 96, 128), 64, "12.23")):
        total = parameters_of(name) + 3 * normed(1, 1024, 128) + normed(3, 128, 128)
        above = 128
        for width, level in zip(reversed(widths), (1024, 512, 256)):
            total += normed(3, level, above) + normed(3, 4, 2) + normed(3, 2, 1) + normed(3, above, width)
            above = width
        total += heads(head, widths[0], 19)
        assert f"{total / 1e6:.2f}" == millions
        training = heads(64, widths[1], 19) + heads(64, widths[2], 19)
        fields = {"encoder": name, "widths": widths, "head_width": head}
        assert count("pp_liteseg", 3, num_classes=19, **fields) == total + training


def test_heads_of_training():
    for name, number in {"bisenetv1": 2, "pp_liteseg": 2, "stdc": 2}.items():
        _, _, out = shapes(tiny(name), (1, 40, 48, 3), train=True)
        assert [scores.shape for scores in out["aux"]] == [(1, 40, 48, 5)] * number
        none = {"aux_width": None}
        _, _, out = shapes(models.build(name, num_classes=5, **TINY[name] | none), (1, 40, 48, 3), train=True)
        assert out["aux"] == ()
    assert [scores.shape for scores in out["detail"]] == [(1, 40, 48, 5), (1, 40, 48, 1)]


def test_fields_that_make_no_network_are_refused():
    for fields, message in (
        ({"encoder": "stdc1", "encoder_args": {"widths": (4, 4, 8), "depths": (1, 1)}}, "must be those of the two"),
        (
            {"encoder": "stdc1", "encoder_args": {"widths": (4, 4, 8, 8, 12), "depths": (1, 1, 1)}},
            r"channels that 2\^3",
        ),
        (
            {"encoder": "plain", "encoder_args": {"widths": (4, 8)}},
            "STDCSeg reads three levels of its encoder, got 2 levels",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            shapes(models.build("stdc", num_classes=2, **fields), (1, 32, 32, 3))
    with pytest.raises(ArgumentError, match="BiSeNetV1 reads two levels"):
        fields = {"encoder": "plain", "encoder_args": {"widths": (4,)}}
        shapes(models.build("bisenetv1", num_classes=2, **fields), (1, 32, 32, 3))
    with pytest.raises(ArgumentError, match="level that is read, of an encoder of 5 levels"):
        shapes(models.build("pp_liteseg", num_classes=2, widths=(4,) * 6), (1, 32, 32, 3))
    with pytest.raises(ArgumentError, match="of 1 convolution needs at least 2"):
        shapes(encoders.build("stdc1", convs=1), (1, 32, 32, 3))

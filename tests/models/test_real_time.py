"""The real-time networks: the same in torch, layer by layer, and the numbers of parameters of the papers."""

import jax
import numpy as np
import pytest
from helpers.papers import conv, count, normed
from helpers.tiny_models import tiny
from helpers.torch_layers import cna, depthwise, resized, same_in_torch
from helpers.variables import shapes

from jaxseg import models


def test_fast_scnn_is_tables_1_to_3():
    def separable(t, x, name, stride=1):
        x = depthwise(t, x, f"{name}/depthwise", stride=stride, act=False)
        return cna(t, x, f"{name}/pointwise")

    def network(t, x):
        size = x.shape
        x = cna(t, x, "stem", stride=2)
        fine = x = separable(t, separable(t, x, "down1", 2), "down2", 2)
        for i, stride in enumerate((2, 2, 1)):
            for block in (1, 2):
                name = f"context{i}/block{block}"
                h = cna(t, x, f"{name}/expand")
                h = depthwise(t, h, f"{name}/depthwise", stride=stride if block == 1 else 1)
                h = cna(t, h, f"{name}/project", act=False)
                x = x + h if block == 2 else h  # the first block of the last stage keeps neither stride nor channels
        means = [cna(t, t.f.adaptive_avg_pool2d(x, side), f"pyramid/bin{side}") for side in (1, 2)]
        x = cna(t, t.torch.cat([x, *(resized(t, mean, x) for mean in means)], 1), "compress")
        coarse = cna(t, depthwise(t, resized(t, x, fine), "fuse/depthwise", dilation=4), "fuse/coarse", act=False)
        x = t.f.relu(coarse + cna(t, fine, "fuse/fine", act=False))
        x = separable(t, separable(t, x, "refine1"), "refine2")
        return [resized(t, t.conv(x, "head"), size)]

    same_in_torch(tiny("fast_scnn"), network, (69, 93))


def test_bisenetv2_is_figures_4_to_6():
    def gather_expand(t, x, name, stride):
        h = cna(t, x, f"{name}/gather")
        h = depthwise(t, h, f"{name}/expand", stride=stride, act=False)  # as many features of each channel
        if stride == 2:
            h = depthwise(t, h, f"{name}/depthwise", act=False)
            x = depthwise(t, x, f"{name}/shortcut1", stride=2, act=False)
            x = cna(t, x, f"{name}/shortcut2", act=False)
        return t.f.relu(cna(t, h, f"{name}/project", act=False) + x)

    def keep(t, x, name):
        return t.conv(depthwise(t, x, f"{name}_keep1", act=False), f"{name}_keep2")

    def network(t, image):
        x = image
        for i, convs in enumerate((2, 3, 3)):
            for n in range(convs):
                x = cna(t, x, f"detail{i}/conv{n + 1}", stride=2 if n == 0 else 1)
        detail = x
        x = cna(t, image, "stem/conv", stride=2)
        left = cna(t, cna(t, x, "stem/reduce"), "stem/down", stride=2)
        x = cna(t, t.torch.cat([left, t.f.max_pool2d(x, 3, 2, 1)], 1), "stem/fuse")
        for i, layers in enumerate((1, 1, 2)):
            for n in range(layers):
                x = gather_expand(t, x, f"semantic{i}/ge{n + 1}", 2 if n == 0 else 1)
        mean = cna(t, t.norm(x.mean((2, 3), keepdim=True), "context/norm"), "context/mean")
        x = t.conv(x + mean, "context/out", padding=1)
        up = resized(t, cna(t, x, "aggregation/semantic_up", act=False), detail)
        fine = keep(t, detail, "aggregation/detail") * up.sigmoid()
        down = cna(t, detail, "aggregation/detail_down", act=False, stride=2)
        down = t.f.avg_pool2d(down, 3, 2, 1, count_include_pad=False)
        coarse = down * keep(t, x, "aggregation/semantic").sigmoid()
        x = cna(t, fine + resized(t, coarse, detail), "aggregation/fuse", act=False)
        return [resized(t, t.conv(cna(t, x, "hidden"), "head"), image)]

    same_in_torch(tiny("bisenetv2"), network)


def preact(t, x, name):
    side = t.leaves[f"{name}/conv/kernel"].shape[0]
    groups = t.leaves[f"{name}/norm/scale"].shape[0] // t.leaves[f"{name}/conv/kernel"].shape[2]
    return t.conv(t.f.relu(t.norm(x, f"{name}/norm")), f"{name}/conv", padding=side // 2, groups=groups)


def logits_of(t, x, hidden, head, size):
    x = t.f.relu(t.norm(preact(t, x, f"{hidden}/conv"), f"{hidden}/norm"))
    return resized(t, t.conv(x, head), size)


def residual(t, x, name, stride=1, blocks=1):
    """Blocks of two 3x3 convolutions without the activation of the last, or of 1x1, 3x3 and 1x1 without any at the end.

    The authors of DDRNet and PIDNet give the first of their bottlenecks none either, and no stage has a third.
    """
    for i in range(1, blocks + 1):
        block, step = f"{name}/block{i}", stride if i == 1 else 1
        if f"{block}/reduce/conv/kernel" in t.leaves:
            h = cna(t, cna(t, x, f"{block}/reduce"), f"{block}/conv", stride=step)
            h, linear = cna(t, h, f"{block}/expand", act=False), True
        else:
            linear = i == blocks
            h = cna(t, cna(t, x, f"{block}/conv1", stride=step), f"{block}/conv2", act=False)
        if f"{block}/shortcut/kernel" in t.leaves:
            x = t.norm(t.conv(x, f"{block}/shortcut", stride=step), f"{block}/shortcut_norm")
        x = h + x if linear else t.f.relu(h + x)
    return x


def pooling(t, x, name, parallel):
    def scale(i, y):
        return resized(t, preact(t, y, f"{name}/scale{i}"), x)

    means = [t.f.avg_pool2d(x, 2 * s + 1, s, s) for s in (2, 4, 8)] + [x.mean((2, 3), keepdim=True)]
    scales = [scale(0, x)]
    for i, mean in enumerate(means, start=1):
        y = scale(i, mean) + scales[0 if parallel else -1]
        scales.append(y if parallel else preact(t, y, f"{name}/process{i}"))
    if parallel:
        scales = [scales[0], preact(t, t.torch.cat(scales[1:], 1), f"{name}/process")]
    return preact(t, t.torch.cat(scales, 1), f"{name}/compress") + preact(t, x, f"{name}/shortcut")


def test_ddrnet_is_figure_3():
    def network(t, image):
        relu = t.f.relu

        def up(x, to, name):
            return resized(t, cna(t, relu(x), name, act=False), to)

        x = cna(t, cna(t, image, "stem1", stride=2), "stem2", stride=2)
        x = residual(t, residual(t, x, "stage1").relu(), "stage2", 2).relu()
        low, high = residual(t, x, "low3", 2), residual(t, x, "high3", blocks=2)
        low, high = low + cna(t, relu(high), "down3", act=False, stride=2), high + up(low, high, "up3")
        low, high = residual(t, relu(low), "low4", 2), residual(t, relu(high), "high4", blocks=2)
        down = cna(t, cna(t, relu(high), "down4a", stride=2), "down4b", act=False, stride=2)
        low, high = low + down, high + up(low, high, "up4")
        high, low = residual(t, relu(high), "high5"), residual(t, relu(low), "low5", 2)
        x = high + resized(t, pooling(t, low, "pool", False), high)
        return [logits_of(t, x, "hidden", "head", image)]

    same_in_torch(tiny("ddrnet", aux=False), network)


@pytest.mark.parametrize("light", [True, False])
def test_pidnet_is_figure_3(light):
    def attention(t, detail, context, name):
        key = cna(t, detail, f"{name}/detail", act=False)
        query = resized(t, cna(t, context, f"{name}/context", act=False), detail)
        share = (key * query).sum(1, keepdim=True).sigmoid()
        return (1 - share) * detail + share * resized(t, context, detail)

    def network(t, image):
        relu = t.f.relu
        x = cna(t, cna(t, image, "stem1", stride=2), "stem2", stride=2)
        x = relu(residual(t, relu(residual(t, x, "stage1")), "stage2", 2))
        detail, edge, context = residual(t, x, "detail3"), residual(t, x, "boundary3"), x
        for i in (3, 4):
            context = relu(residual(t, context, f"context{i}", 2))
            if i == 4:
                detail, edge = residual(t, relu(detail), "detail4"), residual(t, relu(edge), "boundary4")
            detail = attention(t, detail, cna(t, context, f"compress{i}", act=False), f"attention{i}")
            edge = edge + resized(t, cna(t, context, f"difference{i}", act=False), edge)
        boundary = logits_of(t, edge, "boundary_hidden", "boundary", image)
        detail, edge = residual(t, relu(detail), "detail5"), residual(t, relu(edge), "boundary5")
        context = pooling(t, residual(t, context, "context5", 2, 2), "pool", light)
        context, share = resized(t, context, detail), edge.sigmoid()
        if light:
            x = cna(t, detail + (1 - share) * context, "fuse/detail", act=False)
            x = x + cna(t, context + share * detail, "fuse/context", act=False)
        else:
            x = preact(t, share * detail + (1 - share) * context, "fuse/fuse")
        return [logits_of(t, x, "hidden", "head", image), boundary]

    same_in_torch(tiny("pidnet", aux=False, light=light), network)


def pooled_conv(t, x, name):
    both = t.torch.cat([t.conv(x, f"{name}/conv", stride=2, padding=1), t.f.max_pool2d(x, 2)], 1)
    return t.norm(both, f"{name}/norm")


def padded(t, x):
    h, w = x.shape[2:]
    return t.f.pad(x, (0, -w % 8, 0, -h % 8))


def test_erfnet_is_table_1():
    def block(t, x, name, rate):
        h = t.f.relu(t.conv(x, f"{name}/tall1", padding=(1, 0)))
        h = t.f.relu(t.conv(cna(t, h, f"{name}/wide1"), f"{name}/tall2", padding=(rate, 0), dilation=(rate, 1)))
        h = t.norm(t.conv(h, f"{name}/wide2/conv", padding=(0, rate), dilation=(1, rate)), f"{name}/wide2/norm")
        return t.f.relu(h + x)

    def network(t, image):
        x = t.f.relu(pooled_conv(t, padded(t, image), "down0"))
        x = block(t, t.f.relu(pooled_conv(t, x, "down1")), "stage1/block1", 1)
        x = block(t, t.f.relu(pooled_conv(t, x, "down2")), "stage2/block1", 2)
        for i in (1, 0):
            x = t.f.relu(t.norm(t.up(x, f"up{i}/up", padding=1, output_padding=1), f"up{i}/norm"))
            x = block(t, x, f"decode{i}/block1", 1)
        return [t.up(x, "head")[:, :, : image.shape[2], : image.shape[3]]]

    same_in_torch(tiny("erfnet"), network)


def test_enet_is_table_1():
    def prelu(t, x, name):
        return t.f.prelu(x, t.leaves[f"{name}/slope"])

    def bottleneck(t, x, name, features, form="same", rate=1, indices=None):
        side = 2 if form == "down" else 1
        assert t.leaves[f"{name}/reduce/conv/kernel"].shape == (side, side, x.shape[1], features // 4)

        def act(y, i):
            return t.f.relu(y) if f"{name}/prelu{i}/slope" not in t.leaves else prelu(t, y, f"{name}/prelu{i}")

        step = {"stride": 2, "padding": 0} if form == "down" else {}
        h = act(cna(t, x, f"{name}/reduce", act=False, **step), 1)
        if form == "up":
            h = t.norm(t.up(h, f"{name}/up/up", padding=1, output_padding=1), f"{name}/up/norm")
            x = t.f.max_unpool2d(cna(t, x, f"{name}/main", act=False), indices, 2)
        elif rate:
            h = cna(t, h, f"{name}/conv", act=False, dilation=rate)
        else:
            h = cna(t, t.conv(h, f"{name}/tall", padding=(2, 0)), f"{name}/wide", act=False)
        h = cna(t, act(h, 2), f"{name}/expand", act=False)
        assert h.shape[1] == features
        if form == "down":
            x, indices = t.f.max_pool2d(x, 2, return_indices=True)
            x = t.torch.cat([x, x.new_zeros(x.shape[0], h.shape[1] - x.shape[1], *x.shape[2:])], 1)
        return act(h + x, 3), indices

    def network(t, image):
        x = prelu(t, pooled_conv(t, padded(t, image), "initial"), "prelu")
        x, first = bottleneck(t, x, "stage1/change", 8, "down")
        x, _ = bottleneck(t, x, "stage1/block1", 8)
        x, second = bottleneck(t, x, "stage2/change", 8, "down")
        for stage in (2, 3):
            for i, rate in enumerate((1, 2, 0), start=1):
                x, _ = bottleneck(t, x, f"stage{stage}/block{i}", 8, rate=rate)
        x, _ = bottleneck(t, x, "stage4/change", 8, "up", indices=second)
        for i in (1, 2):
            x, _ = bottleneck(t, x, f"stage4/block{i}", 8)
        x, _ = bottleneck(t, x, "stage5/change", 4, "up", indices=first)
        x, _ = bottleneck(t, x, "stage5/block1", 4)
        return [t.up(x, "head")[:, :, : image.shape[2], : image.shape[3]]]

    same_in_torch(tiny("enet"), network)


def test_enet_is_a_quarter_as_wide_inside():
    """What changes the size too, up and down, as `internal` in encoder.lua and decoder.lua of the authors."""
    variables, _, _ = shapes(models.build("enet", num_classes=19), (1, 16, 16, 3))
    params = variables["params"]

    def kernels(stage, *names):
        layers = (params[stage]["change"][name] for name in names)
        return [layer["conv" if "conv" in layer else "up"]["kernel"].shape for layer in layers]

    assert kernels("stage1", "reduce", "conv", "expand") == [(2, 2, 16, 16), (3, 3, 16, 16), (1, 1, 16, 64)]
    assert kernels("stage2", "reduce", "conv", "expand") == [(2, 2, 64, 32), (3, 3, 32, 32), (1, 1, 32, 128)]
    assert kernels("stage4", "reduce", "up", "expand") == [(1, 1, 128, 16), (3, 3, 16, 16), (1, 1, 16, 64)]
    assert kernels("stage5", "reduce", "up", "expand") == [(1, 1, 64, 4), (3, 3, 4, 4), (1, 1, 4, 16)]


WIDER = pytest.mark.slow  # the same layers
LARGE = {"width": 64, "blocks": 3, "deep_blocks": 4, "pool_width": 112, "head_width": 256, "light": False}


def millions_of(name, fields, digits):
    """Parameters of RGB images, of 19 classes unless the fields say else, without the heads that are for training."""
    parameters = count(name, 3, **{"num_classes": 19, **fields})
    if name == "pidnet":  # the head of the boundaries
        hidden = fields["width"] if "width" in fields else 32
        parameters -= 2 * 2 * hidden + conv(3, 2 * hidden, hidden, False) + 2 * hidden + conv(1, hidden, 1)
    return f"{parameters / 1e6:.{digits}f}"


@pytest.mark.parametrize(
    ("name", "fields", "millions"),
    [
        ("ddrnet", {"aux": False}, "5.7"),  # Hong 2021, Table 4: DDRNet-23-slim
        pytest.param("ddrnet", {"aux": False, "width": 64, "head_width": 128}, "20.1", marks=WIDER),  # DDRNet-23
        ("pidnet", {"aux": False}, "7.6"),  # Xu 2023, Table 6: PIDNet-S
        ("pidnet", {"aux": False, **LARGE}, "36.9"),  # PIDNet-L
        ("erfnet", {"num_classes": 20}, "2.1"),  # Romera 2018, Table IV
    ],
)
def test_parameters_are_the_papers(name, fields, millions):
    assert millions_of(name, fields, 1) == millions


@pytest.mark.parametrize(
    ("name", "fields", "millions"),
    [
        # 34.4 in Table 6 of Xu 2023.
        pytest.param("pidnet", {"aux": False, "width": 64}, "28.54", marks=WIDER),
        ("enet", {}, "0.36"),  # .37 in Table III of Paszke 2016, which does not say for how many classes
        ("fast_scnn", {"aux_width": None}, "1.14"),  # 1.11 in Poudel 2019, whose pooling has no table
    ],
)
def test_parameters_that_are_not_the_papers_stay_what_they_are(name, fields, millions):
    assert millions_of(name, fields, 2) == millions


def test_bisenetv2_count():
    # Yu 2021, Table 1, with the widths and expansion of section 4.
    total = normed(3, 3, 64) + normed(3, 64, 64) + 3 * normed(3, 64, 64) + normed(3, 64, 128) + 2 * normed(3, 128, 128)
    total += normed(3, 3, 16) + normed(1, 16, 8) + normed(3, 8, 16) + normed(3, 32, 16)

    def expansion(c, o, stride):
        wide = 6 * c
        layers = normed(3, c, c) + normed(3, 1, wide) + normed(1, wide, o)
        return layers if stride == 1 else layers + normed(3, 1, wide) + normed(3, 1, c) + normed(1, c, o)

    for c, o, more in ((16, 32, 1), (32, 64, 1), (64, 128, 3)):
        total += expansion(c, o, 2) + more * expansion(o, o, 1)
    total += 2 * 128 + normed(1, 128, 128) + conv(3, 128, 128, False)  # context embedding
    total += 2 * (normed(3, 1, 128) + conv(1, 128, 128, False)) + 3 * normed(3, 128, 128)  # aggregation
    total += normed(3, 128, 1024) + conv(1, 1024, 19)
    assert count("bisenetv2", 3, num_classes=19, aux_width=None) == total == 3_358_371


def test_heads_of_training():
    """In training alone, but for the boundaries of PIDNet, which evaluation scores too."""
    for name, heads in {"fast_scnn": 2, "bisenetv2": 4, "ddrnet": 1, "pidnet": 1}.items():
        _, _, out = shapes(tiny(name), (1, 40, 48, 3), train=True)
        assert [scores.shape for scores in out["aux"]] == [(1, 40, 48, 5)] * heads
    assert [scores.shape for scores in out["boundary"]] == [(1, 40, 48, 5), (1, 40, 48, 1)]


def test_the_branches_of_bisenetv2_end_in_the_same_channels():
    model = models.build("bisenetv2", num_classes=2, detail_widths=(4, 4, 6), semantic_widths=(4, 4, 4, 8))
    with pytest.raises(ValueError, match="both branches must end in the same channels"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32))

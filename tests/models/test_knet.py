"""K-Net: the network in torch, with gradients, its number of parameters and its heads in training."""

import pytest
from helpers.papers import compare, conv, count
from helpers.tiny_models import TINY
from helpers.torch_layers import cna, plain_levels, resized, same_in_torch
from helpers.variables import shapes

from jaxseg import models


def knet(num_classes=5, **fields):
    return models.build("knet", num_classes=num_classes, **TINY["knet"] | fields)


def dense(t, x, name):
    y = x @ t.leaves[f"{name}/kernel"]
    return y + t.leaves[f"{name}/bias"] if f"{name}/bias" in t.leaves else y


def layer_norm(t, x, name):
    return t.f.layer_norm(x, x.shape[-1:], t.leaves[f"{name}/scale"], t.leaves[f"{name}/bias"], 1e-5)


def round_of(t, features, kernels, maps, name, heads=2):
    """f[b,c,h,w], f[b,k,c], f[b,k,h,w] -> (maps, kernels): the authors' KernelUpdateHead."""

    def normed_dense(x, layer):
        return layer_norm(t, dense(t, x, f"{name}/update/{layer}"), f"{name}/update/{layer}_norm")

    features = t.conv(features, f"{name}/transform")
    share = maps.softmax(1) if maps.shape[1] > 1 else maps.sigmoid()
    gathered = t.torch.einsum("bkhw,bchw->bkc", share, features)
    first, gathered = dense(t, gathered, f"{name}/update/gathered").chunk(2, -1)
    second, kernels = dense(t, kernels, f"{name}/update/kernels").chunk(2, -1)
    keep, take = (normed_dense(first * second, f"{of}_gate").sigmoid() for of in ("kernels", "gathered"))
    x = keep * layer_norm(t, kernels, f"{name}/update/kernels_norm")
    x = t.f.relu(normed_dense(x + take * layer_norm(t, gathered, f"{name}/update/gathered_norm"), "out"))
    q, k, v = (
        dense(t, x, f"{name}/attention/{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    y = t.f.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = layer_norm(t, x + dense(t, y, f"{name}/attention/out"), f"{name}/attention_norm")
    y = dense(t, t.f.relu(dense(t, x, f"{name}/ffn/expand")), f"{name}/ffn/reduce")
    kernels = layer_norm(t, x + y, f"{name}/ffn/norm")
    x = t.f.relu(layer_norm(t, dense(t, kernels, f"{name}/mask"), f"{name}/mask_norm"))
    return t.torch.einsum("bkc,bchw->bkhw", dense(t, x, f"{name}/maps"), features), kernels


def of_kernels(t, x, image):
    kernel, bias = t.leaves["head/kernel"].T, t.leaves["head/bias"]
    maps = t.torch.einsum("kc,bchw->bkhw", kernel, x) + bias[:, None, None]
    kernels = kernel[None].expand(len(x), -1, -1)
    for name in ("round1", "round2"):
        maps, kernels = round_of(t, x, kernels, maps, name)
    return [resized(t, maps, image)]


def test_over_upernet_it_is_figure_2_in_torch():
    def network(t, image):
        levels = plain_levels(t, image, 3)
        pools = [t.f.adaptive_avg_pool2d(levels[2], side) for side in (1, 2)]
        pools = [resized(t, cna(t, x, f"decoder/pyramid/bin{i}"), levels[2]) for i, x in zip((1, 2), pools)]
        top = cna(t, t.torch.cat([levels[2], *pools], 1), "decoder/bottleneck")
        middle = cna(t, levels[1], "decoder/lateral1") + resized(t, top, levels[1])
        fine = cna(t, levels[0], "decoder/lateral0") + resized(t, middle, levels[0])
        levels = [cna(t, fine, "decoder/smooth0"), cna(t, middle, "decoder/smooth1"), top]
        x = cna(t, t.torch.cat([resized(t, x, levels[0]) for x in levels], 1), "decoder/fuse")
        return of_kernels(t, x, image)

    same_in_torch(knet(), network, (13, 18))


@pytest.mark.parametrize("classes", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_over_an_fcn_it_is_figure_2_in_torch_with_gradients(classes):
    def network(t, image):
        return of_kernels(t, cna(t, plain_levels(t, image, 3)[-1], "conv"), image)[0]

    compare(knet(classes, head="fcn"), network, (13, 18))


def test_knet_count():
    """By layer, in rounds over UPerNet's decoder, as the paper has no number."""
    c, norm = 512, 2 * 512
    update = 2 * conv(1, c, 2 * c) + 3 * conv(1, c, c) + 5 * norm
    attention, ffn = 4 * conv(1, c, c) + norm, conv(1, c, 2048) + conv(1, 2048, c) + norm
    round_ = conv(1, c, c) + update + attention + ffn + conv(1, c, c, False) + norm + conv(1, c, c)
    fields = {"num_classes": 19, "encoder": "plain", "encoder_args": {"widths": (4, 4, 4, 8)}}
    assert count("knet", 3, **fields) == count("upernet", 3, **fields) + 3 * round_


def test_heads_of_training():
    """The maps of the decode head, of the first round of two, and the auxiliary head."""
    _, _, out = shapes(knet(), (1, 40, 48, 3), train=True)
    assert [scores.shape for scores in out["aux"]] == [(1, 40, 48, 5)] * 3
    _, _, out = shapes(knet(aux_width=None, rounds=1), (1, 40, 48, 3), train=True)
    assert len(out["aux"]) == 1
    with pytest.raises(ValueError, match="12 features cannot have 5 heads"):
        shapes(knet(num_heads=5), (1, 16, 16, 3))

"""ICNet: the same in torch, layer by layer, its number of parameters, and its heads in training."""

from helpers.papers import conv, count, normed
from helpers.tiny_models import TINY, tiny
from helpers.torch_layers import cna, same_in_torch
from helpers.variables import shapes

from jaxseg import models


def bottleneck(t, x, name, stride=1, rate=1):
    h = cna(t, cna(t, x, f"{name}/reduce"), f"{name}/conv", stride=stride, dilation=rate)
    h = cna(t, h, f"{name}/expand", act=False)
    if f"{name}/shortcut/kernel" in t.leaves:
        x = t.norm(t.conv(x, f"{name}/shortcut", stride=stride), f"{name}/shortcut_norm")
    return t.f.relu(h + x)


def resized(t, x, to):
    return t.f.interpolate(x, size=getattr(to, "shape", to)[-2:], mode="bilinear", align_corners=True)


def test_icnet_is_figures_2_and_3():
    def halved(t, x):
        return resized(t, x, [(side + 1) // 2 for side in x.shape[-2:]])

    def fused(t, coarse, fine, name):
        coarse = cna(t, resized(t, coarse, fine), f"{name}/coarse", act=False, dilation=2)
        return t.f.relu(coarse + cna(t, fine, f"{name}/fine", act=False))

    def network(t, image):
        x = cna(t, halved(t, image), "stem1", stride=2)
        x = t.f.max_pool2d(cna(t, cna(t, x, "stem2"), "stem3"), 3, 2, 1)
        middle = bottleneck(t, bottleneck(t, x, "stage1/block1"), "stage2a/block1", stride=2)
        x = bottleneck(t, halved(t, middle), "stage2b/block1")
        x = bottleneck(t, bottleneck(t, x, "stage3/block1", rate=2), "stage4/block1", rate=4)
        x = x + sum(resized(t, t.f.adaptive_avg_pool2d(x, side), x) for side in (1, 2))
        x = fused(t, cna(t, x, "compress"), middle, "fuse1")
        fine = image
        for i in (1, 2, 3):
            fine = cna(t, fine, f"fine{i}", stride=2)
        x = resized(t, fused(t, x, fine, "fuse0"), [(side + 3) // 4 for side in image.shape[-2:]])
        return [resized(t, t.conv(x, "head"), image)]

    fields = TINY["icnet"] | {"depths": (1, 2, 1, 1)}
    same_in_torch(models.build("icnet", num_classes=5, **fields), network, (69, 93))


def test_icnet_count():
    """By layer, as the paper has no number."""

    def stage(c, o, blocks):
        inner = normed(3, o // 4, o // 4) + normed(1, o // 4, o)
        return normed(1, c, o // 4) + inner + normed(1, c, o) + (blocks - 1) * (normed(1, o, o // 4) + inner)

    total = 2 * normed(3, 3, 32) + 2 * normed(3, 32, 32) + 2 * normed(3, 32, 64)
    total += stage(64, 128, 3) + stage(128, 256, 4) + stage(256, 512, 6) + stage(512, 1024, 3) + normed(1, 1024, 256)
    total += normed(3, 256, 128) + normed(1, 256, 128) + normed(3, 128, 128) + normed(1, 64, 128) + conv(1, 128, 19)
    assert f"{total / 1e6:.2f}" == "6.70"
    assert count("icnet", 3, num_classes=19, aux=False) == total
    assert count("icnet", 3, num_classes=19) == total + conv(1, 128, 19) + conv(1, 256, 19)


def test_heads_of_training():
    _, _, out = shapes(tiny("icnet"), (1, 40, 48, 3), train=True)
    assert [scores.shape for scores in out["aux"]] == [(1, 40, 48, 5)] * 2

"""Layers of real-time networks in torch, by the names of ours, and the comparison of a network written out in them."""

import jax
from helpers.papers import Torch
from helpers.parity import FAST_COMPILE, assert_close, images, nchw, nhwc
from helpers.variables import drawn


def same_in_torch(model, network, size=(37, 45)):
    """Logits in evaluation, at a size that no stride divides, and those of boundaries or details, if there are any."""
    x = images(*size)
    variables = drawn(model, x)
    t = Torch(variables)

    @jax.jit
    def every(variables, x):
        logits, out = model.apply(variables, x)
        return [logits, *(out[name][1] for name in ("boundary", "detail") if name in out)]

    given = every.lower(variables, x).compile(compiler_options=FAST_COMPILE)(variables, x)
    with t.torch.no_grad():
        expected = network(t, nchw(x))
    for a, b in zip(given, expected, strict=True):
        assert_close(a, nhwc(b), 1e-4)


def cna(t, x, name, act=True, **options):
    """Convolution, norm, and an activation: a `ConvNormAct` of a kernel of any sides, which keeps the size."""
    sides, rate = t.leaves[f"{name}/conv/kernel"].shape[:2], options.pop("dilation", 1)
    padding = options.pop("padding", tuple(rate * (side - 1) // 2 for side in sides))
    x = t.norm(t.conv(x, f"{name}/conv", padding=padding, dilation=rate, **options), f"{name}/norm")
    return t.f.relu(x) if act else x


def depthwise(t, x, name, **options):
    return cna(t, x, name, groups=x.shape[1], **options)


def resized(t, x, to):
    return t.f.interpolate(x, size=getattr(to, "shape", to)[-2:], mode="bilinear", align_corners=False)


def plain_levels(t, x, levels):
    """The pyramid of a plain encoder with two convolutions in each stage, finest first."""
    found = []
    for i in range(levels):
        x = x if i == 0 else t.f.max_pool2d(x, 2, ceil_mode=True)
        x = cna(t, cna(t, x, f"encoder/stage{i}/conv1"), f"encoder/stage{i}/conv2")
        found.append(x)
    return found

"""Attention U-Net against its paper: parameters by hand, gates, deep supervision, the same function in torch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.papers import compare, conv, count, normed, padded
from helpers.tiny_models import tiny
from helpers.variables import drawn, paths, shapes

from jaxseg import models


def expected_count(gated: int) -> int:
    """U-Net's count with batch norm, and `gated` gates from the coarsest up; one channel, two classes."""
    widths = (64, 128, 256, 512, 1024)
    total = conv(1, 64, 2)
    for c, o in zip((1, *widths), widths):
        total += normed(3, c, o) + normed(3, o, o)
    for o, below in itertools.pairwise(widths):
        total += conv(2, below, o) + normed(3, 2 * o, o) + normed(3, o, o)
    for skip, gate in list(itertools.pairwise(widths))[::-1][:gated]:
        inter = skip // 2
        total += conv(2, skip, inter, False) + conv(1, gate, inter) + conv(1, inter, 1)
    return total


def test_counts():
    fields = {"num_classes": 2, "deep_supervision": "none"}
    assert count("attention_unet", 1, **fields) == expected_count(3) == 32_069_637
    assert count("attention_unet", 1, gate_finest=True, **fields) == expected_count(4)
    classifiers = sum(conv(1, w, 2) for w in (128, 256, 512))
    assert count("attention_unet", 1, num_classes=2) == expected_count(3) + classifiers
    fused = expected_count(3) + classifiers + conv(1, 4 * 2, 2)  # four levels of two scores each, and their mixture
    assert count("attention_unet", 1, num_classes=2, deep_supervision="fused") == fused


@pytest.mark.parametrize("finest", [False, True])
def test_out_holds_the_maps_of_the_gates(finest):
    model = tiny("attention_unet").clone(gate_finest=finest)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 8, 3)), jnp.float32)
    _, out = jax.jit(model.apply)(drawn(model, image), image)
    found = {name: gate.shape for name, gate in out.items() if name.startswith("gate/")}
    expected = {"gate/stage0": (2, 12, 8, 1), "gate/stage1": (2, 6, 4, 1)}
    assert found == {name: shape for name, shape in expected.items() if finest or name != "gate/stage0"}
    assert all(((out[name] > 0) & (out[name] < 1)).all() and jnp.std(out[name]) > 0 for name in found)


def test_deep_supervision():
    for form, heads, aux in (
        ("aux", {"head", "aux1"}, 1),
        ("fused", {"head", "head0", "head1"}, 0),
        ("none", {"head"}, 0),
    ):
        model = tiny("attention_unet", deep_supervision=form)
        variables, _, out = shapes(model, (1, 8, 8, 3), train=True)
        assert {p.split("/")[0] for p in paths(variables["params"])} == {"encoder", "decoder", *heads}
        assert len(out["aux"]) == aux


@pytest.mark.parametrize("form", ["none", "fused"])
def test_is_figure_1(form):
    def gate(t, skip, signal, name):
        theta = t.conv(skip, f"{name}/theta", stride=2)
        score = t.conv(t.f.relu(theta + t.conv(signal, f"{name}/phi")), f"{name}/psi")
        size = skip.shape[2:]
        return skip * t.f.interpolate(score.sigmoid(), size=size, mode="bilinear", align_corners=False)

    def network(t, x):
        size, skips = x.shape[2:], []
        for i in range(3):
            x = x if i == 0 else t.f.max_pool2d(x, 2)
            for j in (1, 2):
                x = t.layer(x, f"encoder/stage{i}/conv{j}")
            skips.append(x)
        scores = []
        for i in (1, 0):
            skip = gate(t, skips[i], x, f"decoder/gate{i}") if i else skips[i]
            x = t.torch.cat([t.up(x, f"decoder/stage{i}/up"), skip], 1)
            for j in (1, 2):
                x = t.layer(x, f"decoder/stage{i}/conv{j}")
            if form == "fused":
                score = t.conv(x, f"head{i}")
                scores.insert(0, t.f.interpolate(score, size=size, mode="bilinear", align_corners=False))
        return t.conv(x if form == "none" else t.torch.cat(scores, 1), "head")

    model = models.build("attention_unet", num_classes=2, widths=[4, 6, 8], deep_supervision=form)
    compare(model, network, (13, 18), padded)

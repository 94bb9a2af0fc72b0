"""U^2-Net against the parameters of its paper, and written out in torch."""

import jax
import pytest
from helpers.papers import compare
from helpers.tiny_models import tiny
from helpers.variables import shapes, variable_shapes

from jaxseg import models


@pytest.mark.parametrize(
    ("fields", "published"),
    [  # Qin 2020, Table 4: 176.3 and 4.7 MB
        ({}, 44_009_869),
        pytest.param({"widths": (64,) * 6, "mids": (16,) * 6}, 1_131_181, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_those_of_the_paper(fields, published):
    params = variable_shapes(models.build("u2net", num_classes=1, **fields), (1, 64, 64, 3))["params"]
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    norms = sum(leaf.size for path, leaf in leaves if path[-1].key == "scale")  # each after a bias of the authors'
    assert sum(leaf.size for _, leaf in leaves) + norms == published


def block(t, x, name, height, dilated):
    """Fig. 2e: a U inside a stage, and the sum with what goes into it."""

    def layer(x, part, rate):
        y = t.conv(x, f"{name}/{part}/conv", padding=rate, dilation=rate)
        return t.f.relu(t.norm(y, f"{name}/{part}/norm"))

    rates = [2**i if dilated else 1 for i in range(height)]
    rates[-1] = max(rates[-1], 2)
    whole = y = layer(x, "in", 1)
    skips = []
    for i in range(height):
        if 0 < i < height - 1 and not dilated:
            y = t.f.max_pool2d(y, 2, ceil_mode=True)
        y = layer(y, f"down{i + 1}", rates[i])
        skips.append(y)
    for i in reversed(range(height - 1)):
        y = t.f.interpolate(y, skips[i].shape[2:], mode="bilinear")
        y = layer(t.torch.cat([y, skips[i]], 1), f"up{i + 1}", rates[i])
    return whole + y


def test_the_network_is_figure_5():
    form = [(3, False), (2, False), (4, True)]

    def network(t, x):
        size, skips = x.shape[2:], []
        for i, (height, dilated) in enumerate(form):
            x = t.f.max_pool2d(x, 2, ceil_mode=True) if i else x
            x = block(t, x, f"encoder/stage{i}", height, dilated)
            skips.append(x)
        scores = [t.conv(x, "score2", padding=1)]
        for i in (1, 0):
            x = t.torch.cat([t.f.interpolate(x, skips[i].shape[2:], mode="bilinear"), skips[i]], 1)
            x = block(t, x, f"decoder/stage{i}", *form[i])
            scores.insert(0, t.conv(x, f"score{i}", padding=1))
        scores = [t.f.interpolate(each, size, mode="bilinear") for each in scores]
        return t.conv(t.torch.cat(scores, 1), "fused_scores")

    compare(tiny("u2net"), network, size=(13, 18))


def test_every_decoder_stage_and_the_bottom_have_a_score_in_training():
    _, logits, out = shapes(tiny("u2net"), (2, 16, 16, 3), train=True)
    assert len(out["aux"]) == 3 and {each.shape for each in out["aux"]} == {logits.shape}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mids": (4, 4)}, "u2net.mids must have a number for each stage of widths.* 2 numbers for 3 stages"),
        ({"heights": (1,)}, r"u2net.heights must be 2 or more, got \(1,\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        models.build("u2net", num_classes=2, **{"widths": (4,) * 3, "mids": (4,) * 3} | fields)

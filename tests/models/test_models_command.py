"""`python -m jaxseg.models`: what it lists, the numbers of its table, and what it says of wrong input."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.tiny_models import ENCODERS, TINY

from jaxseg import models
from jaxseg.models import encoders, summary
from jaxseg.models.__main__ import describe, main

ROOT = Path(__file__).parents[2]


class Small(nn.Module):
    """Layers whose operations can be counted by hand."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(8, (3, 3), name="conv")(x)  # 16·12 pixels, 8 outputs, 27 inputs
        x = nn.Conv(8, (3, 3), strides=2, feature_group_count=8, use_bias=False, name="depthwise")(x)
        x = self.deeper(x)
        x = jnp.einsum("bhwc,bhwd->bcd", x, x)  # 8·6 pixels, 5·5 numbers, in this module itself
        return x, {"aux": ()}

    def deeper(self, x):
        return Inner(name="inner")(x)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(5, name="dense")(x))
        return jax.lax.scan(lambda c, _: (nn.relu(c @ jnp.ones((5, 5))), None), x, None, length=3)[0]


def test_operations_are_those_counted_by_hand():
    rows = {row.path: row for row in summary.modules(Small(), (16, 12))}
    conv, depthwise = 2 * 16 * 12 * 8 * 27, 2 * 8 * 6 * 8 * 9
    inner = 2 * 8 * 6 * 5 * 8 + 3 * 2 * 8 * 6 * 5 * 5
    assert list(rows) == ["", "conv", "depthwise", "inner", "inner/dense"]
    assert (rows["conv"].flops, rows["depthwise"].flops, rows["inner"].flops) == (conv, depthwise, inner)
    assert rows[""].flops == conv + depthwise + inner + 2 * 8 * 6 * 5 * 5
    assert (rows["conv"].parameters, rows["depthwise"].parameters, rows["inner"].parameters) == (8 * 27 + 8, 72, 45)
    assert rows[""].parameters == 8 * 28 + 72 + 45
    assert rows["conv"].shape == (16, 12, 8) and rows[""].shape == (5, 5) and rows["inner"].kind == "Inner"


def test_transposed_convolutions_count_the_products_that_are_made():
    class Up(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.ConvTranspose(7, (2, 2), strides=(2, 2), use_bias=False, name="up")(x)

    rows = summary.modules(Up(), (6, 4))
    assert rows[0].flops == 2 * 6 * 4 * 4 * 7 * 3  # each input number meets each of the 2x2 weights


def test_xla_counts_activations_but_no_products_with_padding():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.relu(nn.Conv(5, (3, 3), use_bias=False, name="conv")(x))

    assert summary.modules(Layer(), (4, 4), 2)[0].flops == 2 * (4 * 3) ** 2 * 2 * 5  # 3 taps of each of 4 pixels a side
    # Of those 12 the first and the last meet the border.
    assert summary.totals(Layer(), (4, 4), 2).flops == 2 * (4 * 3 - 2) ** 2 * 2 * 5 + 4 * 4 * 5


# A sum of rows is made alike for all: a convolutional network, one with skips, with attention, with several outputs.
ADDED = ("cnn", "deeplabv3plus", "mask2former", "segformer", "unet")


@pytest.mark.parametrize("name", some_slow(sorted(TINY), TINY.keys() - set(ADDED)))
def test_every_network_adds_up(name):
    model = models.build(name, num_classes=3, **TINY[name])
    rows = {row.path: row for row in summary.modules(model, (32, 32))}
    variables, _ = summary.shapes(model, (32, 32), 3)
    assert rows[""].parameters == sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert rows[""].shape == (32, 32, 3)
    for path, row in rows.items():
        inside = [r for p, r in rows.items() if p.rpartition("/")[0] == path and p]
        assert row.parameters >= sum(r.parameters for r in inside) and row.flops >= sum(r.flops for r in inside)
        assert row.flops > 0 or "conv" not in row.kind.lower(), path


@pytest.mark.parametrize("name", ["unet", "resunet"])
def test_totals(name):
    model = models.build(name, num_classes=3, **TINY[name])
    one, two = (summary.totals(model, (64, 64), batch=batch) for batch in (1, 2))
    variables, image = summary.shapes(model, (64, 64), 3)
    assert one.parameters == sum(x.size for x in jax.tree.leaves(variables["params"]))
    compiled = jax.jit(lambda v, x: model.apply(v, x)[0]).lower(variables, image).compile()
    assert abs(one.flops / compiled.cost_analysis()["flops"] - 1) < 0.2
    assert abs(summary.modules(model, (64, 64))[0].flops / one.flops - 1) < 0.2
    used = compiled.memory_analysis().temp_size_in_bytes + 4 * (one.parameters + one.statistics)
    assert 0.7 * used < one.inference_bytes < 4 * used
    fixed = 16 * one.parameters + 4 * one.statistics
    assert 1.8 < (two.training_bytes - fixed) / (one.training_bytes - fixed) < 2.2
    assert two.inference_bytes < two.training_bytes and two.flops == one.flops


def test_training_memory_is_what_the_backward_pass_keeps():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(4, use_bias=False, name="b")(jnp.sin(nn.Dense(6, use_bias=False, name="a")(x)))

    parameters = 3 * 6 + 6 * 4
    kept = 8 * 8 * (3 + 6 + 6)  # the image, cos of the first layer, its sine
    assert summary.totals(Two(), (8, 8)).training_bytes == 4 * (4 * parameters + kept)


def test_the_names_are_known_without_importing_the_networks():
    code = "import sys\nfrom jaxseg import models\nprint(*models.names(), 'jaxseg.models.unet' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [*models.names(), "False"]


def test_the_list_names_all_and_the_default_encoders(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert set(models.names()) | set(encoders.names()) <= set(out.split())
    for line in ("unet +its own", "deeplabv3plus +resnet101", "lraspp +mobilenet_v3_large", "ocrnet +hrnet_w48", "cnn"):
        assert re.search(rf"^  {line}$", out, re.MULTILINE), line


def test_the_table_of_a_network_and_of_an_encoder(capsys):
    command = ["unet", "--encoder", "residual", "--arg", "encoder_args.widths=(4,6,8)", "--arg", "widths=(4,6)"]
    assert main([*command, "--num-classes", "5", "--size", "33x48", "--channels", "1", "--depth", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\(all\) +UNet +33 x 48 x 5 +[\d,]+ +\d\.\d{3}$", out, re.MULTILINE)
    assert re.search(r"^  encoder +ResidualEncoder", out, re.MULTILINE) and "stage0" not in out
    model = models.build("unet", num_classes=5, encoder="residual", encoder_args={"widths": (4, 6, 8)}, widths=(4, 6))
    count = summary.totals(model, (33, 48), 1).parameters
    assert f"parameters: {count:,} (" in out and "GFLOPs for an image of 33 x 48: " in out and "GiB in training" in out
    assert main(["plain", "--arg", f"widths={tuple(ENCODERS['plain']['widths'])}", "--size", "32x32"]) == 0
    assert re.search(r"^  stage2 +ConvStage +8 x 8 x 8 ", capsys.readouterr().out, re.MULTILINE)


def test_a_batch_that_cannot_train_has_costs_in_evaluation(capsys):
    command = ["unet", "--encoder", "residual", "--arg", "encoder_args.widths=(4,6,8)", "--arg", "widths=(4,6)"]
    assert main([*command, "--size", "4x4", "--batch", "1"]) == 0  # 1x1 in the last stage: no variance
    out = capsys.readouterr().out
    assert "GiB in evaluation, no training: a batch norm would have a single value" in out
    assert main([*command, "--size", "4x4", "--batch", "2"]) == 0
    assert "GiB in training" in capsys.readouterr().out


def test_both_counts_of_operations_are_told_apart():
    totals = summary.Totals(7, 0, flops=2_500_000_000, inference_bytes=0, training_bytes=0)
    [line] = [line for line in describe(totals, 3_125_000_000, (33, 48), 8).splitlines() if "GFLOPs" in line]
    assert line.startswith("GFLOPs for an image of 33 x 48: 3.125 in the table, which counts convolutions and matrix")
    assert "; 2.500 by XLA, which counts every operation except those on padding" in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("unett", "There is no network or encoder 'unett'. Did you mean 'unet'?"),
        ("unet --encoder residul", "There is no encoder 'residul'. Did you mean 'residual'?"),
        (
            "cnn --encoder resnet18",
            "cnn.encoder is not an argument of the model cnn, which takes no named encoder; networks that take one are",
        ),
        ("residual --encoder plain", "residual is an encoder itself"),
        ("--encoder plain", "--encoder and --arg need the name of a network."),
        ("unet --arg width=(4,)", "Did you mean 'widths'?"),
        ("unet --arg widths", "--arg must be KEY=VALUE, got 'widths'"),
        ("unet --arg widths=(4,6) --encoder plain", "UNet: widths (4, 6) are too few for an encoder of 5 levels"),
        ("unet --arg convs=two", "convs must be a whole number"),
        ("unet --size 512", "--size must be HEIGHTxWIDTH"),
        ("unet --size 0x5", "--size must be HEIGHTxWIDTH"),
        ("unet --num-classes 0", "--num-classes must be at least 1, got 0"),
        ("unet --batch 0", "--batch must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_one_sentence(capsys, command, words):
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1

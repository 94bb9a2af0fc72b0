"""Dropout and stochastic depth of the residual networks: where they are, at which rates, and what they drop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg import models
from jaxseg.build import make_model
from jaxseg.config import default_config
from jaxseg.config.command import parse_overrides
from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.fields import field_names
from jaxseg.nn import Dropout, PreActBlock, StochasticDepth

KEY = jax.random.key(0)


def drops_of(model, size=(1, 32, 32, 3)):
    """{path: rate} of every dropout and stochastic depth that a training step applies."""
    found = {}

    def see(call, args, kwargs, context):
        if isinstance(context.module, (Dropout, StochasticDepth)):
            found["/".join(context.module.path)] = context.module.rate
        return call(*args, **kwargs)

    image = jax.ShapeDtypeStruct(size, jnp.float32)
    with nn.intercept_methods(see):
        jax.eval_shape(functools.partial(model.init, train=True), {"params": KEY, "dropout": KEY}, image)
    return found


@pytest.mark.parametrize("unit", ["preact", "basic"])
def test_stochastic_depth_and_dropout_of_resunet(unit):
    build = functools.partial(models.build, "resunet", num_classes=3, widths=(4, 8), blocks=2, unit=unit)
    assert drops_of(build()) == {}
    found = drops_of(build(drop_path=0.5, dropout=0.25))
    units = [f"encoder/stage{i}/block{j}" for i in (0, 1) for j in (1, 2)]
    units += ["decoder/stage0/block1", "decoder/stage0/block2"]
    assert {path for path in found if path.endswith("dropout")} == {f"{path}/dropout" for path in units}
    assert [found[f"{path}/drop"] for path in units[1:]] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    encoder = drops_of(build(encoder="residual", encoder_args={"widths": (4, 8), "drop_path": 0.2, "dropout": 0.1}))
    assert encoder["encoder/stage1/block1/drop"] == 0.2 and encoder["encoder/stage0/block1/dropout"] == 0.1
    with pytest.raises(ValueError, match="leaves nothing beside it"):
        drops_of(build(drop_path=0.5, shortcut="none"))


def test_stochastic_depth_of_a_decoder_over_another_encoder():
    model = models.build("resunet", num_classes=3, widths=(4, 8), blocks=2, encoder="plain", drop_path=0.3)
    model = model.clone(encoder=model.encoder.replace(widths=(4, 6, 8)))
    found = drops_of(model)
    order = [f"decoder/stage{i}/block{j}/drop" for i in (1, 0) for j in (1, 2)]
    assert [found[path] for path in order[1:]] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_stochastic_depth_of_resnet(block):
    encoder = encoders.build("resnet18", block=block, depths=[1, 2, 1], widths=[4, 4, 8, 8], drop_path=0.3)
    found = drops_of(encoder)
    order = ["stage2/block1/drop", "stage2/block2/drop", "stage3/block1/drop"]
    assert [found[path] for path in order] == pytest.approx([0.1, 0.2, 0.3]) and len(found) == 3


@pytest.mark.parametrize(("block", "last"), [("basic", "conv2"), ("bottleneck", "expand")])
def test_dropout_of_resnet_by_key(block, last):
    """Before the last convolution of each branch, which reads what the dropout gives."""
    config = default_config()
    fields = {"block": block, "depths": (1, 1), "widths": (4, 4, 8), "dropout": 0.5}
    words = ["--config.model.name=fcn_head", "--config.model.args.encoder=resnet18"]
    parse_overrides(config, [*words, f"--config.model.args.encoder_args={fields}"])
    model, dropped, read = make_model(config, 3), [], []

    def see(call, args, kwargs, context):
        result, path = call(*args, **kwargs), context.module.path
        if context.method_name == "__call__" and path[:1] == ("encoder",) and path[-1] in (last, "dropout"):
            (dropped if path[-1] == "dropout" else read).append(result if path[-1] == "dropout" else args[0])
        return result

    with nn.intercept_methods(see):
        found = drops_of(model)
    inside = {path: rate for path, rate in found.items() if path.startswith("encoder")}
    assert inside == {f"encoder/stage{i}/block1/dropout": 0.5 for i in (1, 2)}
    assert len(read) == 2 and all(x is y for x, y in zip(read, dropped, strict=True))


def test_stochastic_depth_drops_the_branch_of_whole_examples():
    block = PreActBlock(4, drop_path=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2, 2, 4)), jnp.float32)
    variables = jax.jit(block.init)(KEY, x)
    run = jax.jit(functools.partial(block.apply, train=True))
    whole, dropped = block.apply(variables, x), run(variables, x, rngs={"dropout": KEY})
    kept = np.asarray(jnp.any(dropped != x, axis=(1, 2, 3)))
    assert 0 < kept.sum() < 16
    np.testing.assert_allclose(dropped[kept], (x + 2 * (whole - x))[kept], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_of_the_other_residual_encoders():
    small = {"width": 4, "stem": 4, "bottlenecks": 2, "modules": (1, 1), "blocks": 1}
    found = drops_of(encoders.build("hrnet_w18", **small, drop_path=0.3))
    expected = {"block2/drop": 0.1, **dict.fromkeys([f"parallel2_1/branch{i}_block1/drop" for i in (0, 1)], 0.2)}
    expected |= dict.fromkeys([f"parallel3_1/branch{i}_block1/drop" for i in (0, 1, 2)], 0.3)
    assert found == pytest.approx(expected)
    rows = ((3, 16, 16, False, "relu", 1), (3, 16, 16, False, "relu", 1))
    found = drops_of(encoders.build("mobilenet_v3_small", rows=rows, drop_path=0.3))
    assert found == pytest.approx({"stage0/block1/drop": 0.0, "stage0/block2/drop": 0.3})
    found = drops_of(encoders.build("mobilenet_v2", stem=16, rows=((1, 8, 2, 1),), last=None, drop_path=0.3))
    assert found == pytest.approx({"stage0/block2/drop": 0.15, "stage0/block3/drop": 0.3})


@pytest.mark.parametrize("name", ["attention_decoder", "attention_unet", "encoder_decoder", "unetplusplus"])
def test_dropout_of_the_own_encoder(name):
    found = drops_of(models.build(name, num_classes=3, widths=(4, 4, 4), dropout=0.25))
    assert found == {"encoder/dropout1": 0.25, "encoder/dropout2": 0.25}


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "x"])
def test_a_wrong_rate_is_refused_by_the_name_of_its_field(value):
    known = [(functools.partial(models.build, n, num_classes=3), n, models._class(n)) for n in models.names()]
    of_families = ("convnext_tiny", "efficientnet_b0", "hrnet_w18", "mit_b0", "mobilenet_v2", "plain", "residual")
    of_families += ("densenet121", "mobilenet_v4_conv_small", "regnet_x_400mf", "resnet18", "vgg11", "xception41")
    known += [(functools.partial(encoders.factory, n), n, encoders._class(n)) for n in of_families]
    for build, name, cls in known:
        for field in [field for field in field_names(cls) if "drop" in field]:
            with pytest.raises(ArgumentError, match=rf"^{name}\.{field} must be a number in \[0, 1\], got"):
                build(**{field: value})

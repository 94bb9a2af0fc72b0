"""The forms that ablations compare: what a decoder takes from the encoder, how it up-samples, what attends."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.tiny_adversarial import quick

from jaxseg import build, models, pretrained
from jaxseg.config import default_config
from jaxseg.config.command import parse_overrides
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.models.attention_decoder import AttentionStage
from jaxseg.models.encoders.residual import residual_unit
from jaxseg.models.manet import PositionAttention
from jaxseg.models.unet import UNetStage
from jaxseg.nn import (
    AttentionGate,
    BasicBlock,
    BatchNorm,
    Conv,
    GroupNorm,
    Layers,
    PreActBlock,
    SubPixelUp,
    make_norm,
    max_pool_with_indices,
    max_unpool,
)
from jaxseg.state import by_path

NONE = Layers(make_norm("none"))


def parameters(name: str, **fields: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter of a small network, by its path."""
    model, image = models.build(name, num_classes=3, widths=(4, 6, 8), **fields), jnp.zeros((1, 8, 12, 3))
    variables = jax.eval_shape(lambda key: model.init({"params": key, "dropout": key}, image), jax.random.key(0))
    return {path: leaf.shape for path, leaf in pretrained.flatten(variables["params"]).items()}


def stage(key: jax.Array, x: jax.Array, level: jax.Array, **fields: Any) -> tuple[dict[str, Any], jax.Array]:
    """Parameters and result of a decoder stage of U-Net without norms."""
    module = UNetStage(4, common=NONE, **fields)
    params = quick(module.init)(key, x, level)["params"]
    return params, quick(module.apply)({"params": params}, x, level)


def convolutions(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """The convolutions of a stage applied to what they are given: the stage without a skip at its own resolution."""
    own = {name: value for name, value in params.items() if name.startswith("conv")}
    return quick(UNetStage(4, common=NONE, skip="none", up="nearest").apply)({"params": own}, x, x)


@pytest.fixture
def pair(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A coarse map of 3 channels, and the skip of 4."""
    return jax.random.normal(key, (1, 2, 3, 3)), jax.random.normal(jax.random.key(1), (1, 4, 6, 4))


def same(found: jax.Array, expected: jax.Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_added_skips_are_a_sum(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    x, skip = pair
    params, found = stage(key, x, skip, skip="add", up="nearest")
    matched = quick(Conv(4, kernel_size=1).apply)({"params": params["match"]}, x)
    same(found, convolutions(params, matched.repeat(2, 1).repeat(2, 2) + skip))


def test_indices_put_features_where_the_maxima_were(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    x, skip = pair
    params, found = stage(key, x, skip, skip="indices")
    matched = quick(Conv(4, kernel_size=1).apply)({"params": params["match"]}, x)
    same(found, convolutions(params, max_unpool(matched, max_pool_with_indices(skip)[1], (4, 6))))
    assert params.keys() == {"match", "conv1", "conv2"}


def test_no_skip_sees_nothing_of_it(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    x, skip = pair
    params, found = stage(key, x, skip, skip="none")
    assert params.keys() == {"up", "conv1", "conv2"}
    same(found, quick(UNetStage(4, common=NONE, skip="none").apply)({"params": params}, x, 9 * skip))


def test_sub_pixel_up_sampling(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    x, skip = pair
    params, found = stage(key, x, skip, up="subpixel")
    assert params["up"]["expand"]["conv"]["kernel"].shape == (3, 3, 3, 16)
    up = quick(SubPixelUp(4).apply)({"params": params["up"]}, x)
    same(found, convolutions(params, jnp.concatenate([up, skip], -1)))


@pytest.mark.parametrize("form", [{"skip": "add"}, {"skip": "indices"}, {"skip": "none"}, {"up": "subpixel"}], ids=str)
def test_forms_of_unet_take_any_size(form: dict[str, Any]) -> None:
    model, image = models.build("unet", num_classes=3, widths=(4, 6, 8), **form), jnp.zeros((1, 7, 13, 3))
    logits, _ = jax.eval_shape(lambda key: model.init_with_output(key, image)[0], jax.random.key(0))
    assert logits.shape == (1, 7, 13, 3)


@pytest.mark.parametrize(
    "form",
    [{"padding": "valid"}, {"encoder": "resnet18", "full_resolution": True, "widths": (4,) * 6}],
    ids=["valid", "full resolution"],
)
def test_indices_need_poolings_to_undo(form: dict[str, Any]) -> None:
    model = models.build("unet", num_classes=3, **{"widths": (4, 6), "skip": "indices", **form})
    with pytest.raises(ValueError, match="skip='indices' undoes poolings that halve the size"):
        jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3))), jax.random.key(0))


def test_the_gate_weighs_the_skip_before_the_concatenation(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    x, skip = pair
    gated, plain = AttentionStage(4, kind="gate", common=NONE), AttentionStage(4, attention=False, common=NONE)
    params = quick(gated.init)(key, x, skip)["params"]
    assert params.keys() == {"gate", "conv"}
    weighed, _ = quick(AttentionGate().apply)({"params": params["gate"]}, skip, x)
    expected = quick(plain.apply)({"params": {"conv": params["conv"]}}, x, weighed)
    same(quick(gated.apply)({"params": params}, x, skip), expected)


def test_self_attention_starts_as_the_identity(key: jax.Array, pair: tuple[jax.Array, jax.Array]) -> None:
    attends, plain = AttentionStage(4, num_heads=2, common=NONE), AttentionStage(4, attention=False, common=NONE)
    params = quick(attends.init)(key, *pair)["params"]
    alone = quick(plain.apply)({"params": {"conv": params["conv"]}}, *pair)
    same(quick(attends.apply)({"params": params}, *pair), alone)
    grads = quick(jax.grad(lambda params: attends.apply({"params": params}, *pair).sum()))(params)["attention"]
    assert jnp.any(grads["out"]["kernel"]), "and learns from there"


@pytest.mark.parametrize(("kind", "child"), [("self", "attention"), ("gate", "gate")])
@pytest.mark.parametrize(("levels", "stages"), [(None, {0, 1}), (1, {1}), (2, {0, 1})])
def test_the_coarsest_levels_attend(kind: str, child: str, levels: int | None, stages: set[int]) -> None:
    names = parameters("attention_decoder", num_heads=2, kind=kind, levels=levels)
    attending = {path.split("/")[1] for path in names if f"/{child}/" in path}
    assert attending == {f"stage{i}" for i in stages}
    other = "gate" if child == "attention" else "attention"
    assert not any(f"/{other}/" in path for path in names)


def test_the_unit_of_resunet() -> None:
    preact, basic = parameters("resunet"), parameters("resunet", unit="basic")
    assert preact == parameters("resunet", unit="preact") and "encoder/stage1/block1/norm1/scale" in preact
    for place in ("encoder/stage0", "encoder/stage2", "decoder/stage1"):
        assert f"{place}/block1/conv1/conv/kernel" in basic, "norms stand after convolutions"
        assert preact[f"{place}/block1/conv2/kernel"] == basic[f"{place}/block1/conv2/conv/kernel"]
    assert isinstance(residual_unit("basic", 4, stride=2), BasicBlock)
    unit = residual_unit("preact", 4, stride=2, first_preact=False, shortcut="none")
    assert unit == PreActBlock(4, stride=2, first_preact=False, shortcut="none")


def norms_of(**fields: Any) -> list[nn.Module]:
    """The norm layers of a small U-Net."""
    return list(norms_in(models.build("unet", num_classes=3, widths=(8, 16), dropout=0.0, **fields)).values())


def norms_in(model: nn.Module) -> dict[str, nn.Module]:
    """The norm layers of a network by path, as a pass through it makes them."""
    found = {}

    def see(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, (BatchNorm, GroupNorm)):
            found["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(see):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    return found


def test_norm_args_are_those_of_every_norm() -> None:
    assert {norm.num_groups for norm in norms_of(norm="group")} == {8}
    groups = norms_of(norm="group", norm_args={"num_groups": 4, "epsilon": 0.25})
    assert {(norm.num_groups, norm.epsilon) for norm in groups} == {(4, 0.25)}
    batch = norms_of(norm_args={"momentum": 0.99})
    assert {norm.momentum for norm in batch} == {0.99} and len(batch) == len(groups) > 4
    # They have precedence over what a network sets for its encoder.
    spec = models.build("deeplabv3", num_classes=3, encoder="mobilenet_v2", norm_args={"epsilon": 0.5}).common.norm
    assert spec(epsilon=1e-3).epsilon == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_args": {"groups": 4}}, "groups is not an argument of the norm batch"),
        ({"norm": "group", "norm_args": {"num_group": 4}}, "num_group is not .* Did you mean 'num_groups'"),
        ({"norm_args": {"num_groups": 4}}, "num_groups is not an argument of the norm batch"),
        ({"norm_args": {"epsilon": -1.0}}, "epsilon must be a number of at least 0"),
        ({"norm_args": {"momentum": "much"}}, "momentum must be"),
        ({"norm_args": {"dtype": "float16"}}, "norm_args.dtype is not a field of the norm batch"),
        ({"norm_args": 4}, "norm_args must be a dictionary"),
        ({"norm": make_norm("batch"), "norm_args": {"epsilon": 1.0}}, "norm_args needs the name of a norm"),
        ({"norm_arg": {"epsilon": 1.0}}, "Did you mean 'norm_args'"),
    ],
)
def test_wrong_norm_args_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build("unet", num_classes=3, **fields)


def test_attention_weights_are_read_from_python_and_commands_note_that_they_do_not(caplog) -> None:
    config = default_config()
    fields = ["--config.model.name=attention_decoder", "--config.model.args.widths=(4,8)"]
    parse_overrides(config, [*fields, "--config.model.args.num_heads=2"])
    model = build.build_parts(config, 3).model
    assert not caplog.records
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    read = functools.partial(model.clone(sow_attention=True).apply, train=False, mutable=["intermediates"])
    (weights,) = jax.eval_shape(read, variables, image)[1]["intermediates"]["decoder"]["stage0"]["attention"][
        "attention"
    ]
    assert weights.shape == (1, 2, 64, 64)
    parse_overrides(config, ["--config.model.args.sow_attention=true"])
    build.build_parts(config, 3)
    assert "model.args.sow_attention=True has no effect in training" in caplog.text


def test_a_head_that_no_term_of_the_loss_trains_is_noted(caplog) -> None:
    config = default_config()
    parse_overrides(config, ["--config.model.name=pidnet", "--config.model.args.width=4"])
    build.build_parts(config, 3)
    assert "has an output for the loss term boundary_awareness, which loss.terms=" in caplog.text
    caplog.clear()
    parse_overrides(config, ["--config.loss.terms=cross_entropy + boundary_awareness"])
    build.build_parts(config, 3)
    assert not caplog.records


@pytest.mark.parametrize("word", ["norm_args={'num_groups': 4}", "norm_args.num_groups=4"])
def test_norm_args_are_a_config_key(word: str) -> None:
    config = default_config()
    words = ["--config.model.name=unet", "--config.model.args.norm=group", f"--config.model.args.{word}"]
    parse_overrides(config, words)
    assert build.make_model(config, 3).common.norm(name="norm").num_groups == 4
    parse_overrides(config, ["--config.model.args.norm_args={'groups': 4}"])
    with pytest.raises(ConfigError, match="model: groups is not an argument of the norm group"):
        build.make_model(config, 3)


@pytest.mark.parametrize(("branch_norm", "norm", "groups"), [("group", "batch", 32), ("same", "group", 8)])
def test_the_norm_of_the_branches_of_fpn(branch_norm: str, norm: str, groups: int) -> None:
    fields = {"norm": norm, "branch_norm": branch_norm, "encoder": "plain", "encoder_args": {"widths": (4, 6, 8)}}
    model = models.build("fpn", num_classes=3, width=8, branch_width=4, finest=1, **fields)
    found = norms_in(model)
    branches = [module for path, module in found.items() if path.startswith("branch")]
    assert branches and {module.num_groups for module in branches} == {groups}
    model = models.build("fpn", num_classes=3, width=8, branch_width=4, finest=1, **(fields | {"norm": "batch"}))
    kinds = {type(module) for path, module in norms_in(model).items() if path.startswith("branch")}
    assert kinds == {GroupNorm if branch_norm == "group" else BatchNorm}


@pytest.mark.parametrize("ratio", [2, 4])
def test_the_hidden_width_of_mix_transformers(ratio: int) -> None:
    sizes = {"widths": (4, 6, 8, 8), "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 4), "mlp_ratio": ratio}
    encoder = models.encoders.build("mit_b0", **sizes)
    params = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    kernels = [(path, leaf.shape) for path, leaf in by_path(params["params"]).items() if path.endswith("kernel")]
    for i, width in enumerate(sizes["widths"]):
        inside = [shape[-2:] for path, shape in kernels if f"stage{i}/" in path and "/ffn/" in path]
        assert {(width, ratio * width), (ratio * width, width)} <= set(inside)


def test_the_weights_of_an_encoder_are_no_argument_of_the_model():
    with pytest.raises(
        ArgumentError, match=r"unet.encoder_weights is not an argument .* --config.model.encoder_weights="
    ):
        models.build("unet", num_classes=2, encoder="resnet18", encoder_weights="imagenet")


def test_the_scores_of_manet_are_float32_in_half_precision() -> None:
    """Neither rounded before the softmax nor after the sum: the product itself has the dtype."""
    module = PositionAttention(4, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((1, 2, 3, 8), jnp.bfloat16)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    text = str(jax.make_jaxpr(module.apply)(variables, x))
    assert ":f32[1,6,6] = dot_general" in text and ":bf16[1,6,6] = dot_general" not in text

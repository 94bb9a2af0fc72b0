"""Fifty residual units with each form of y = g(W_c x + W_r h(x)): variances, loss and the maps before training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.variables import drawn

from jaxseg import losses, models
from jaxseg import nn as jnn
from jaxseg.nn.conv import identity_kernel
from jaxseg.state import by_path

UNITS, WIDTH, CLASSES = 50, 16, 6
COMMON = jnn.BARE.replace(norm=jnn.make_norm("batch"))
BLOCKS = {"basic": jnn.BasicBlock, "bottleneck": jnn.BottleneckBlock, "preact": jnn.PreActBlock}


def variables_of(block, x, units=UNITS):
    """Variables of `units` blocks with their own keys, stacked along the first axis."""
    return jax.vmap(lambda key: block.init(key, x))(jax.random.split(jax.random.key(1), units))


@functools.partial(jax.jit, static_argnums=0)
def stack(block, x):
    """The features after all units, in training mode."""
    step = functools.partial(block.apply, train=True, mutable=["batch_stats"])
    return jax.lax.scan(lambda x, variables: (step(variables, x)[0], None), x, variables_of(block, x))[0]


def units_with(*forms):
    """Each form in the unit before whose layers norms stand, and two forms in the others: the units share the sum."""
    cases = [(unit, form) for unit in BLOCKS for form in forms]
    few = [case for case in cases if case[0] != "preact" and case[1] not in ("identity", "projection")]
    return [pytest.param(*case, marks=pytest.mark.slow) if case in few else case for case in cases]


# "auto" is the identity here, and a scale for each channel starts as one for all.
@pytest.mark.parametrize(("unit", "form"), units_with("none", "identity", "projection", "learned", "scaled"))
def test_fifty_units_keep_the_variance_and_the_loss_at_the_start(unit, form):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, WIDTH))
    y = stack(BLOCKS[unit](WIDTH, shortcut=form, common=COMMON), x)
    # A unit adds at most a branch of variance 1, and no unit multiplies.
    assert 1e-2 < float(jnp.var(y)) < 1.5 * (1 + UNITS)
    logits = y @ (0.01 * jax.random.normal(jax.random.key(2), (WIDTH, CLASSES)))  # as `near_zero` draws it
    labels = jax.random.randint(jax.random.key(3), (2, 4, 4), 0, CLASSES)
    assert losses.make_loss(num_classes=CLASSES)(logits, labels) == pytest.approx(np.log(CLASSES), abs=0.1)


@pytest.mark.parametrize(("unit", "form"), units_with("identity", "projection", "learned", "weighted", "scaled"))
def test_without_norms_a_unit_starts_as_its_input(unit, form):
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, WIDTH))  # what an activation after the sum leaves
    common = jnn.BARE.replace(norm=jnn.make_norm("none"))
    block = BLOCKS[unit](WIDTH, shortcut=form, common=common)
    params = jax.jit(block.init)(jax.random.key(1), x)["params"]
    y, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(x * block.apply({"params": p}, x))))(params)
    np.testing.assert_allclose(y, jnp.sum(x * x), rtol=1e-5)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient))  # it learns
    if form == "identity":
        plain = BLOCKS[unit](WIDTH, shortcut="none", common=common)
        assert np.asarray(jax.jit(lambda key: plain.init_with_output(key, x)[0])(jax.random.key(1))).any()


@pytest.mark.parametrize("form", ["projection", "learned"])
def test_the_pre_activation_unit_starts_as_the_identity_unit(form):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, WIDTH))
    identity, other = (stack(jnn.PreActBlock(WIDTH, shortcut=s, common=COMMON), x) for s in ("identity", form))
    np.testing.assert_allclose(other, identity, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["scaled", "scaled_channels"])
def test_a_scaled_unit_starts_as_its_input_and_learns_the_scale(form):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4))
    block, plain = (jnn.PreActBlock(4, shortcut=s, common=COMMON) for s in (form, "none"))
    variables = jax.jit(block.init)(jax.random.key(1), x)
    scale = variables["params"].pop("branch_scale")
    assert scale.shape == ((1,) if form == "scaled" else (4,)) and not scale.any()

    @jax.jit
    def apply(scale):
        params = {**variables["params"], "branch_scale": scale}
        return block.apply({**variables, "params": params}, x)

    np.testing.assert_array_equal(apply(scale), x)
    factor = jnp.linspace(-0.5, 2.0, scale.size)
    h = np.asarray(jax.jit(plain.apply)(variables, x))
    np.testing.assert_allclose(apply(factor), x + np.asarray(factor) * h, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda scale: jnp.sum(apply(scale) * jnp.arange(1.0, 5.0).reshape(1, 1, 1, 4)))(scale)
    weighted = (h * np.arange(1.0, 5.0)).sum((0, 1, 2))
    np.testing.assert_allclose(gradient, weighted if scale.size > 1 else weighted.sum(keepdims=True), rtol=1e-4)


def test_a_weighted_unit_starts_as_the_identity_unit_and_weighs_its_input():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4))
    weighted, identity, plain = (jnn.PreActBlock(4, shortcut=s, common=COMMON) for s in ("weighted", "auto", "none"))
    variables = drawn(weighted, x)
    variables["params"]["identity_scale"] = np.ones(4, np.float32)
    rest = {**variables, "params": {k: v for k, v in variables["params"].items() if k != "identity_scale"}}
    assert jax.jit(weighted.init)(jax.random.key(1), x)["params"]["identity_scale"].tolist() == [1.0] * 4
    apply, apply_plain = jax.jit(weighted.apply), jax.jit(plain.apply)
    np.testing.assert_array_equal(apply(variables, x), jax.jit(identity.apply)(rest, x))
    w = np.asarray([0.5, -1.0, 0.0, 2.0], np.float32)
    changed = {**variables, "params": {**variables["params"], "identity_scale": w}}
    np.testing.assert_allclose(apply(changed, x), w * np.asarray(x) + apply_plain(rest, x), rtol=1e-6, atol=1e-6)


def test_the_maps_before_training():
    wide, narrow, x = 256, 64, jnp.zeros((1, 2, 2, 64))
    blocks = {
        "same": jnn.PreActBlock(narrow, shortcut="projection", common=COMMON),
        "same, strided": jnn.PreActBlock(narrow, stride=2, shortcut="learned", common=COMMON),
        "wider": jnn.PreActBlock(wide, shortcut="learned", common=COMMON),
        "wider, auto": jnn.PreActBlock(wide, common=COMMON),
        "same, auto, strided": jnn.PreActBlock(narrow, stride=2, common=COMMON),
        "basic, auto, strided": jnn.BasicBlock(narrow, stride=2, common=COMMON),
        "wider, norm": jnn.BasicBlock(wide, shortcut="projection", common=COMMON),
    }
    drawn = jax.jit(lambda key: {name: block.init(key, x)["params"] for name, block in blocks.items()})
    params = drawn(jax.random.key(0))
    kernels = {name: np.asarray(each["shortcut"]["kernel"])[0, 0] for name, each in params.items()}
    np.testing.assert_array_equal(kernels["same"], np.eye(narrow))
    np.testing.assert_array_equal(kernels["same, strided"], np.eye(narrow))
    np.testing.assert_array_equal(kernels["same, auto, strided"], np.eye(narrow))
    assert kernels["basic, auto, strided"].var() * narrow == pytest.approx(2.0, rel=0.1)
    np.testing.assert_array_equal(params["wider"]["weight"]["kernel"][0, 0], np.eye(wide))
    assert kernels["wider"].var() * narrow == pytest.approx(1.0, rel=0.05)
    assert kernels["wider, auto"].var() * narrow == pytest.approx(1.0, rel=0.05)
    assert kernels["wider, norm"].var() * narrow == pytest.approx(2.0, rel=0.05)
    kernel = identity_kernel(jax.random.key(0), (3, 3, 4, 4))
    image = jnp.arange(16.0).reshape(1, 2, 2, 4)
    np.testing.assert_array_equal(jnn.conv2d(image, kernel, padding=1), image)


def test_resunet_has_the_scaled_forms():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    for form, size in (("scaled", 1), ("scaled_channels", 8)):
        for unit in ("preact", "basic"):
            model = models.build("resunet", num_classes=3, widths=(4, 8), blocks=2, shortcut=form, unit=unit)
            params = by_path(jax.eval_shape(model.init, jax.random.key(0), x)["params"])
            assert params["encoder/stage1/block2/branch_scale"].shape == (size,)
            assert "encoder/stage1/block1/shortcut/kernel" in params
            assert "encoder/stage1/block2/shortcut/kernel" not in params

"""Residual units of a stage that share one set of parameters: their number, their gradient and their statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.variables import drawn, variable_shapes

from jaxseg import models
from jaxseg.models import encoders
from jaxseg.models.encoders.residual import ResidualStage
from jaxseg.state import by_path

UNITS = 3
SHAPE = (2, 4, 4, 3)


def stages(**fields):
    """The stage with shared units and that with separate ones."""
    return (ResidualStage(4, UNITS, shared=shared, **fields) for shared in (True, False))


def test_the_gradient_is_the_sum_of_those_of_the_separate_units():
    shared, separate = stages(shortcut="weighted")
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    variables = drawn(shared, x)
    repeated = [f"block{i}" for i in range(2, UNITS + 1)]

    def unrolled(variables, of_unit):
        """The variables of separate units: those of block1, and of_unit(array, i) of block2 for the i-th after it."""
        units = {
            name: jax.tree.map(functools.partial(of_unit, i=i), variables["block2"]) for i, name in enumerate(repeated)
        }
        return {"block1": variables["block1"], **units}

    def loss(stage, params, stats):
        y, new = stage.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return (y**2 * jnp.arange(4.0).reshape(1, 1, 1, 4)).sum(), (y, new["batch_stats"])

    params, stats = variables["params"], variables["batch_stats"]
    expanded = unrolled(params, lambda a, i: a), unrolled(stats, lambda a, i: a[i])
    step = jax.jit(jax.value_and_grad(loss, argnums=1, has_aux=True), static_argnums=0)
    (_, (y, new)), gradient = step(shared, params, stats)
    (_, (there, new_there)), gradients = step(separate, *expanded)
    np.testing.assert_allclose(y, there, rtol=1e-5, atol=1e-5)
    sums = jax.tree.map(lambda *each: sum(each), *(gradients[name] for name in repeated))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(close, gradient, {"block1": gradients["block1"], "block2": sums})
    # The statistics are those of each unit.
    jax.tree.map(close, unrolled(new, lambda a, i: a[i]), new_there)
    means = [np.asarray(leaf) for path, leaf in by_path(new["block2"]).items() if path.endswith("mean")]
    assert means and all(m.shape == (UNITS - 1, 4) and (np.ptp(m, axis=0) > 0).all() for m in means)


def test_the_parameters_are_those_of_one_unit():
    def paths(units, **fields):
        model = models.build("resunet", num_classes=3, widths=(4, 8), shortcut="weighted", blocks=units, **fields)
        return by_path(variable_shapes(model, (1, 4, 4, 3))["params"])

    two, shared = paths(2), paths(3, shared=True)
    assert shared == two and "decoder/stage0/block2/identity_scale" in shared
    encoder = encoders.build("residual", widths=(4,), blocks=4, shared=True)
    stage = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]["stage0"]
    assert set(stage) == {"block1", "block2"}


def test_dropout_differs_between_the_units_and_stochastic_depth_is_refused():
    stage, _ = stages(dropout=0.5, common=models.build("resunet", num_classes=2, norm="none").common)
    x, key = jnp.ones(SHAPE), jax.random.key(0)
    params = drawn(stage, x)["params"]
    # Units that drop at the same places after a branch of zeros but for its bias would add the same each.
    quiet = jax.tree.map(jnp.zeros_like, params)
    quiet["block2"]["conv1"]["bias"] += 1.0
    quiet["block2"]["conv2"]["kernel"] = quiet["block2"]["conv2"]["kernel"].at[1, 1].set(jnp.eye(4))
    run = jax.jit(functools.partial(stage.apply, train=True))
    y = np.asarray(run({"params": quiet}, x, rngs={"dropout": key}))
    assert {0.0, 2.0, 4.0} == set(np.unique(y).tolist())  # the number of units that kept an entry, doubled
    with pytest.raises(ValueError, match=r"shared=True has no stochastic depth.*give drop_path=0, got 0\.1"):
        models.build("resunet", num_classes=3, shared=True, drop_path=0.1).init(key, x[:1])

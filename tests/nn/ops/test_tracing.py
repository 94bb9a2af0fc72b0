"""Traces that are kept: a function is traced once for equal shapes, and leaves no mark on the program."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.nn.ops.tracing import bound, traced_once


def test_a_function_is_traced_once_for_each_shape_and_value():
    traces = []

    @traced_once("factor")
    def scaled(x, factor):
        traces.append((x.shape, factor))
        return x * factor

    def program(x):
        return scaled(scaled(scaled(x, 2.0), 3.0), 2.0) + scaled(x[:1], 2.0)

    operations = re.findall(r"stablehlo\.\w+|\bcall @\w+", jax.jit(program).lower(jnp.ones(4)).as_text())
    assert traces == [((4,), 2.0), ((4,), 3.0), ((1,), 2.0)]
    plain = jax.jit(lambda x: x * 2.0 * 3.0 * 2.0 + x[:1] * 2.0).lower(jnp.ones(4)).as_text()
    assert operations == re.findall(r"stablehlo\.\w+|\bcall @\w+", plain)
    np.testing.assert_array_equal(program(jnp.arange(4.0)), jnp.arange(4.0) * 12.0)


def test_a_branch_is_traced_once_for_each_shape():
    traces = []

    def shifted(x, by):
        traces.append((x.shape, by))
        return x + by

    def program(x):
        for by in (1.0, 2.0, 1.0):
            x = jax.lax.platform_dependent(x, cpu=bound(shifted, by=by), default=bound(shifted, by=-by))
        return x

    assert jax.jit(program)(jnp.zeros(2)).tolist() == [4.0, 4.0]
    assert sorted(traces) == [((2,), by) for by in (-2.0, -1.0, 1.0, 2.0)]

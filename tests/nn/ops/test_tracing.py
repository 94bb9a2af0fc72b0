"""Traces that are kept: a function is traced once for equal shapes, and leaves no mark on the program."""

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

    traced = jax.make_jaxpr(program)(jnp.ones(4))
    assert traces == [((4,), 2.0), ((4,), 3.0), ((1,), 2.0)]
    plain = jax.make_jaxpr(lambda x: x * 2.0 * 3.0 * 2.0 + x[:1] * 2.0)(jnp.ones(4))
    assert [e.primitive.name for e in traced.eqns] == [e.primitive.name for e in plain.eqns]
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

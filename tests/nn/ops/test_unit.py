"""Vectors of length 1: values in float64, and the gradient at and near a vector without a length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.ops.unit import unit_vectors


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_the_length_is_one_or_stays_below(axis, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), dtype)
    z = np.asarray(x, np.float64)
    found = unit_vectors(x, axis)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, z / np.linalg.norm(z, axis=axis, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(unit_vectors(1e-4 * x.astype(jnp.float32), axis, least=1.0), 1e-4 * z, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_a_vector_without_a_length_has_no_gradient(dtype):
    weight = jnp.asarray([3.0, -2.0])
    x = jnp.asarray([[0.0, 0.0], [3.0, 4.0]], dtype)
    found = jax.jit(jax.grad(lambda x: jnp.sum(unit_vectors(x) * weight[None])))(x)
    np.testing.assert_array_equal(found[0], 0)
    across = np.array([4, -3]) * (4 * 3.0 - 3 * -2.0) / 125  # what the weight has across the vector, by its length
    np.testing.assert_allclose(found[1], across, rtol=2e-3)

"""Products whose gradients half precision multiplies in half precision too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.collectives import forms_of_gpus
from helpers.lowered import products, transposes

from jaxseg import nn as jnn
from jaxseg.nn.ops.product import along_axis, product

MASKS = "byxc,bqc->byxq"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value_and_gradients(function, *arrays):
    y, pull_back = jax.vjp(function, *arrays)
    return y, *pull_back(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


def lowered(function, *arrays):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


def test_in_float32_a_product_is_the_plain_one():
    a, b = draw(2, 3, 4, 5), draw(2, 6, 5, seed=1)
    plain = functools.partial(jnp.einsum, MASKS, preferred_element_type=jnp.float32)
    programs = [
        str(jax.make_jaxpr(lambda a, b, f=f: value_and_gradients(f, a, b))(a, b))
        for f in (functools.partial(product, MASKS), plain)
    ]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gives_the_product_of_its_values(dtype):
    a, b = (jnp.asarray(v, dtype) for v in (draw(2, 3, 4, 5), draw(2, 6, 5, seed=1)))
    y, da, db = value_and_gradients(lambda a, b: product(MASKS, a, b), a, b)
    assert y.dtype == jnp.float32 and da.dtype == db.dtype == dtype
    exact = value_and_gradients(lambda a, b: product(MASKS, a, b), a.astype(jnp.float32), b.astype(jnp.float32))
    np.testing.assert_allclose(y, exact[0], rtol=1e-5, atol=1e-5)
    for found, expected in zip((da, db), exact[1:]):
        np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.02 * np.abs(expected).max())
    program = lowered(lambda a, b: value_and_gradients(lambda a, b: product(MASKS, a, b), a, b), a, b)
    assert set(products(program)) == {(jnp.dtype(dtype).name.replace("loat", ""),) * 2}


# Many channels and few, for which a product of each row would need more memory than a transpose.
@pytest.mark.parametrize("channels", [16, 2])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_constant_keeps_its_values_beside_half_precision(axis, channels, dtype, monkeypatch):
    """Nearly every result is the exact one, rounded; with a matrix of bfloat16, nine in ten are."""
    shape = (2, 64, 7, channels) if axis == 1 else (2, 7, 64, channels)
    matrix, x = np.abs(draw(7, 64)), jnp.abs(jnp.asarray(draw(*shape), dtype))
    pattern = ("yh,bhwc->bywc", "yw,bhwc->bhyc")[axis - 1]
    exact = np.einsum(pattern, matrix.astype(np.float64), np.asarray(x, np.float64))
    with forms_of_gpus(monkeypatch):
        y, dx = value_and_gradients(lambda x: along_axis(matrix, x, axis), x)
    assert y.dtype == dx.dtype == dtype
    expected = value_and_gradients(lambda x: along_axis(matrix, x, axis), x.astype(jnp.float32))
    if dtype == jnp.bfloat16:
        assert (np.asarray(y) == exact.astype(jnp.bfloat16)).mean() > 0.97
        np.testing.assert_allclose(dx.astype(np.float32), expected[1], atol=0.02 * np.abs(expected[1]).max())
    else:
        np.testing.assert_allclose(y, exact, rtol=1e-5)
        np.testing.assert_allclose(dx, expected[1], rtol=1e-4, atol=1e-5)


def test_a_product_with_a_constant_needs_no_transpose():
    x = jnp.zeros((2, 8, 9, 16), jnp.bfloat16)
    program = lowered(lambda x: value_and_gradients(lambda x: jnn.adaptive_avg_pool(x, (3, 4)), x), x)
    assert not [order for order, shape in transposes(program) if len(shape) == 4]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnn.resize(x, (5, 11)),
        lambda x: jnn.resize(x, (12, 12), align_corners=True),
        lambda x: jnn.adaptive_avg_pool(x, (3, 4)),
    ],
)
def test_sampling_in_half_precision_multiplies_half_precision(function):
    x = jnp.asarray(draw(2, 8, 8, 4), jnp.bfloat16)
    found, exact = value_and_gradients(function, x), value_and_gradients(function, x.astype(jnp.float32))
    for half, full in zip(found, exact):
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(np.float32), full, atol=0.01 * np.abs(full).max())
    program = lowered(lambda x: value_and_gradients(function, x), x)
    assert set(products(program)) == {("bf16", "bf16")}

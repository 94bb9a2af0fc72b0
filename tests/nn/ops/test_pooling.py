"""Pooling and un-pooling against torch, values, gradients, ties and odd sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxseg import nn as jnn

CASES = [(2, None, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0), (3, None, 0), (4, 3, 2), (1, 2, 0)]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(f, x, dy):
    y, pull = jax.vjp(f, x)
    return y, pull(dy)[0]


def to_torch(torch, x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(4, 7), (9, 5)])
def test_pools_are_torchs(size, case, ceil_mode):
    torch = pytest.importorskip("torch")
    window, stride, padding = case
    x = draw(2, *size, 3)
    for ours, theirs in (
        (jnn.max_pool, torch.nn.functional.max_pool2d),
        (jnn.avg_pool, lambda *a, **k: torch.nn.functional.avg_pool2d(*a, count_include_pad=False, **k)),
    ):
        pool = functools.partial(ours, window=window, stride=stride, padding=padding, ceil_mode=ceil_mode)
        shape = jax.eval_shape(pool, x).shape
        dy = draw(*shape, seed=1)
        y, dx = value_and_gradient(pool, x, dy)
        tx = to_torch(torch, x).requires_grad_()
        ty = theirs(tx, window, stride, padding, ceil_mode=ceil_mode)
        ty.backward(to_torch(torch, dy))
        np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7)])
@pytest.mark.parametrize("pool", [jnn.max_pool, lambda x: jnn.max_pool_with_indices(x)[0]])
def test_a_tie_sends_its_gradient_to_the_first_pixel(size, pool):
    check_ties(size, pool, 2, 2, 0)


@pytest.mark.parametrize("case", [(3, 2, 1), (3, 1, 1), (2, 1, 0), (3, 2, 0)])
def test_ties_of_windows_that_overlap(case):
    check_ties((7, 10), lambda x: jnn.max_pool(x, *case), *case)


def check_ties(size, pool, window, stride, padding):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 2, (3, *size, 4)).astype(np.float32)
    tx = to_torch(torch, x).requires_grad_()
    ty = torch.nn.functional.max_pool2d(tx, window, stride, padding)
    dy = draw(3, *ty.shape[2:], 4)
    ty.backward(to_torch(torch, dy))
    dx = value_and_gradient(pool, x, dy)[1]
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", [(2, 2, 0), (3, 2, 1)])
def test_max_pool_under_jit_vmap_remat_and_bfloat16(case):
    x = draw(3, 2, 5, 8, 4)

    def f(a):
        return jnp.sum(jnp.sin(3 * jnn.max_pool(a, *case).astype(jnp.float32)))

    expected = np.stack([jax.jit(jax.grad(f))(a) for a in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(f)))(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(jax.remat(f))))(x), expected, rtol=1e-5, atol=1e-5)
    half = x.astype(jnp.bfloat16)
    gradient = jax.jit(jax.vmap(jax.grad(f)))(half)
    assert gradient.dtype == jnp.bfloat16
    same = jax.jit(jax.vmap(jax.grad(f)))(half.astype(jnp.float32))
    np.testing.assert_allclose(gradient.astype(np.float32), same, rtol=0.02, atol=0.02)


def test_gradients_against_finite_differences():
    x = np.random.default_rng(0).permutation(2 * 5 * 4 * 2).reshape(2, 5, 4, 2).astype(np.float32) / 10  # no near ties
    for pool in (
        jnn.max_pool,
        jnn.avg_pool,
        lambda a: jnn.max_pool(a, 3, 2, 1),
        lambda a: jnn.max_pool_with_indices(a)[0],
    ):
        check_grads(jax.jit(pool), (x,), order=1, modes=["rev"], eps=1e-2, rtol=0.02)


def test_one_pixel():
    x = draw(1, 1, 1, 3)
    np.testing.assert_array_equal(jnn.max_pool(x, 2, ceil_mode=True), x)
    np.testing.assert_allclose(jnn.avg_pool(x, 3, 2, 1), x)
    np.testing.assert_allclose(jnn.global_avg_pool(x), x)
    with pytest.raises(ValueError, match="no room in"):
        jnn.max_pool(x, 2)
    with pytest.raises(ValueError, match="no room in"):
        jnn.max_pool_with_indices(x)
    with pytest.raises(ValueError, match=r"padding of \w+ must be in \[0, \d\], half of the window \d, got \d"):
        jnn.avg_pool(x, 2, 2, 2)


def test_nan_is_not_hidden():
    x = draw(1, 4, 4, 1)
    x[0, 1, 1, 0] = np.nan
    assert np.isnan(np.asarray(jnn.max_pool(x))[0, 0, 0, 0])


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", [(6, 6), (7, 9)])
def test_pool_with_indices_and_unpool_are_torchs(size, window):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 3, (2, *size, 3)).astype(np.float32)  # ties
    y, index = jax.jit(jnn.max_pool_with_indices, static_argnums=1)(x, window)
    ty, tindex = torch.nn.functional.max_pool2d(to_torch(torch, x), window, return_indices=True)
    np.testing.assert_array_equal(y, ty.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(index, tindex.numpy().transpose(0, 2, 3, 1))
    assert index.dtype == jnp.int32
    values, dy = draw(*y.shape), draw(*x.shape, seed=1)
    tv = to_torch(torch, values).requires_grad_()
    twin = torch.nn.functional.max_unpool2d(tv, tindex, window, output_size=size)
    twin.backward(to_torch(torch, dy))
    back, gradient = value_and_gradient(lambda v: jnn.max_unpool(v, index, size, window), values, dy)
    np.testing.assert_array_equal(back, twin.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(gradient, tv.grad.numpy().transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="cannot give"):
        jnn.max_unpool(values, index, (size[0] + window, size[1]), window)


def test_global_average_sums_in_float32():
    x = jnp.full((1, 64, 64, 2), 1.001, jnp.bfloat16)
    assert jnn.global_avg_pool(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(jnn.global_avg_pool(x), x[:, :1, :1])


@pytest.mark.parametrize("axis", [-1, 1])
def test_max_along_gives_the_first_maximum_the_gradient(axis):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 4, 3, 5)), jnp.float32)  # with equal maxima
    weight = jnp.asarray(np.random.default_rng(1).normal(size=jnp.max(x, axis, keepdims=True).shape), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(weight * jnn.max_along(x, axis))))(x)
    values, weights = np.asarray(x), np.asarray(weight)
    expected = np.zeros(x.shape)
    np.put_along_axis(expected, values.argmax(axis, keepdims=True), weights, axis)
    np.testing.assert_array_equal(gradient, expected.astype(np.float32))
    np.testing.assert_allclose(value, (weights * values.max(axis, keepdims=True)).sum(), rtol=1e-6)

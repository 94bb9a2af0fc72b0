"""Scaled dot-product attention: values and gradients are those of the definition in float64, in each of its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.lowered import products
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn import dot_product_attention
from jaxseg.nn.ops.dot_product import _attend


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def defined(q, k, v, dy):
    """Attention and its gradients, from the definition of the softmax and its Jacobian, in float64."""
    q, k, v, dy = (np.asarray(a, np.float64) for a in (q, k, v, dy))
    scale = 1 / np.sqrt(q.shape[-1])
    scores = np.exp(np.einsum("bqnd,btnd->bnqt", q, k) * scale)
    p = scores / scores.sum(-1, keepdims=True)
    dp = np.einsum("bqnd,btnd->bnqt", dy, v)
    jacobian = np.einsum("bnqt,tu->bnqtu", p, np.eye(k.shape[1])) - np.einsum("bnqt,bnqu->bnqtu", p, p)
    ds = np.einsum("bnqtu,bnqu->bnqt", jacobian, dp) * scale
    return (
        np.einsum("bnqt,btnd->bqnd", p, v),
        np.einsum("bnqt,btnd->bqnd", ds, k),
        np.einsum("bnqt,bqnd->btnd", ds, q),
        np.einsum("bnqt,bqnd->btnd", p, dy),
    )


def both(q, k, v, dy):
    """Value and gradients of ours."""
    y, pullback = jax.vjp(dot_product_attention, q, k, v)
    return y, *pullback(dy)


# Queries, keys, heads, features of a head.
@pytest.mark.parametrize("sizes", [(6, 6, 2, 4), (7, 3, 3, 2), (1, 5, 1, 1), (4, 1, 2, 3), (0, 2, 1, 2)])
def test_values_and_gradients_are_those_of_the_definition(sizes):
    queries, keys, heads, width = sizes
    q, dy = draw(2, queries, heads, width), draw(2, queries, heads, width + 1, seed=1)
    k, v = draw(2, keys, heads, width, seed=2), draw(2, keys, heads, width + 1, seed=3)
    for found, expected in zip(jax.jit(both)(q, k, v, dy), defined(q, k, v, dy), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    q, dy = draw(1, 3, 1, 4), draw(1, 3, 1, 4, seed=1)
    q *= 100 / np.linalg.norm(q, axis=-1, keepdims=True)
    for found in jax.jit(both)(q, q, q, dy):
        assert np.isfinite(found).all()
    # Of tokens of one length, the score with itself is by far the largest: each sees itself alone.
    np.testing.assert_allclose(dot_product_attention(q, q, q), q, rtol=1e-5)


def test_half_precision_has_a_float32_softmax():
    """A softmax in bfloat16 is off by two to three times as much."""
    q, k, v, dy = (jnp.asarray((8 if i == 0 else 1) * draw(2, 9, 2, 8, seed=i), jnp.bfloat16) for i in range(4))
    y, dq, dk, dv = jax.jit(both)(q, k, v, dy)
    expected = defined(q, k, v, dy)
    assert {a.dtype for a in (y, dq, dk, dv)} == {jnp.dtype(jnp.bfloat16)}
    for a, b in ((y, expected[0]), (dv, expected[3])):
        assert np.abs(a.astype(np.float32) - b).max() < 0.01 * np.abs(b).max()
    for a, b in ((dq, expected[1]), (dk, expected[2])):
        assert np.abs(a.astype(np.float32) - b).max() < 0.02 * np.abs(b).max()


def test_vmap_remat_and_eight_devices_give_the_same():
    arrays = [draw(8, 5, 2, 4, seed=i) for i in range(4)]
    expected = jax.jit(both)(*arrays)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    spread = jax.jit(both)(*(jax.device_put(a, sharding) for a in arrays))
    for a in spread:
        assert a.sharding.is_equivalent_to(sharding, a.ndim), "each device has its own images"
    mapped = jax.jit(jax.vmap(both))(*(a[:, None] for a in arrays))
    again = jax.jit(lambda q, k, v, dy: jax.vjp(jax.remat(dot_product_attention), q, k, v)[1](dy))(*arrays)
    for found, wanted in ((spread, expected), ([a[:, 0] for a in mapped], expected), (again, expected[1:])):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_masked_keys_are_not_seen():
    q, k, v = (draw(2, 4, 2, 3, seed=i) for i in range(3))
    mask = np.ones((2, 1, 4, 4), bool)
    mask[..., 2:] = False
    found = dot_product_attention(q, k, v, jnp.asarray(mask))
    np.testing.assert_allclose(found, dot_product_attention(q, k[:, :2], v[:, :2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_written_out_gradient_takes_a_mask(heads):
    """Also of a query that attends to no key: its weights are equal, and its scores get no gradient."""
    q, k, v, dy = (draw(2, 4, 2, 3, seed=i) for i in range(4))
    mask = np.random.default_rng(0).random((2, heads, 4, 4)) < 0.6
    mask[:, :, 1] = False

    def gradients(attend):
        y, pullback = jax.vjp(lambda q, k, v: attend(q, k, v, mask=jnp.asarray(mask)), q, k, v)
        return y, *pullback(dy)

    for a, b in zip(gradients(_attend), gradients(jax.nn.dot_product_attention), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_bias_of_the_scores_gets_its_gradient():
    """Summed over the examples, and with a mask too."""
    q, k, v, dy = (draw(3, 4, 2, 3, seed=i) for i in range(4))
    bias, mask = draw(2, 4, 4, seed=4), np.random.default_rng(0).random((3, 1, 4, 4)) < 0.8

    def both(attend, bias):
        y, pullback = jax.vjp(lambda q, k, v, bias: attend(q, k, v, mask=jnp.asarray(mask), bias=bias), q, k, v, bias)
        return y, *pullback(dy)

    expected = both(lambda q, k, v, mask, bias: jax.nn.dot_product_attention(q, k, v, bias[None], mask), bias)
    for a, b in zip(jax.jit(lambda bias: both(dot_product_attention, bias))(bias), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"bias of these scores must be \[2,4,4\], got \(4, 4\)"):
        dot_product_attention(q, k, v, bias=bias[0])


@pytest.mark.parametrize("masked", [False, True])
def test_other_devices_multiply_in_half_precision(masked):
    """The automatic gradient would multiply the scores' gradient in float32 with keys and queries."""
    q = jnp.zeros((2, 5, 3, 4), jnp.bfloat16)
    mask = jnp.ones((2, 1, 5, 5), bool) if masked else None
    gradient = jax.jit(jax.grad(lambda q, k, v: dot_product_attention(q, k, v, mask).sum(), (0, 1, 2)))
    program = gradient.trace(q, q, q).lower(lowering_platforms=("cuda",)).as_text()
    assert products(program) == [("bf16", "bf16")] * 6


def test_what_does_not_fit_is_told():
    q, k = draw(2, 5, 3, 4), draw(3, 5, 2, 4)
    with pytest.raises(ValueError, match=r"with t >= 1, got \(2, 5, 3, 4\), \(3, 5, 2, 4\)"):
        dot_product_attention(q, k, k)
    with pytest.raises(ValueError, match="t >= 1"):
        dot_product_attention(q, q[:, :0], q[:, :0])
    with pytest.raises(ValueError, match="one dtype, got float32, bfloat16 and float32"):
        dot_product_attention(q, jnp.asarray(q, jnp.bfloat16), q)
    assert dot_product_attention(q[:0], q[:0], q[:0]).shape == (0, 5, 3, 4)


def test_other_devices_get_jaxs_own():
    q = draw(1, 4, 1, 2)
    gradient = jax.jit(jax.grad(lambda q, k: dot_product_attention(q, k, k).sum()))
    theirs = jax.jit(jax.grad(lambda q, k: jax.nn.dot_product_attention(q, k, k).sum()))
    products = [
        function.trace(q, q).lower(lowering_platforms=(platform,)).as_text().count("dot_general")
        for function, platform in ((gradient, "cpu"), (gradient, "tpu"), (theirs, "tpu"))
    ]
    assert products[0] != products[1] == products[2]

"""Scaled dot-product attention: values and gradients are those of the definition in float64, in each of its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn import dot_product, dot_product_attention


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
        np.einsum("bnqt,btnd->bqnd", p, v), np.einsum("bnqt,btnd->bqnd", ds, k), np.einsum("bnqt,bqnd->btnd", ds, q),
        np.einsum("bnqt,bqnd->btnd", p, dy),
    )  # fmt: skip


def both(q, k, v, dy):
    """Value and gradients of ours."""
    y, pullback = jax.vjp(dot_product_attention, q, k, v)
    return y, *pullback(dy)


@pytest.fixture(params=["heads at once", "one head after the other"])
def form(request, monkeypatch):
    monkeypatch.setattr(dot_product, "_IN_CACHE", 2**18 if request.param == "heads at once" else 0)
    jax.clear_caches()


# Queries, keys, heads, features of a head.
@pytest.mark.parametrize("sizes", [(6, 6, 2, 4), (7, 3, 3, 2), (1, 5, 1, 1), (4, 1, 2, 3)])
def test_values_and_gradients_are_those_of_the_definition(form, sizes):
    queries, keys, heads, width = sizes
    q, dy = draw(2, queries, heads, width), draw(2, queries, heads, width, seed=1)
    k, v = draw(2, keys, heads, width, seed=2), draw(2, keys, heads, width, seed=3)
    for found, expected in zip(jax.jit(both)(q, k, v, dy), defined(q, k, v, dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow(form):
    q, dy = draw(1, 3, 1, 4), draw(1, 3, 1, 4, seed=1)
    q *= 100 / np.linalg.norm(q, axis=-1, keepdims=True)
    for found in jax.jit(both)(q, q, q, dy):
        assert np.isfinite(found).all()
    # Of tokens of one length, the score with itself is by far the largest: each sees itself alone.
    np.testing.assert_allclose(dot_product_attention(q, q, q), q, rtol=1e-5)


def test_half_precision_is_near_the_definition_with_float32_softmax(form):
    q, k, v, dy = (draw(2, 9, 2, 8, seed=i) for i in range(4))
    found = jax.jit(both)(*(jnp.asarray(a, jnp.bfloat16) for a in (q, k, v, dy)))
    for a, b in zip(found, defined(q, k, v, dy), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=0.05, atol=0.05)


def test_vmap_remat_and_eight_devices_give_the_same(form):
    arrays = [draw(8, 5, 2, 4, seed=i) for i in range(4)]
    expected = jax.jit(both)(*arrays)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in arrays]
    mapped = jax.jit(jax.vmap(both))(*(a[:, None] for a in arrays))
    again = jax.jit(lambda q, k, v, dy: jax.vjp(jax.remat(dot_product_attention), q, k, v)[1](dy))(*arrays)
    for found in (jax.jit(both)(*spread), [a[:, 0] for a in mapped], [expected[0], *again]):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_masked_keys_are_not_seen():
    q, k, v = (draw(2, 4, 2, 3, seed=i) for i in range(3))
    mask = np.ones((2, 1, 4, 4), bool)
    mask[..., 2:] = False
    found = dot_product_attention(q, k, v, jnp.asarray(mask))
    np.testing.assert_allclose(found, dot_product_attention(q, k[:, :2], v[:, :2]), rtol=1e-5, atol=1e-6)


def test_other_devices_get_jaxs_own(monkeypatch):
    monkeypatch.setattr(dot_product, "_IN_CACHE", 0)
    q = draw(1, 4, 1, 2)
    program = jax.jit(lambda q: dot_product_attention(q, q, q)).trace(q)
    cpu, tpu = (program.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu"))
    assert "stablehlo.while" in cpu and "stablehlo.while" not in tpu

"""Norms against float64 NumPy and torch, values, gradients and running statistics; synchronised batch norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxseg import nn as jnn
from jaxseg.errors import ArgumentError
from jaxseg.nn.ops.batch_norm import batch_norm

EPS = 1e-5


def draw(*shape, seed=0, mean=0.0, std=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * std + mean).astype(np.float32)


def normalise(x, axes):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPS)


def reference(name, x, groups):
    """Each norm without scale and bias, in float64."""
    x = np.asarray(x, np.float64)
    if name == "batch":
        return normalise(x, (0, 1, 2))
    if name == "layer":
        return normalise(x, (3,))
    b, h, w, c = x.shape
    return normalise(x.reshape(b, h, w, groups, c // groups), (1, 2, 4)).reshape(x.shape)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize(
    ("name", "c", "fields", "groups"),
    [
        ("batch", 6, {}, 0),
        ("instance", 6, {}, 6),
        ("layer", 6, {}, 0),
        ("group", 16, {}, 8),
        ("group", 6, {}, 2),
        ("group", 7, {}, 1),
        ("group", 12, {"num_groups": 3}, 3),
    ],
)
def test_norm_against_float64(size, name, c, fields, groups):
    x = draw(3, *size, c, mean=2.0, std=3.0)
    layer = jnn.make_norm(name, **fields)(name="norm")
    params = {"scale": jnp.asarray(draw(c, seed=1)), "bias": jnp.asarray(draw(c, seed=2))}
    stats = {"batch_stats": {"mean": jnp.zeros(c), "var": jnp.ones(c)}} if name == "batch" else {}
    apply = functools.partial(layer.apply, train=True, mutable=["batch_stats"])
    y, _ = jax.jit(apply)({"params": params, **stats}, x)
    expected = reference(name, x, groups) * draw(c, seed=1) + draw(c, seed=2)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "atol"), [(0.0, 1e-5), (10.0, 1e-3), (1000.0, 1e-2)])
def test_group_norm_keeps_its_digits_far_from_zero(mean, atol):
    """float32 cannot hold x better than mean * 6e-8; a careless one-pass variance loses the square of that."""
    x = draw(2, 32, 32, 16, std=1.0) + np.float32(mean)
    y = jnn.group_norm(x, jnp.ones(16), jnp.zeros(16), 4)
    np.testing.assert_allclose(y, reference("group", x, 4), atol=atol)


def automatic_batch_norm(x, scale, bias, centre):
    """The definition, for automatic differentiation."""
    shifted = x.astype(jnp.float32) - centre
    first, second = shifted.mean((0, 1, 2)), jnp.square(shifted).mean((0, 1, 2))
    mean, variance = first + centre, jnp.maximum(second - first * first, 0.0)
    y = (x.astype(jnp.float32) - mean) * (jax.lax.rsqrt(variance + 1e-5) * scale) + bias
    return y.astype(x.dtype), mean, variance


@pytest.mark.parametrize(("offset", "dtype", "rtol"), [(0.0, "float32", 1e-5), (1.0, "bfloat16", 0.02)])
@jax.numpy_rank_promotion("allow")
def test_the_gradient_of_batch_norm_is_the_automatic_one(offset, dtype, rtol):
    """With gradients of the statistics too."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(offset, 1, (3, 5, 7, 4)), dtype)
    scale, bias, centre = rng.uniform(0.5, 1.5, (3, 4)).astype(np.float32)
    weights = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x.shape, (4,), (4,))]

    def pull(function):
        results, vjp = jax.vjp(lambda x, scale, bias: function(x, scale, bias, centre), x, scale, bias)
        return results, vjp(tuple(w.astype(r.dtype) for w, r in zip(weights, results)))

    (results, got), (expected_results, expected) = jax.jit(lambda: (pull(batch_norm), pull(automatic_batch_norm)))()
    for a, b in zip((*results, *got), (*expected_results, *expected)):
        assert a.dtype == b.dtype
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def test_a_variance_that_rounding_makes_zero_has_no_gradient():
    """Far from 0 and from the centre; then dx = (epsilon)^-1/2 (dy - mean(dy))."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1e4, 1, (3, 5, 7, 4)), jnp.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    (_, _, variance), vjp = jax.vjp(lambda x: batch_norm(x, jnp.ones(4), jnp.zeros(4), jnp.zeros(4)), x)
    (dx,) = vjp((jnp.asarray(dy), jnp.zeros(4), jnp.zeros(4)))
    clamped = np.asarray(variance) == 0
    assert clamped.any()
    expected = (dy - dy.mean((0, 1, 2))) / np.sqrt(1e-5)
    np.testing.assert_allclose(np.asarray(dx)[..., clamped], expected[..., clamped], rtol=1e-3, atol=1e-2)


def test_batch_norm_keeps_its_digits_once_it_knows_the_mean():
    x = draw(4, 16, 16, 3) + np.float32(1000)
    stats = {"mean": jnp.full(3, 990.0), "var": jnp.ones(3)}
    variables = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "batch_stats": stats}
    y, _ = jnn.BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, reference("batch", x, 0), atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 1, 1, 8), (2, 5, 3, 8), (3, 8, 8, 4)])
@pytest.mark.parametrize("groups", [1, 4])
def test_group_norm_gradients_are_torchs(shape, groups):
    torch = pytest.importorskip("torch")
    x, scale, bias = draw(*shape, mean=3.0), draw(shape[-1], seed=1), draw(shape[-1], seed=2)
    dy = draw(*shape, seed=3)

    @jax.jit
    def value_and_gradients(d, *arguments):
        y, pull = jax.vjp(lambda *a: jnn.group_norm(*a, groups), *arguments)
        return y, *pull(d)

    y, dx, ds, db = value_and_gradients(dy, x, scale, bias)
    tx = torch.tensor(x.transpose(0, 3, 1, 2)).double().requires_grad_()
    ts, tb = (torch.tensor(v).double().requires_grad_() for v in (scale, bias))
    ty = torch.nn.functional.group_norm(tx, groups, ts, tb, EPS)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)).double())
    np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ds, ts.grad, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(db, tb.grad, rtol=1e-4, atol=1e-4)


def test_group_norm_gradient_far_from_zero():
    x, scale, bias, dy = draw(2, 16, 16, 8), draw(8, seed=1), draw(8, seed=2), draw(2, 16, 16, 8, seed=3)

    def gradient(a):
        return jax.vjp(lambda *p: jnn.group_norm(*p, 2), a, scale, bias)[1](jnp.asarray(dy))

    for near, far in zip(gradient(x), gradient(x + np.float32(256))):  # 256 keeps the sum's digits to 1.5e-5
        np.testing.assert_allclose(near, far, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["batch", "instance", "group", "layer"])
def test_gradients_against_finite_differences(key, name):
    x = draw(2, 3, 4, 4)
    layer = jnn.make_norm(name, **({"num_groups": 2} if name == "group" else {}))()
    variables = layer.init(key, x)

    def f(params, a):
        return layer.apply({**variables, "params": params}, a, train=True, mutable=["batch_stats"])[0]

    check_grads(jax.jit(f), (variables["params"], x), order=1, modes=["rev"], rtol=0.03, atol=0.03, eps=1e-2)


def test_group_norm_under_jit_vmap_remat_and_bfloat16():
    x, scale, bias = draw(3, 2, 4, 6, 8), draw(3, 8, seed=1), draw(3, 8, seed=2)

    def f(a, s, b):
        return jnp.sum(jnp.sin(jnn.group_norm(a, s, b, 4).astype(jnp.float32)))

    gradient = jax.jit(jax.grad(f, argnums=(0, 1, 2)))
    expected = [np.stack(g) for g in zip(*(gradient(*a) for a in zip(x, scale, bias)))]
    for transformed in (jax.jit(jax.vmap(gradient)), jax.jit(jax.vmap(jax.grad(jax.remat(f), argnums=(0, 1, 2))))):
        for ours, theirs in zip(transformed(x, scale, bias), expected):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    half = gradient(x[0].astype(jnp.bfloat16), scale[0], bias[0])
    assert half[0].dtype == jnp.bfloat16 and half[1].dtype == jnp.float32
    np.testing.assert_allclose(half[0].astype(np.float32), expected[0][0], atol=0.05)


@pytest.mark.parametrize("name", ["batch", "instance", "group", "layer"])
def test_dtypes(key, name):
    x = draw(2, 4, 4, 8).astype(jnp.bfloat16)
    y, variables = jnn.make_norm(name)().init_with_output(key, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert jnn.make_norm(name, dtype=jnp.float32)().init_with_output(key, x)[0].dtype == jnp.float32


def test_batch_norm_running_statistics_are_torchs_but_biased(key):
    torch = pytest.importorskip("torch")
    layer, twin = jnn.BatchNorm(), torch.nn.BatchNorm2d(3, momentum=0.1)
    variables = layer.init(key, draw(2, 4, 5, 3))
    for seed in range(4):
        x = draw(2, 4, 5, 3, seed=seed, mean=1.0)
        y, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **changed}
        theirs = twin(torch.tensor(x.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    stats, n = variables["batch_stats"], 40
    np.testing.assert_allclose(stats["mean"], twin.running_mean, rtol=1e-4, atol=1e-5)
    initial = 0.9**4
    np.testing.assert_allclose(stats["var"] - initial, (twin.running_var - initial) * (n - 1) / n, rtol=1e-4, atol=1e-5)
    x = draw(1, 1, 1, 3)
    expected = (x - stats["mean"].reshape(1, 1, 1, 3)) / np.sqrt(stats["var"] + EPS).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4)


@pytest.mark.parametrize("mapped", [jax.pmap, jax.vmap])
def test_synchronised_batch_norm_is_batch_norm_of_the_global_batch(key, mapped):
    x, dy = draw(8, 2, 3, 4, 5, mean=3.0), draw(8, 2, 3, 4, 5, seed=1)
    # Devices differ in mean, so that averaging the variances alone would be wrong.
    x = x + np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1, 1)
    variables = jnn.BatchNorm().init(key, x[0])

    def loss(params, a, d, axis_name):
        y, changed = jnn.BatchNorm(axis_name=axis_name).apply(
            {**variables, "params": params}, a, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(y * d), (y, changed["batch_stats"])

    def step(a, d, axis_name):
        (_, (y, stats)), (dparams, da) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            variables["params"], a, d, axis_name
        )
        return y, stats, dparams, da

    y, stats, dparams, da = jax.jit(lambda a, d: step(a, d, None))(x.reshape(16, 3, 4, 5), dy.reshape(16, 3, 4, 5))
    ys, statss, dparamss, das = mapped(lambda a, d: step(a, d, "batch"), axis_name="batch")(x, dy)
    np.testing.assert_allclose(np.asarray(ys).reshape(y.shape), y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(das).reshape(da.shape), da, rtol=1e-3, atol=1e-4)
    for name in ("mean", "var"):
        np.testing.assert_allclose(statss[name], np.broadcast_to(stats[name], (8, 5)), rtol=1e-5)
    for name in ("scale", "bias"):
        np.testing.assert_allclose(np.asarray(dparamss[name]).sum(0), dparams[name], rtol=1e-3, atol=1e-3)


def test_jit_over_a_sharded_batch_is_synchronised(key):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    x = draw(16, 3, 4, 5) + np.arange(16, dtype=np.float32).reshape(16, 1, 1, 1)
    layer = jnn.BatchNorm()
    variables = layer.init(key, x)
    apply = jax.jit(lambda a: layer.apply(variables, a, train=True, mutable=["batch_stats"]))
    sharded = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch")))
    for ours, theirs in zip(jax.tree.leaves(apply(sharded)), jax.tree.leaves(apply(x))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_initialising_leaves_the_statistics_alone(key):
    stats = jnn.BatchNorm(axis_name="batch").init(key, draw(2, 3, 3, 4), train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], 0)
    np.testing.assert_array_equal(stats["var"], 1)


@pytest.mark.parametrize("axes", ["devices", ("devices", "parts")])
def test_batch_norm_of_a_single_value_is_refused_in_training_alone(key, axes):
    """Its variance is 0: the running variance would go to 0 too, by which evaluation divides."""
    layer, x = jnn.make_norm("batch")(), jnp.ones((1, 1, 1, 4))
    variables = layer.init(key, x, train=True)
    assert layer.apply(variables, x, train=False).shape == x.shape

    def train(layer, x):
        return layer.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    with pytest.raises(ArgumentError, match=r"a single value a channel in training .*; give norm=group, a larger data"):
        jax.eval_shape(functools.partial(train, layer), x)
    for shape in [(2, 1, 1, 4), (1, 2, 1, 4)]:
        assert jax.eval_shape(functools.partial(train, layer), jnp.ones(shape)).shape == shape
    synchronised = functools.partial(train, jnn.make_norm("batch", axis_name=axes)())
    for name in axes if isinstance(axes, tuple) else (axes,):
        synchronised = jax.vmap(synchronised, axis_name=name)
    shape = (2, 2) if isinstance(axes, tuple) else (2,)
    assert jax.eval_shape(synchronised, jnp.ones((*shape, 1, 1, 1, 4))).shape == (*shape, 1, 1, 1, 4)
    with pytest.raises(ArgumentError):
        jax.eval_shape(synchronised, jnp.ones((*(1 for _ in shape), 1, 1, 1, 4)))


def test_factories_compare_by_value_and_name_mistakes(key):
    assert jnn.make_norm("group", num_groups=4) == jnn.make_norm("group", num_groups=4) != jnn.make_norm("group")
    assert len({jnn.make_norm("batch"), jnn.make_norm("batch"), jnn.make_norm("batch", axis_name="batch")}) == 2
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        jnn.make_norm("bacth")
    with pytest.raises(ValueError, match="Did you mean 'num_groups'"):
        jnn.make_norm("group", groups=3)
    with pytest.raises(ValueError, match="epsilon is not an argument of the norm none"):
        jnn.make_norm("none", epsilon=1e-3)
    with pytest.raises(ValueError, match="num_groups is not an argument of the norm instance"):
        jnn.make_norm("instance", num_groups=2)
    with pytest.raises(ValueError, match="epsilon must be a number of at least 0, got 'x'"):
        jnn.make_norm("batch", epsilon="x")
    with pytest.raises(ValueError, match=r"num_groups must be a whole number of at least 0, got 2\.5"):
        jnn.make_norm("group", num_groups=2.5)
    x = draw(1, 2, 2, 3)
    np.testing.assert_array_equal(jnn.make_norm("none")().apply({}, x, train=True), x)

"""Convolutions against torch and against sums written out, in value and gradient; dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_nn
from jax import lax
from jax.test_util import check_grads

from jaxseg import nn as jnn


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(f, x, kernel, dy):
    y, pull = jax.vjp(f, x, kernel)
    return y, *pull(dy)


def naive_conv(x, kernel, stride, dilation, groups, padding):
    """Convolution in float64, written as the sum over taps that its definition is."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    k, o = kernel.shape[0], kernel.shape[-1]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = ((n - dilation * (k - 1) - 1) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((x.shape[0], h, w, o))
    cin, cout = x.shape[-1] // groups, o // groups
    for g in range(groups):
        for u in range(k):
            for v in range(k):
                rows = slice(u * dilation, u * dilation + (h - 1) * stride + 1, stride)
                columns = slice(v * dilation, v * dilation + (w - 1) * stride + 1, stride)
                part = x[:, rows, columns, g * cin : (g + 1) * cin]
                y[..., g * cout : (g + 1) * cout] += part @ kernel[u, v, :, g * cout : (g + 1) * cout]
    return y


@pytest.mark.parametrize(
    ("size", "case"),
    [
        ((1, 1), (3, 1, 1, 1)),
        ((5, 7), (3, 2, 1, 1)),
        ((8, 6), (3, 2, 1, 1)),
        ((1, 6), (3, 1, 2, 1)),
        ((5, 7), (3, 1, 1, 2)),
        ((8, 6), (3, 2, 3, 4)),
        ((5, 7), (1, 1, 1, 1)),
        ((5, 7), (1, 2, 1, 1)),
        ((1, 1), (7, 2, 1, 1)),
    ],
)
def test_conv_is_the_sum_over_taps(key, size, case):
    k, stride, dilation, groups = case
    x = draw(2, *size, 4)
    conv = jnn.Conv(8, k, stride=stride, dilation=dilation, groups=groups)
    kernel = draw(*jax.eval_shape(conv.init, key, x)["params"]["kernel"].shape, seed=2)
    params = {"params": {"kernel": kernel, "bias": draw(8, seed=1)}}
    expected = naive_conv(x, kernel, stride, dilation, groups, dilation * (k - 1) // 2)
    np.testing.assert_allclose(jax.jit(conv.apply)(params, x), expected + draw(8, seed=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2), (1, 1, 1, 1), (4, 2, 1, 1)])
@pytest.mark.parametrize("size", [(6, 9), (16, 12)])
def test_conv_and_its_gradients_are_torchs(case, size):
    torch = pytest.importorskip("torch")
    k, stride, dilation, groups = case
    x, kernel = draw(3, *size, 4), draw(k, k, 4 // groups, 6, seed=1)
    padding = dilation * (k - 1) // 2
    f = functools.partial(jnn.conv2d, stride=stride, dilation=dilation, groups=groups, padding=padding)
    dy = draw(*jax.eval_shape(f, x, kernel).shape, seed=2)
    y, dx, dk = value_and_gradients(f, x, kernel, dy)
    tx = torch.tensor(x.transpose(0, 3, 1, 2)).double().requires_grad_()
    tk = torch.tensor(kernel.transpose(3, 2, 0, 1)).double().requires_grad_()
    ty = torch.nn.functional.conv2d(tx, tk, stride=stride, dilation=dilation, groups=groups, padding=padding)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)).double())
    np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dk, tk.grad.numpy().transpose(2, 3, 1, 0), rtol=1e-4, atol=1e-3)


def test_valid_padding_and_what_does_not_fit(key):
    x = draw(1, 5, 6, 4)
    assert jnn.Conv(2, 3, padding=0).init_with_output(key, x)[0].shape == (1, 3, 4, 2)
    with pytest.raises(ValueError, match="at least 7 pixels"):
        jnn.Conv(2, 7, padding=0).init(key, x)
    with pytest.raises(ValueError, match="groups=3"):
        jnn.Conv(6, groups=3).init(key, x)
    with pytest.raises(ValueError, match=r"\[b,h,w,c\]"):
        jnn.Conv(6).init(key, x[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("padding", wrong) for wrong in ("Same", "valid", -1, 1.5, True)),
        *(("kernel_size", wrong) for wrong in ((3,), (3, 1, 1), (-1, 3), 0, "3")),
    ],
)
def test_a_kernel_size_or_padding_of_another_form_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"^Conv\.{field} must be .*, got"):
        jax.eval_shape(jnn.Conv(4, **{field: value}).init, jax.random.key(0), jnp.ones((1, 9, 9, 2)))


@pytest.mark.parametrize(("k", "stride"), [(2, 2), (3, 2), (4, 2), (4, 4), (8, 4), (3, 3), (1, 2), (3, 1)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_conv_transpose_is_torchs(key, k, stride, size):
    torch = pytest.importorskip("torch")
    x, kernel = draw(2, *size, 3), draw(k, k, 3, 5, seed=1)
    dy = draw(2, size[0] * stride, size[1] * stride, 5, seed=2)
    y, dx, dk = value_and_gradients(functools.partial(jnn.conv_transpose2d, stride=stride), x, kernel, dy)
    p = max(0, -(-(k - stride) // 2))
    tx = torch.tensor(x.transpose(0, 3, 1, 2)).double().requires_grad_()
    tk = torch.tensor(kernel.transpose(2, 3, 0, 1)).double().requires_grad_()
    ty = torch.nn.functional.conv_transpose2d(tx, tk, stride=stride, padding=p, output_padding=stride - k + 2 * p)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)).double())
    np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dk, tk.grad.numpy().transpose(2, 3, 0, 1), rtol=1e-4, atol=1e-4)


def test_conv_transpose_is_the_transpose_of_conv():
    """<conv(x), y> = <x, conv_transpose(y)> for the same kernel: the defining property."""
    x, y, kernel = draw(1, 8, 6, 3), draw(1, 4, 3, 5, seed=1), draw(4, 4, 3, 5, seed=2)
    left = jnp.vdot(jnn.conv2d(x, kernel, stride=2, padding=1), y)
    right = jnp.vdot(x, jnn.conv_transpose2d(y, kernel.transpose(0, 1, 3, 2), stride=2))
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_gradients_against_finite_differences(k):
    x, kernel = draw(1, 4, 5, 2), draw(k, k, 2, 3, seed=1)
    check_grads(jax.jit(lambda a, b: jnn.conv2d(a, b, padding=k // 2)), (x, kernel), order=1, modes=["rev"], rtol=0.02)
    check_grads(
        jax.jit(lambda a, b: jnn.conv_transpose2d(a, b, stride=2)), (x, kernel), order=1, modes=["rev"], rtol=0.02
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_conv_under_jit_vmap_remat_and_bfloat16(transposed):
    x, kernel = draw(3, 2, 8, 16, 4), draw(3, 2, 2, 4, 4, seed=1) if transposed else draw(3, 3, 3, 4, 4, seed=1)

    def f(a, b):
        y = jnn.conv_transpose2d(a, b, stride=2) if transposed else jnn.conv2d(a, b, padding=1)
        return jnp.sum(jnp.sin(y.astype(jnp.float32)))

    gradient = jax.jit(jax.grad(f, argnums=(0, 1)))
    expected = [np.stack(g) for g in zip(*(gradient(a, b) for a, b in zip(x, kernel)))]
    for transformed in (jax.jit(jax.vmap(gradient)), jax.jit(jax.vmap(jax.grad(jax.remat(f), argnums=(0, 1))))):
        for ours, theirs in zip(transformed(x, kernel), expected):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    half = gradient(x[0].astype(jnp.bfloat16), kernel[0].astype(jnp.bfloat16))
    for ours, theirs in zip(half, expected):
        assert ours.dtype == jnp.bfloat16
        scale = np.abs(theirs[0]).max()
        np.testing.assert_allclose(ours.astype(jnp.float32) / scale, theirs[0] / scale, atol=0.05)


def test_compute_dtype_leaves_parameters_float32(key):
    x = draw(1, 4, 4, 3)
    for module in (jnn.Conv(2, dtype=jnp.bfloat16), jnn.ConvTranspose(2, dtype=jnp.bfloat16)):
        y, variables = module.init_with_output(key, x)
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_conv_norm_act_has_a_bias_only_without_a_norm(key):
    x = draw(2, 5, 7, 4)
    norm = jnn.make_norm("batch")
    variables = jnn.ConvNormAct(6, stride=2, common=jnn.Layers(norm)).init(key, x)
    assert {k: set(v) for k, v in variables["params"].items()} == {"conv": {"kernel"}, "norm": {"scale", "bias"}}
    for none in (None, jnn.make_norm("none"), jnn.Identity):
        assert set(jnn.ConvNormAct(6, common=jnn.Layers(none)).init(key, x)["params"]["conv"]) == {"kernel", "bias"}
    separable = jnn.ConvNormAct(6, separable=True, common=jnn.Layers(norm))
    y, variables = separable.init_with_output(key, x)
    assert y.shape == (2, 5, 7, 6) and float(y.min()) >= 0.0
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["depthwise"] == {"kernel": (3, 3, 1, 4)} and shapes["pointwise"] == {"kernel": (1, 1, 4, 6)}
    with pytest.raises(ValueError, match="depthwise already"):
        jnn.ConvNormAct(6, separable=True, groups=2).init(key, x)


@pytest.mark.parametrize("module", [jnn.Conv(256), jnn.ConvTranspose(256), jnn.ConvTranspose(256, 4)])
def test_initial_kernels_keep_the_variance_through_a_relu(key, module):
    x = jnp.maximum(jax.random.normal(key, (1, 24, 24, 128)), 0) * np.sqrt(2)  # second moment 1
    y, _ = module.init_with_output(jax.random.key(1), x)
    assert 1.6 < float(jnp.var(y[:, 4:-4, 4:-4])) < 2.4  # which a relu halves


def dropout(x, *, key, train=True, **fields):
    apply = functools.partial(jnn.Dropout(**fields).apply, {}, train=train)
    return jax.jit(lambda a, k: apply(a, rngs={"dropout": k}))(x, key)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation(key):
    x = jnp.ones((4, 32, 32, 8))
    y = dropout(x, key=key, rate=0.25)
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1 / 0.75)}
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.02)
    np.testing.assert_array_equal(y, dropout(x, key=key, rate=0.25))
    assert not np.array_equal(y[0], y[1])
    np.testing.assert_array_equal(jnn.Dropout(0.25).apply({}, x), x)
    np.testing.assert_array_equal(dropout(x, key=key, rate=0.0), x)
    np.testing.assert_array_equal(dropout(x, key=key, rate=1.0), 0 * x)
    with pytest.raises(ValueError, match=r"Dropout\.rate must be a number in \[0, 1\], got 1\.5"):
        dropout(x, key=key, rate=1.5)


def test_dropout_draws_the_bits_of_each_example_in_one_row(key):
    """Of the shape of the example, XLA on CPUs unrolls the generator over the channels, and compiles for seconds."""
    x = jnp.ones((3, 5, 4, 6))
    drawn = flax_nn.apply(lambda layer: layer.make_rng("dropout"), jnn.Dropout(0.25))({}, rngs={"dropout": key})
    keep = [jax.random.bernoulli(jax.random.fold_in(drawn, i), 0.75, x.shape[1:]) for i in range(3)]
    np.testing.assert_array_equal(dropout(x, key=key, rate=0.25) > 0, np.stack(keep))
    text = jax.jit(lambda a, k: dropout(a, key=k, rate=0.25)).lower(x, key).as_text()
    assert "3x120xui32" in text and "3x5x4x6xui32" not in text


def test_spatial_dropout_drops_whole_channels(key):
    y = np.asarray(dropout(jnp.ones((8, 5, 3, 64)), key=key, rate=0.5, spatial=True))
    assert (y.std((1, 2)) == 0).all() and 0.3 < (y[:, 0, 0] == 0).mean() < 0.7


def test_dropout_of_tokens_drops_all_channels_of_each(key):
    y = np.asarray(dropout(jnp.ones((8, 64, 5)), key=key, rate=0.5, tokens=True))
    assert (y.std(-1) == 0).all() and 0.3 < (y[..., 0] == 0).mean() < 0.7 and (y[0] != y[1]).any()
    with pytest.raises(ValueError, match=r"whole channels .* or whole tokens"):
        dropout(y, key=key, rate=0.5, spatial=True, tokens=True)


def test_dropout_under_pmap_is_dropout_of_the_global_batch(key):
    x = draw(8, 2, 3, 4, 5)
    whole = jax.jit(lambda a: dropout(a, key=key, rate=0.5))(x.reshape(16, 3, 4, 5))
    parts = jax.pmap(lambda a: dropout(a, key=key, rate=0.5, axis_name="batch"), axis_name="batch")(x)
    np.testing.assert_array_equal(whole, np.asarray(parts).reshape(16, 3, 4, 5))


def test_one_by_one_convolution_is_a_matrix_product():
    text = jax.jit(jnn.conv2d).lower(draw(1, 4, 4, 3), draw(1, 1, 3, 5)).as_text()
    assert "dot_general" in text and "convolution" not in text
    reference = lax.conv_general_dilated(
        draw(1, 4, 4, 3), draw(1, 1, 3, 5), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(jnn.conv2d(draw(1, 4, 4, 3), draw(1, 1, 3, 5)), reference, rtol=1e-5, atol=1e-5)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean(key):
    drop = functools.partial(jnn.StochasticDepth(0.25).apply, {}, jnp.ones((4000, 2, 3)), rngs={"dropout": key})
    y = np.asarray(drop(train=True))
    examples = y[:, 0, 0]
    assert (y == examples[:, None, None]).all()
    np.testing.assert_allclose(np.unique(examples), [0, 1 / 0.75], rtol=1e-6)
    assert abs(examples.mean() - 1) < 0.03
    np.testing.assert_array_equal(drop(train=False), 1)
    assert not np.asarray(jnn.StochasticDepth(1.0).apply({}, jnp.ones((2, 3)), train=True)).any()
    with pytest.raises(ValueError, match=r"StochasticDepth\.rate must be a number in \[0, 1\], got 'a'"):
        jnn.StochasticDepth("a").apply({}, jnp.ones((2, 3)), train=True)


def test_rates_of_stochastic_depth_grow_over_all_blocks():
    rates = jnn.drop_rates(0.3, (2, 1, 1))
    assert [len(stage) for stage in rates] == [2, 1, 1]
    np.testing.assert_allclose(np.concatenate(rates), [0, 0.1, 0.2, 0.3], rtol=1e-12)
    assert jnn.drop_rates(0.3, (1,)) == ((0.0,),)


def test_stochastic_depth_under_pmap_is_that_of_the_global_batch(key):
    def drop(x, axis_name=None):
        return jnn.StochasticDepth(0.5, axis_name).apply({}, x, train=True, rngs={"dropout": key})

    x = jnp.ones((8, 2, 3, 4, 5))
    parts = jax.pmap(lambda a: drop(a, "batch"), axis_name="batch")(x)
    np.testing.assert_array_equal(drop(x.reshape(16, 3, 4, 5)), parts.reshape(16, 3, 4, 5))


@pytest.mark.parametrize(("size", "dilation", "padding"), [(3, 1, 1), (5, 2, 4), (3, 1, 0), (3, 1, 3)])
def test_depthwise_convolution_is_the_grouped_one(size, dilation, padding, key):
    """In value and both gradients: jax's grouped convolution is the other path to the same numbers."""
    x, kernel = jax.random.normal(key, (2, 9, 11, 4)), jax.random.normal(jax.random.key(7), (size, size, 1, 4))

    def grouped(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    def ours(x, kernel):
        return jnn.conv2d(x, kernel, groups=4, dilation=dilation, padding=padding)

    expected, pull = jax.vjp(grouped, x, kernel)
    given, our_pull = jax.vjp(jax.jit(ours), x, kernel)
    dy = jax.random.normal(jax.random.key(8), expected.shape)
    for a, b in zip((given, *our_pull(dy)), (expected, *pull(dy))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_sub_pixel_up(key):
    x = draw(2, 1, 5, 4)
    y, variables = jnn.SubPixelUp(3, common=jnn.Layers(jnn.make_norm("group"))).init_with_output(key, x)
    assert y.shape == (2, 2, 10, 3) and float(y.min()) >= 0
    assert variables["params"]["expand"]["conv"]["kernel"].shape == (3, 3, 4, 12)

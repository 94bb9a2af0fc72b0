"""Resizing against torch's F.interpolate, values and gradients; padding, cropping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxseg import nn as jnn

METHODS = [("bilinear", False), ("bilinear", True), ("nearest", False)]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def interpolate(torch, x, size, method, align_corners):
    extra = {"align_corners": align_corners} if method == "bilinear" else {}
    return torch.nn.functional.interpolate(x, tuple(size), mode=method, **extra)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((4, 6), (8, 12)),
        ((3, 5), (12, 5)),
        ((1, 1), (4, 2)),
        ((1, 4), (3, 1)),
        ((7, 9), (3, 4)),
        ((8, 8), (4, 2)),
        ((5, 3), (7, 11)),
        ((2, 3), (6, 9)),
        ((6, 1), (12, 16)),
    ],
)
def test_resize_and_its_gradient_are_torchs(size, out, method):
    torch = pytest.importorskip("torch")
    name, corners = method
    x, dy = draw(2, *size, 3), draw(2, *out, 3, seed=1)

    @jax.jit
    def value_and_gradient(a, d):
        y, pull = jax.vjp(lambda v: jnn.resize(v, out, name, align_corners=corners), a)
        return y, pull(d)[0]

    y, dx = value_and_gradient(x, dy)
    tx = torch.tensor(x.transpose(0, 3, 1, 2)).double().requires_grad_()
    ty = interpolate(torch, tx, out, name, corners)
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2)).double())
    np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def test_nearest_is_torchs_for_every_ratio():
    torch = pytest.importorskip("torch")
    for size, out in [(5, 15), (7, 49), (10, 3), (9, 27), (11, 13), (100, 41), (41, 100), (3, 100)]:
        x = np.arange(size, dtype=np.float32).reshape(1, 1, size, 1)
        theirs = interpolate(torch, torch.tensor(x.transpose(0, 3, 1, 2)), (1, out), "nearest", None)
        ours = jax.jit(jnn.resize, static_argnums=(1, 2))(x, (1, out), "nearest")
        np.testing.assert_array_equal(ours.ravel(), theirs.numpy().ravel())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_upsample_under_jit_vmap_remat_and_bfloat16(factor, align_corners):
    x = draw(2, 2, 3, 4, 2)

    def f(a):
        return jnp.sum(jnp.sin(jnn.upsample(a, factor, align_corners=align_corners).astype(jnp.float32)))

    expected = np.stack([jax.jit(jax.grad(f))(a) for a in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(f)))(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(jax.remat(f))))(x), expected, rtol=1e-4, atol=1e-5)
    half = jax.jit(jax.grad(f))(x[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and jnn.upsample(x[0].astype(jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected[0], rtol=0.05, atol=0.1)


def test_gradient_against_finite_differences():
    for size in ((6, 6), (4, 5)):
        check_grads(jax.jit(lambda v, s=size: jnn.resize(v, s)), (draw(1, 3, 3, 1),), order=1, modes=["rev"], rtol=0.02)


def test_a_constant_image_stays_constant_and_a_ramp_a_ramp():
    np.testing.assert_allclose(jnn.resize(jnp.full((1, 5, 7, 2), 3.0), (13, 8)), 3.0, rtol=1e-6)
    ramp = jnn.resize(jnp.arange(5.0).reshape(1, 5, 1, 1), (9, 1), align_corners=True)
    np.testing.assert_allclose(ramp.ravel(), np.arange(9) / 2, rtol=1e-6)


def test_mistakes():
    x = draw(1, 3, 4, 2)
    with pytest.raises(ValueError, match="method of resize must be one of 'bilinear', 'nearest', got 'bicubic'"):
        jnn.resize(x, (2, 2), "bicubic")
    with pytest.raises(ValueError, match=r"size of resize must be at least 1x1, got \(0, 2\)"):
        jnn.resize(x, (0, 2))
    with pytest.raises(ValueError, match="align_corners of resize must be False with method='nearest', got True"):
        jnn.resize(x, (2, 2), "nearest", align_corners=True)
    with pytest.raises(ValueError, match=r"\[b,h,w,c\]"):
        jnn.resize(x[0], (2, 2))


def test_each_example_to_its_own_size():
    x, sizes = draw(4, 6, 8, 3), np.array([[6, 8], [12, 16], [3, 11], [1, 1]], np.int32)
    y = jax.jit(jnn.resize_to_sizes, static_argnums=2)(x, sizes, (12, 20))
    assert y.shape == (4, 12, 20, 3)
    for one, source, (h, w) in zip(y, x, sizes):
        alone = jax.jit(jnn.resize, static_argnums=1)(source[None], (int(h), int(w)))
        np.testing.assert_allclose(one[:h, :w], alone[0], rtol=1e-4, atol=1e-5)


def test_depth_to_space_is_pixel_shuffle_with_the_channel_last():
    torch = pytest.importorskip("torch")
    x = draw(2, 3, 4, 18)
    y = jnn.depth_to_space(x, 3)
    theirs = x.reshape(2, 3, 4, 9, 2).transpose(0, 4, 3, 1, 2).reshape(2, 18, 3, 4)
    twin = torch.nn.functional.pixel_shuffle(torch.tensor(theirs), 3).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(y, twin)
    np.testing.assert_array_equal(jnn.space_to_depth(y, 3), x)
    dy = draw(*y.shape)
    gradient = jax.vjp(lambda v: jnn.depth_to_space(v, 3), x)[1](jnp.asarray(dy))[0]
    np.testing.assert_array_equal(gradient, jnn.space_to_depth(dy, 3))
    with pytest.raises(ValueError, match="multiple of 4 channels"):
        jnn.depth_to_space(x[..., :3], 2)
    with pytest.raises(ValueError, match="multiples of 2 pixels"):
        jnn.space_to_depth(x, 2)


@pytest.mark.parametrize("mode", ["constant", "edge"])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 16), (17, 31)])
def test_pad_and_crop(size, mode):
    x = draw(2, *size, 3)
    padded, old = jnn.pad_to_multiple(x, 8, mode)
    assert old == size and all(n % 8 == 0 and 0 <= n - m < 8 for n, m in zip(padded.shape[1:3], size))
    np.testing.assert_array_equal(jnn.crop_to(padded, old), x)
    assert float(padded[0, -1, -1, 0]) == (x[0, -1, -1, 0] if size == (16, 16) or mode == "edge" else 0.0)
    with pytest.raises(ValueError, match="larger than the image"):
        jnn.crop_to(x, (size[0] + 1, size[1]))
    with pytest.raises(ValueError, match="mode of pad_to_multiple must be one of 'constant', 'edge', got 'reflect'"):
        jnn.pad_to_multiple(x, 8, "reflect")


def test_each_axis_has_its_own_multiple():
    x = draw(1, 5, 7, 2)
    padded, old = jnn.pad_to_multiple(x, (2, 4))
    assert padded.shape == (1, 6, 8, 2) and old == (5, 7)
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
    with pytest.raises(ValueError, match=r"multiple of pad_to_multiple .* got \(4, 0\)"):
        jnn.pad_to_multiple(x, (4, 0))


@pytest.mark.parametrize("size", [(250, 256), (256, 250), (1000, 8), (256, 256), (3, 20)])
def test_averages_come_back_where_they_were(size):
    """A ramp along either axis, averaged over windows of 8, is the same ramp between the centres of the windows."""
    rows, columns = (np.arange(side, dtype=np.float32) for side in size)
    ramps = np.stack(np.broadcast_arrays(rows[:, None], columns[None]), -1)[None]
    means = jax.jit(lambda x: jnn.avg_pool(x, 8, ceil_mode=True))(ramps)
    back = jax.jit(lambda x: jnn.resize_windows(x, size, 8))(means)
    for axis, side in enumerate(size):
        first, last = 3.5, (8 * ((side - 1) // 8) + side - 1) / 2
        expected = np.clip(np.arange(side), min(first, last), last)
        line = np.asarray(back[0, :, 0, 0] if axis == 0 else back[0, 0, :, 1])
        np.testing.assert_allclose(line, expected, rtol=1e-5, atol=1e-4)
    if not any(side % 8 for side in size):
        np.testing.assert_array_equal(back, jax.jit(lambda x: jnn.resize(x, size))(means))
    with pytest.raises(ValueError, match="Windows of 4"):
        jnn.resize_windows(means, size, 4)

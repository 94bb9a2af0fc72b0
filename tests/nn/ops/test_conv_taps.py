"""Atrous convolution without the products with padding: the same values and gradients as the padded convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn import conv2d
from jaxseg.nn.ops.conv_taps import conv2d_taps, live_share, outer_taps, spans

# Height, width, kernel, rate, padding.
CASES = (
    (8, 8, 3, 6, 6),  # all taps meet pixels
    (8, 8, 3, 12, 12),  # only the middle tap does
    (5, 9, 3, 7, 7),  # in the rows only the middle tap does
    (6, 7, 5, 4, 8),
    (7, 6, 3, 1, 1),
    (4, 5, 3, 2, 5),  # more padding than the kernel needs
    (9, 8, 3, 2, 0),
    (6, 6, 2, 3, 2),
    (7, 7, 4, 3, 5),
    (1, 1, 3, 1, 1),
)


def definition(x, kernel, dy, dilation, padding):
    """y, dL/dx and dL/dK of the padded correlation, in float64."""
    x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
    wide = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = dy.shape[1:3]
    y, dwide, dkernel = np.zeros_like(dy), np.zeros_like(wide), np.zeros_like(kernel)
    for u in range(kernel.shape[0]):
        for v in range(kernel.shape[1]):
            here = np.s_[:, dilation * u : dilation * u + h, dilation * v : dilation * v + w]
            y += wide[here] @ kernel[u, v]
            dwide[here] += dy @ kernel[u, v].T
            dkernel[u, v] = np.einsum("bhwc,bhwo->co", wide[here], dy)
    return y, dwide[:, padding : padding + x.shape[1], padding : padding + x.shape[2]], dkernel


def draw(h, w, k, dilation, padding, c=3, o=5, b=2):
    rng = np.random.default_rng(h * 10 + w)
    more = 2 * padding - dilation * (k - 1)
    shapes = (b, h, w, c), (k, k, c, o), (b, h + more, w + more, o)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def gradients(convolve, x, kernel, dy):
    y, pull = jax.vjp(convolve, x, kernel)
    return y, *pull(dy)


@pytest.mark.parametrize(("h", "w", "k", "dilation", "padding"), CASES)
def test_values_and_gradients_are_those_of_the_definition(h, w, k, dilation, padding):
    arrays = draw(h, w, k, dilation, padding)

    @jax.jit
    def both(*arrays):
        taps = gradients(lambda x, kernel: conv2d_taps(x, kernel, dilation, padding), *arrays)
        return taps, gradients(lambda x, kernel: conv2d(x, kernel, dilation=dilation, padding=padding), *arrays)

    for ours in both(*arrays):
        for a, b in zip(ours, definition(*arrays, dilation, padding), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_spans_are_the_outputs_of_a_tap_that_read_a_pixel():
    for size, taps, dilation, padding in [(8, 3, 6, 6), (8, 3, 12, 12), (5, 4, 3, 5), (6, 2, 3, 2), (7, 5, 1, 2)]:
        outputs = range(size + 2 * padding - dilation * (taps - 1))
        for tap, span in enumerate(spans(size, taps, dilation, padding)):
            reads = {y: y + dilation * tap - padding for y in outputs}
            live = [(y, into) for y, into in reads.items() if 0 <= into < size]
            assert span.length == len(live)
            assert not live or (span.out, span.into) == live[0]


def test_the_share_counts_products_with_pixels():
    # Of 8 rows at rate 6 the outer taps have 2 each, the middle one 8: (12 / 24)^2.
    assert live_share((1, 8, 8, 3), 3, 6, 6) == 0.25
    assert live_share((1, 8, 16, 3), 3, 12, 12) == pytest.approx(8 / 24 * (4 + 16 + 4) / 48)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_taps_left_out_meet_only_padding(stride):
    for size, taps, dilation, padding in [
        (8, 3, 8, 8),
        (8, 3, 7, 7),
        (5, 5, 3, 6),
        (4, 5, 4, 8),
        (3, 3, 2, 4),
        (9, 3, 1, 0),
    ]:
        outer = outer_taps((1, size, size, 1), taps, stride, dilation, padding)
        outputs = (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        live = [t for t in range(taps) if any(0 <= y * stride + dilation * t - padding < size for y in range(outputs))]
        assert not set(live) & {*range(outer), *range(taps - outer, taps)}
    assert outer_taps((1, 8, 8, 1), 3, stride, 8, 8) == 1
    assert outer_taps((1, 8, 9, 1), 3, stride, 8, 8) == 0  # in a row of nine an outer tap has one pixel


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_of_which_only_the_middle_tap_has_pixels_is_a_product(groups, stride):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 5, 4)), rng.normal(size=(3, 3, 4 // groups, 4))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)

    def convolve(x, kernel):
        return conv2d(x, kernel, stride=stride, dilation=6, groups=groups, padding=6)

    y, _, dkernel = jax.jit(
        lambda x, kernel: gradients(convolve, x, kernel, jnp.ones((2, 6 // stride, -(-5 // stride), 4)))
    )(x, kernel)
    parts = np.split(x[:, ::stride, ::stride], groups, -1), np.split(kernel[1, 1], groups, -1)
    np.testing.assert_allclose(y, np.concatenate([a @ b for a, b in zip(*parts)], -1), rtol=1e-5, atol=1e-5)
    outer = np.ones((3, 3), bool)
    outer[1, 1] = False
    np.testing.assert_array_equal(dkernel[outer], 0)
    sums = [part.sum((0, 1, 2))[:, None] + np.zeros((1, 4 // groups)) for part in parts[0]]
    np.testing.assert_allclose(dkernel[1, 1], np.concatenate(sums, -1), rtol=1e-5, atol=1e-5)


def test_no_copy_of_the_image_is_padded():
    x, kernel = jnp.zeros((1, 8, 8, 16)), jnp.zeros((3, 3, 16, 4))
    program = jax.jit(lambda x, kernel: conv2d(x, kernel, dilation=6, padding=6)).lower(x, kernel).compile()
    assert "20,20" not in program.as_text() and "convolution" not in program.as_text()


def test_a_batch_over_eight_devices_gives_the_same():
    arrays = draw(8, 8, 3, 6, 6, b=8)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    places = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), (), ("data",))]
    function = jax.jit(lambda *a: gradients(lambda x, kernel: conv2d_taps(x, kernel, 6, 6), *a))
    spread = function.lower(*map(jax.device_put, arrays, places)).compile()
    assert "all-gather" not in spread.as_text()
    for a, b in zip(spread(*map(jax.device_put, arrays, places)), definition(*arrays, 6, 6), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

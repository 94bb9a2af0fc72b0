"""The convolution with gradients by strips and phases: the sums that these are, under any compiler options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.compiler import ONEDNN, calls_onednn, compiler_options, jit
from jaxseg.nn import conv2d, conv_transpose2d
from jaxseg.nn.ops.conv_strips import Forms, Geometry, choose, conv2d_strips, kernel_gradient_in_strips
from jaxseg.nn.ops.forms import traced_for


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sums(x, kernel, dy, geometry):
    """Output and both gradients by their definitions, in float64."""
    size, stride, dilation, groups, p = geometry
    x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
    (_, y, w, o), c = dy.shape, x.shape[-1]
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    out, dx, dkernel = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(kernel)
    for u in range(size):
        for v in range(size):
            place = np.s_[:, u * dilation :: stride, v * dilation :: stride]
            for g in range(groups):
                i, j = np.s_[g * c // groups : (g + 1) * c // groups], np.s_[g * o // groups : (g + 1) * o // groups]
                pixels = padded[place][:, :y, :w, i]
                out[..., j] += pixels @ kernel[u, v, :, j]
                dx[place][:, :y, :w, i] += dy[..., j] @ kernel[u, v, :, j].T
                dkernel[u, v, :, j] += np.einsum("bhwc,bhwo->co", pixels, dy[..., j])
    h, w = x.shape[1:3]
    return out, dx[:, p : p + h, p : p + w], dkernel


# Batch, height, width; kernel, stride, dilation, groups, padding; channels in and out.
CASES = (
    ((2, 13, 16), (3, 1, 1, 1, 1), (3, 5)),
    ((2, 13, 16), (3, 1, 1, 1, 1), (5, 3)),
    ((9, 7, 8), (3, 1, 2, 1, 2), (5, 3)),
    ((1, 9, 8), (4, 1, 1, 1, 3), (5, 3)),
    ((2, 9, 8), (3, 1, 1, 1, 3), (6, 2)),
    ((3, 8, 7), (3, 1, 1, 1, 0), (4, 4)),
    ((2, 13, 16), (3, 2, 1, 1, 1), (3, 5)),
    ((2, 15, 12), (7, 4, 1, 1, 3), (3, 2)),
    ((1, 12, 9), (7, 2, 1, 1, 3), (5, 2)),
    ((2, 9, 8), (2, 3, 1, 1, 0), (3, 4)),
    ((2, 13, 11), (3, 2, 2, 1, 2), (4, 3)),
    ((2, 9, 8), (3, 1, 1, 2, 1), (4, 8)),
    ((2, 9, 8), (3, 2, 1, 4, 1), (8, 4)),
)


@pytest.mark.parametrize("forms", ["strips", "onednn"])
@pytest.mark.parametrize(("shape", "geometry", "channels"), CASES)
def test_it_and_its_gradients_are_the_sums(shape, geometry, channels, forms):
    c, o = channels
    geometry = Geometry(*geometry)
    x, kernel = draw(*shape, c), draw(geometry.size, geometry.size, c // geometry.groups, o, seed=1)

    def convolve(x, kernel):
        return conv2d(
            x,
            kernel,
            stride=geometry.stride,
            dilation=geometry.dilation,
            groups=geometry.groups,
            padding=geometry.padding,
        )

    @jax.jit
    def both(x, kernel, dy):
        with traced_for(forms):
            y, pull = jax.vjp(convolve, x, kernel)
            return y, *pull(dy)

    dy = draw(*jax.eval_shape(convolve, x, kernel).shape, seed=2)
    for ours, sum_ in zip(both(x, kernel, dy), sums(x, kernel, dy, geometry), strict=True):
        assert ours.shape == sum_.shape
        np.testing.assert_allclose(ours, sum_, rtol=1e-4, atol=1e-5 * np.abs(sum_).max())


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("strips", [1, 3, 11])
def test_any_number_of_strips_gives_the_same(strips, swapped):
    x, dy, geometry = draw(2, 11, 9, 5), draw(2, 11, 9, 4, seed=1), Geometry(3, 1, 1, 1, 1)
    taps = kernel_gradient_in_strips(x, dy, geometry, Forms(False, strips, swapped, away=True))
    np.testing.assert_allclose(taps, sums(x, np.zeros((3, 3, 5, 4)), dy, geometry)[2], rtol=1e-4, atol=1e-4)


def test_a_batch_over_eight_devices_gives_the_same():
    x, kernel, dy, geometry = draw(8, 6, 7, 5), draw(3, 3, 5, 3), draw(8, 6, 7, 3, seed=1), Geometry(3, 1, 1, 1, 1)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in (x, dy)]
    gradients = jax.jit(lambda x, dy: jax.vjp(lambda x, k: conv2d_strips(x, k, geometry), x, kernel)[1](dy))
    for ours, sum_ in zip(gradients(*spread), sums(x, kernel, dy, geometry)[1:]):
        np.testing.assert_allclose(ours, sum_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_the_transposed_convolution_is_the_same(side):
    x, kernel = draw(2, 5, 6, 3), draw(side, side, 3, 4, seed=1)

    def gradients(forms):
        with traced_for(forms):
            return jax.value_and_grad(lambda k: (conv_transpose2d(x, k, stride=2) ** 2).sum())(kernel)

    for ours, usual in zip(gradients("strips"), gradients("usual"), strict=True):
        np.testing.assert_allclose(ours, usual, rtol=1e-4, atol=1e-3)


def test_derivatives_of_the_gradient():
    """jvp of grad, through the strips and the phases, against the central difference of the gradient."""
    x, direction = np.random.default_rng(0).normal(size=(2, 1, 6, 5, 2)).astype(np.float32)
    kernel, geometry = draw(3, 3, 2, 2), Geometry(3, 2, 1, 1, 1)
    gradient = jax.grad(lambda x: (conv2d_strips(x, kernel, geometry) ** 4).sum())
    _, product = jax.jit(lambda x, v: jax.jvp(gradient, (x,), (v,)))(x, direction)
    step = 1e-2
    difference = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(product, difference, rtol=0.02, atol=0.01 * np.abs(difference).max())


def test_the_program_keeps_the_kernel_gradient_away_from_onednn():
    """The forward pass and the gradient of the input are calls of oneDNN, that of the kernel is not."""
    options = compiler_options({ONEDNN: True})
    if not calls_onednn(options):
        pytest.skip("This jaxlib has no oneDNN.")
    x, kernel, geometry = jnp.zeros((2, 16, 16, 8)), jnp.zeros((3, 3, 8, 8)), Geometry(3, 1, 1, 1, 1)

    def all_three(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: conv2d_strips(x, kernel, geometry), x, kernel)
        return y, pull(y)

    text = jit(all_three, options).lower(x, kernel).compile().as_text()
    assert text.count('custom_call_target="__onednn$convolution"') == 2
    assert text.count(" convolution(") == 1


def test_the_choice_is_by_shape():
    plain = Geometry(3, 1, 1, 1, 1)
    assert choose((4, 64, 64, 32), (4, 64, 64, 64), plain) == Forms(False, 4, False, False)
    assert choose((4, 64, 64, 64), (4, 64, 64, 32), plain) == Forms(False, 4, True, False)
    assert choose((8, 64, 64, 64), (8, 64, 64, 64), plain).strips == 1
    assert choose((1, 6, 6, 64), (1, 6, 6, 64), plain).strips == 6
    assert choose((4, 64, 64, 64), (4, 32, 32, 32), plain._replace(stride=2)) == Forms(True, 4, False, False)
    with traced_for("onednn"):
        assert choose((4, 64, 64, 32), (4, 64, 64, 64), plain).away
        assert choose((4, 64, 64, 64), (4, 64, 64, 32), plain._replace(groups=4)) == Forms(False, 1, False, False)

"""The kernel gradient of a convolution of stride 1: the sum that it is, whichever way round it is computed."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn.ops.conv_stride1 import _automatic, conv2d_stride1, kernel_gradient


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def summed(x, dy, size, dilation, padding):
    """The definition, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = dy.shape[1:3]
    taps = [[x[:, u : u + h, v : v + w] for v in dilation * np.arange(size)] for u in dilation * np.arange(size)]
    return np.stack([np.stack([np.einsum("bhwc,bhwo->co", tap, dy) for tap in row]) for row in taps])


CASES = [(3, 1, 1), (3, 2, 2), (3, 1, 0), (2, 1, 0), (4, 1, 1), (3, 1, 3), (5, 3, 6), (3, 3, 1)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", [(3, 5), (5, 3), (4, 4)])
def test_it_is_the_sum_over_images_and_pixels(channels, case):
    size, dilation, padding = case
    c, o = channels
    x, kernel = draw(2, 13, 16, c), draw(size, size, c, o, seed=1)

    @jax.jit
    def both(x, kernel, dy):
        y, pull = jax.vjp(lambda x, kernel: conv2d_stride1(x, kernel, dilation, padding), x, kernel)
        forms = kernel_gradient(x, dy, size, dilation, padding), _automatic(x, dy, kernel.shape, dilation, padding)
        return y, pull(dy), forms

    reach = dilation * (size - 1)
    dy = draw(2, 13 + 2 * padding - reach, 16 + 2 * padding - reach, o, seed=2)
    y, (_, dk), (alone, elsewhere) = both(x, kernel, dy)
    assert y.shape == dy.shape and dk.shape == kernel.shape
    np.testing.assert_allclose(dk, summed(x, dy, size, dilation, padding), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(alone, dk)
    np.testing.assert_allclose(elsewhere, summed(x, dy, size, dilation, padding), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("channels", [(3, 5), (5, 3)])
def test_a_batch_over_eight_devices_gives_the_same(channels):
    x, dy = draw(8, 6, 7, channels[0]), draw(8, 6, 7, channels[1], seed=1)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in (x, dy)]
    gradient = jax.jit(lambda x, dy: kernel_gradient(x, dy, 3, 1, 1))
    np.testing.assert_allclose(gradient(*spread), summed(x, dy, 3, 1, 1), rtol=1e-4, atol=1e-3)

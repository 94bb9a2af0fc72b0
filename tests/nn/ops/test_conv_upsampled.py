"""The convolution of an enlarged image, against float64 sums over the enlarged image and its own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn import conv2d_upsampled
from jaxseg.nn.ops.forms import traced_for


def by_sums(x, kernel, dy):
    """y, and the gradients of x and the kernel by the definition, float64."""
    k, (b, h, w, c) = len(kernel), x.shape
    p = k // 2
    padded = np.pad(x.astype(np.float64).repeat(2, 1).repeat(2, 2), ((0, 0), (p, p), (p, p), (0, 0)))
    y, dx, dk = 0.0, np.zeros_like(padded), np.zeros(kernel.shape)
    for u in range(k):
        for v in range(k):
            window = np.s_[:, u : u + 2 * h, v : v + 2 * w]
            y = y + padded[window] @ kernel[u, v]
            dx[window] += dy @ kernel[u, v].T
            dk[u, v] = np.einsum("bhwc,bhwo->co", padded[window], dy)
    dx = dx[:, p : p + 2 * h, p : p + 2 * w].reshape(b, h, 2, w, 2, c).sum((2, 4))
    return y, dx, dk


@pytest.mark.parametrize("forms", ["usual", "strips", "plain"])
@pytest.mark.parametrize(("k", "shape", "o"), [(3, (2, 3, 5, 4), 2), (3, (1, 1, 1, 2), 3), (1, (2, 3, 2, 2), 3)])
def test_it_is_the_convolution_of_the_enlarged_image(forms, k, shape, o):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(k, k, shape[-1], o))
    dy = rng.normal(size=(shape[0], 2 * shape[1], 2 * shape[2], o))

    @jax.jit
    def both(x, kernel, dy):
        with traced_for(forms):
            y, pull = jax.vjp(conv2d_upsampled, x, kernel)
            return y, *pull(dy)

    ours = both(*(jnp.asarray(array, jnp.float32) for array in (x, kernel, dy)))
    for array, exact in zip(ours, by_sums(x, kernel, dy), strict=True):
        assert array.shape == exact.shape
        np.testing.assert_allclose(array, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def test_another_kernel_is_refused():
    with pytest.raises(ValueError, match=r"takes a kernel of 1x1 or 3x3, got 5x5\."):
        conv2d_upsampled(jnp.zeros((1, 2, 2, 1)), jnp.zeros((5, 5, 1, 1)))

"""Derivatives of derivatives: what has a gradient written out lets forward mode through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import nn as jnn
from jaxseg.nn.ops.batch_norm import batch_norm
from jaxseg.nn.ops.depthwise import depthwise_conv2d
from jaxseg.nn.ops.layer_norm import layer_norm

KERNEL = np.random.default_rng(1).normal(size=(3, 3, 2, 2)).astype(np.float32)
SCALE = np.float32([0.7, 1.4])
LAYERS = {
    "attention": lambda x: jnn.dot_product_attention(*(x.reshape(1, 8, 2, 4),) * 3),
    "batch norm": lambda x: batch_norm(x, SCALE, SCALE, SCALE)[0],
    "bilinear": jnn.upsample,
    "convolution": lambda x: jnn.conv2d(x, KERNEL, padding=1),
    "convolution 1x1": lambda x: jnn.conv2d(x, KERNEL[:1, :1]),
    "convolution at stride 2": lambda x: jnn.conv2d(x, KERNEL, stride=2, padding=1),
    "depth to space": lambda x: jnn.depth_to_space(x.reshape(1, 4, 2, 8), 2),
    "depthwise": lambda x: depthwise_conv2d(x, KERNEL[:, :, :1], 1, 1, 1),
    "group norm": lambda x: jnn.group_norm(x, jnp.ones(2), jnp.zeros(2), 1),
    "layer norm": lambda x: layer_norm(x, SCALE, SCALE),
    "max pool": jnn.max_pool,
}


@pytest.mark.parametrize("name", LAYERS)
def test_hessian_vector_products_are_differences_of_gradients(name):
    """jvp of grad, of a sum of fourth powers, against the central difference of the gradient."""
    x, direction = np.random.default_rng(0).normal(size=(2, 1, 4, 8, 2)).astype(np.float32)
    gradient = jax.grad(lambda x: (LAYERS[name](x) ** 4).sum())
    _, product = jax.jit(lambda x, v: jax.jvp(gradient, (x,), (v,)))(x, direction)
    step = 1e-2
    difference = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
    assert np.abs(product).max() > 0.1
    np.testing.assert_allclose(product, difference, rtol=0.02, atol=0.01 * np.abs(difference).max())

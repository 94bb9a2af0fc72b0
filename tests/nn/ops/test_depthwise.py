"""Depthwise convolution: values and gradients are those of XLA's grouped convolution, and of torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles, parity
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.nn import conv2d
from jaxseg.nn.ops.depthwise import depthwise_conv2d

# Height, width, kernel, stride, dilation, padding.
CASES = (
    (7, 9, 3, 1, 1, 1),
    (8, 10, 3, 2, 1, 1),
    (7, 10, 3, 2, 1, 1),
    (6, 7, 5, 2, 1, 2),
    (9, 8, 5, 1, 2, 4),
    (1, 1, 3, 2, 1, 1),
    (9, 11, 3, 1, 1, 0),
    (5, 6, 7, 1, 1, 3),
    (10, 11, 3, 3, 2, 0),
    (8, 8, 2, 2, 1, 0),
    (7, 7, 1, 2, 1, 0),
    (4, 5, 3, 1, 1, 3),
    (6, 9, 3, 4, 1, 1),
    (8, 8, 3, 1, 6, 6),
    (5, 9, 3, 1, 7, 7),
    (4, 5, 3, 1, 9, 9),
)


def inputs(h: int, w: int, k: int):
    rng = np.random.default_rng(h * 100 + w)
    x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
    return x, rng.normal(size=(k, k, 1, 3)).astype(np.float32)


@pytest.mark.parametrize(("h", "w", "k", "stride", "dilation", "padding"), CASES)
def test_values_and_gradients_are_torchs(h, w, k, stride, dilation, padding):
    torch = oracles.torch()
    x, kernel = inputs(h, w, k)
    image = parity.nchw(x).requires_grad_()
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
    theirs = torch.nn.functional.conv2d(image, weight, None, stride, padding, dilation, groups=3)
    dy = np.random.default_rng(1).normal(size=parity.nhwc(theirs).shape).astype(np.float32)
    theirs.backward(parity.nchw(dy))

    @jax.jit
    def ours(x, kernel):
        y, pullback = jax.vjp(
            lambda x, kernel: conv2d(x, kernel, stride=stride, dilation=dilation, groups=3, padding=padding), x, kernel
        )
        return y, *pullback(jnp.asarray(dy))

    y, dx, dkernel = ours(x, kernel)
    for a, b in ((y, parity.nhwc(theirs)), (dx, parity.nhwc(image.grad))):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, weight.grad.numpy().transpose(2, 3, 1, 0), rtol=1e-4, atol=1e-5)


def test_other_devices_get_xlas_convolution():
    x, kernel = inputs(8, 9, 3)
    program = jax.jit(jax.grad(lambda x, k: depthwise_conv2d(x, k, 2, 1, 1).sum(), (0, 1)))
    cpu, tpu = (program.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu"))
    assert "stablehlo.convolution" not in cpu and "stablehlo.convolution" in tpu


def test_half_precision_sums_in_float32():
    x, kernel = (jnp.asarray(v, jnp.bfloat16) for v in inputs(9, 9, 5))
    found = jax.jit(lambda: depthwise_conv2d(x, kernel, 1, 1, 2))()
    exact = lax.conv_general_dilated(
        x.astype(jnp.float32),
        kernel.astype(jnp.float32),
        (1, 1),
        [(2, 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))
    dx, dkernel = jax.jit(jax.grad(lambda x, k: depthwise_conv2d(x, k, 1, 1, 2).sum(), (0, 1)))(x, kernel)
    assert dx.dtype == dkernel.dtype == jnp.bfloat16


def test_batches_under_vmap_and_over_eight_devices_give_the_same():
    rng = np.random.default_rng(3)
    x, dy = (rng.normal(size=(8, 5, 6, 3)).astype(np.float32) for _ in range(2))
    kernel = rng.normal(size=(3, 3, 1, 3)).astype(np.float32)

    def gradients(x, dy):
        return jax.vjp(lambda x, kernel: depthwise_conv2d(x, kernel, 1, 1, 1), x, kernel)[1](dy)

    dx, dkernel = jax.jit(gradients)(x, dy)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in (x, dy)]
    for found in (jax.jit(gradients)(*spread), jax.jit(jax.vmap(gradients))(x[:, None], dy[:, None])):
        np.testing.assert_allclose(np.reshape(found[0], dx.shape), dx, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.reshape(found[1], (-1, *kernel.shape)).sum(0), dkernel, rtol=1e-4, atol=1e-4)

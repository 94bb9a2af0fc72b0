"""A model against its paper: parameters counted by hand, and the same function written out in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.parity import assert_close, nhwc
from helpers.variables import drawn, shapes, variable_shapes

from jaxseg import models


def count(name: str, channels: int, **fields) -> int:
    """Returns the number of parameters of the architecture of this name."""
    model = models.build(name, **fields)
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(model, (1, 16, 16, channels))["params"]))


def conv(kernel: int, c: int, o: int, bias: bool = True) -> int:
    """Parameters of a convolution."""
    return kernel * kernel * c * o + bias * o


def normed(kernel: int, c: int, o: int) -> int:
    """Parameters of a convolution without bias and a norm's scale and bias after it."""
    return kernel * kernel * c * o + 2 * o


class Torch:
    """Reads parameters by name and applies torch's functions to them."""

    def __init__(self, variables):
        self.torch = pytest.importorskip("torch")
        self.f = self.torch.nn.functional
        self.leaves = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
            self.leaves["/".join(p.key for p in path[1:])] = self.torch.tensor(leaf)

    def conv(self, x, name, **kwargs):
        bias = self.leaves[f"{name}/bias"] if f"{name}/bias" in self.leaves else None
        return self.f.conv2d(x, self.leaves[f"{name}/kernel"].permute(3, 2, 0, 1), bias, **kwargs)

    def up(self, x, name, **kwargs):
        bias = self.leaves[f"{name}/bias"] if f"{name}/bias" in self.leaves else None
        return self.f.conv_transpose2d(x, self.leaves[f"{name}/kernel"].permute(2, 3, 0, 1), bias, stride=2, **kwargs)

    def norm(self, x, name):
        if f"{name}/scale" not in self.leaves:
            return x
        mean, var, scale, bias = (self.leaves[f"{name}/{leaf}"] for leaf in ("mean", "var", "scale", "bias"))
        return self.f.batch_norm(x, mean, var, scale, bias, training=False, eps=1e-5)

    def layer(self, x, name, padding=1):
        return self.f.relu(self.norm(self.conv(x, f"{name}/conv", padding=padding), f"{name}/norm"))


def padded(t, x, multiple=4):
    """Torch's f[b,c,h,w] with zeros at the bottom and right, to a multiple of the coarsest stride."""
    bottom, right = (-side % multiple for side in x.shape[2:])
    return t.f.pad(x, (0, right, 0, bottom))


def compare(model, network, size=(12, 16), pad=None):
    """Logits must agree with those of `network(torch, x)` to 1e-4, and the gradient at the image to 1e-3."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, *size, 3)).astype(np.float32)
    variables = drawn(model, jnp.asarray(image))
    t = Torch(variables)
    weight = rng.normal(size=shapes(model, image.shape)[1].shape).astype(np.float32)

    @jax.jit
    def ours(variables, x):
        logits, pullback = jax.vjp(lambda x: model.apply(variables, x)[0], x)
        return logits, pullback(jnp.asarray(weight))[0]

    logits, gradient = ours(variables, image)
    x = t.torch.tensor(image.transpose(0, 3, 1, 2), requires_grad=True)
    y = network(t, x if pad is None else pad(t, x))
    y = y[:, :, : size[0], : size[1]]
    (y * t.torch.tensor(weight.transpose(0, 3, 1, 2))).sum().backward()
    assert_close(logits, nhwc(y), 1e-4)
    assert_close(gradient, nhwc(x.grad), 1e-3)

"""A tiny network for the tests of the training step."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.nn import Dropout, make_norm

K = 3  # classes


class Tiny(nn.Module):
    """Two convolutions with a norm, dropout and an auxiliary head at half the size."""

    norm: str = "group"
    rate: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(8, (3, 3), name="conv")(image)
        x = make_norm(self.norm, axis_name=self.axis_name)(name="norm")(x, train=train)
        x = Dropout(self.rate, axis_name=self.axis_name)(nn.relu(x), train=train)
        aux = nn.Conv(K, (2, 2), strides=2, name="aux")(x)
        return nn.Conv(K, (1, 1), name="head")(x).astype(jnp.float32), {"aux": (aux,)}


def assert_same(a, b, rtol=2e-5):
    """The leaves of two trees agree but for rounding."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-6), a, b)

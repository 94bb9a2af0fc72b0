"""U-Net and ResUNet in plain Flax, as a user would write them, for `compare_torch.py`.

They use layers of `flax.linen` and `jax.image.resize`, and nothing of `jaxseg.nn`. f[b,h,w,3] -> f32[b,h,w,k] for h and
w that the poolings divide.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Layers(nn.Module):
    """3x3 convolution, batch norm, ReLU, twice."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in (1, 2):
            x = nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(_norm(train, self.dtype, f"norm{i}")(x))
        return x


class UNet(nn.Module):
    """Max-pooling, transposed convolutions, concatenations."""

    widths: tuple[int, ...]
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        skips = []
        for i, features in enumerate(self.widths):
            if i > 0:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = Layers(features, self.dtype, name=f"down{i}")(x, train=train)
            skips.append(x)
        for i in reversed(range(len(self.widths) - 1)):
            x = nn.ConvTranspose(self.widths[i], (2, 2), strides=(2, 2), dtype=self.dtype, name=f"up{i}")(x)
            x = jnp.concatenate([x, skips[i]], axis=-1)
            x = Layers(self.widths[i], self.dtype, name=f"merge{i}")(x, train=train)
        return nn.Conv(self.num_classes, (1, 1), dtype=self.dtype, name="head")(x).astype(jnp.float32)


class Unit(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside a shortcut."""

    features: int
    stride: int
    dtype: Any
    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, self.features, padding=1, dtype=self.dtype)
        strides = (self.stride, self.stride)
        h = x if self.first else nn.relu(_norm(train, self.dtype, "norm1")(x))
        h = conv(kernel_size=(3, 3), strides=strides, use_bias=False, name="conv1")(h)
        h = conv(kernel_size=(3, 3), name="conv2")(nn.relu(_norm(train, self.dtype, "norm2")(h)))
        if x.shape != h.shape:
            x = conv(kernel_size=(1, 1), strides=strides, padding=0, use_bias=False, name="shortcut")(x)
        return x + h


class ResUNet(nn.Module):
    """Strided units, nearest up-sampling, concatenations."""

    widths: tuple[int, ...]
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        skips = []
        for i, features in enumerate(self.widths):
            x = Unit(features, 1 if i == 0 else 2, self.dtype, first=i == 0, name=f"down{i}")(x, train=train)
            skips.append(x)
        for i in reversed(range(len(self.widths) - 1)):
            x = jax.image.resize(x, (*skips[i].shape[:3], x.shape[3]), "nearest")
            x = jnp.concatenate([x, skips[i]], axis=-1)
            x = Unit(self.widths[i], 1, self.dtype, name=f"up{i}")(x, train=train)
        return nn.Conv(self.num_classes, (1, 1), dtype=self.dtype, name="head")(x).astype(jnp.float32)


def _norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype, name=name)


def unet(widths: tuple[int, ...], num_classes: int, dtype: str = "float32") -> nn.Module:
    """Our `unet` of these widths."""
    return UNet(widths, num_classes, jnp.dtype(dtype).type)


def resunet(widths: tuple[int, ...], num_classes: int, dtype: str = "float32") -> nn.Module:
    """Our `resunet` of these widths."""
    return ResUNet(widths, num_classes, jnp.dtype(dtype).type)

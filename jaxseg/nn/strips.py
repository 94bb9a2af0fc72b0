"""Depthwise convolutions with long and thin kernels (Guo et al. 2022, "SegNeXt", section 3.1)."""

from typing import Any, Literal

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxseg.nn.conv import check_image
from jaxseg.nn.dense import parameter
from jaxseg.nn.initializers import he_normal
from jaxseg.nn.ops.strip_conv import strip_conv2d


class StripConv(nn.Module):
    """Depthwise convolution of one row or column, with a bias: f[b,h,w,c] -> f[b,h,w,c].

    Parameters: kernel f32[1,size,1,c] (a row) or f32[size,1,1,c] (a column), and bias f32[c].

    Attributes:
        size: length of the kernel, odd.
        along: "row" or "column".
        dtype: compute dtype.

    Raises:
        ValueError: for an even size.
    """

    size: int
    along: Literal["row", "column"]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_image(x, "StripConv")
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"StripConv.size must be an odd number of at least 1, got {self.size}.")
        c, row = x.shape[-1], self.along == "row"
        kernel = parameter(self, "kernel", he_normal, (1, self.size, 1, c) if row else (self.size, 1, 1, c))
        bias = parameter(self, "bias", nn.initializers.zeros_init(), (c,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return strip_conv2d(x, kernel.reshape(self.size, c), 2 if row else 1) + bias.reshape(1, 1, 1, -1)

"""Up-sampled features beside finer ones, which layers can compute before the up-sampling.

A level of a decoder enlarges its features by 2, concatenates the skip, and normalises, activates and convolves both.
Nearest up-sampling repeats each pixel four times: batch norm finds the same means and variances at a quarter of the
pixels, an activation has four equal results, and a 3x3 convolution is a 2x2 one (`ops.conv2d_upsampled`). `Joined`
keeps the two parts until a layer needs them as one array.

Times of a level (up-sampling, concatenation, batch norm, ReLU, 3x3 convolution, and 1x1 convolution beside it) with all
gradients, jax 0.12.0.1 on one core of a Zen 3, float32: minima in milliseconds of CPU time of interleaved rounds while
other programs ran, so compare inside a row only. The side is that before the up-sampling; c, s and o are the channels
that are up-sampled, those of the skip, and of the output.

| batch, side, c, s, o | one array | two parts |
|---|---|---|
| 1, 4, 256, 128, 128 | 5.4 | 7.1 |
| 4, 4, 256, 128, 128 | 15.3 | 14.6 |
| 1, 8, 128, 64, 64 | 3.5 | 3.3 |
| 2, 8, 256, 128, 128 | 24.2 | 21.1 |
| 1, 16, 64, 32, 32 | 4.9 | 3.7 |
| 8, 8, 128, 64, 64 | 28.2 | 20.5 |
| 8, 16, 64, 32, 32 | 30.6 | 20.8 |
| 8, 32, 32, 16, 16 | 69 | 29 |
| 4, 16, 256, 128, 128 | 226 | 142 |
| 4, 32, 128, 64, 64 | 281 | 185 |
| 4, 64, 64, 32, 32 | 420 | 262 |

With few pixels the sums of the kernel's taps take longer than they save. With jax 0.10 two parts are slower: the step
of a ResUNet of widths 16 to 128 takes 586 ms in place of 283. Calls of oneDNN were not measured.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from jaxseg.nn.ops.conv import conv2d
from jaxseg.nn.ops.conv_upsampled import conv2d_upsampled
from jaxseg.nn.ops.forms import convolution_forms
from jaxseg.nn.ops.resize import resize, upsample
from jaxseg.nn.ops.sizes import is_known

LEAST_PIXELS = 128
"""Of a batch before the up-sampling, for two parts instead of one array."""


@struct.dataclass
class Joined:
    """Features f[b,2h,2w,c+s]: `coarse` f[b,h,w,c], each pixel of which fills 2x2, before `fine` f[b,2h,2w,s]."""

    coarse: jax.Array
    fine: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the one array, (b, 2h, 2w, c + s)."""
        return (*self.fine.shape[:3], self.coarse.shape[-1] + self.fine.shape[-1])

    @property
    def ndim(self) -> int:
        """4."""
        return self.fine.ndim

    def apply(self, function: Callable[..., jax.Array], *values: jax.Array) -> "Joined":
        """Returns `function(part, *values)` of both parts, which get the `values` f[c+s] of their channels."""
        c = self.coarse.shape[-1]
        coarse, fine = [value[:c] for value in values], [value[c:] for value in values]
        return Joined(function(self.coarse, *coarse), function(self.fine, *fine))


Features: TypeAlias = jax.Array | Joined


def whole(x: Features) -> jax.Array:
    """Returns the features as one array f[b,h,w,c]."""
    return jnp.concatenate([upsample(x.coarse, 2, "nearest"), x.fine], axis=-1) if isinstance(x, Joined) else x


def join_upsampled(x: jax.Array, skip: jax.Array, method: str = "nearest") -> Features:
    """(f[b,h,w,c], skip f[b,y,x,s]) -> f[b,y,x,c+s]: x enlarged to the size of the skip (`resize`), then the skip.

    The result is `Joined` where that is quicker: in a program for CPUs with jax 0.12 ("strips" of `ops.forms`), after
    nearest up-sampling by exactly 2, of LEAST_PIXELS or more in float32 or float64.
    """
    (b, h, w), size = x.shape[:3], skip.shape[1:3]
    doubled = method == "nearest" and is_known(h, w, *size) and size == (2 * h, 2 * w)
    exact = x.dtype == skip.dtype and x.dtype in (jnp.float32, jnp.float64)
    if convolution_forms() == "strips" and doubled and exact and math.prod((b, h, w)) >= LEAST_PIXELS:
        return Joined(x, skip)
    return jnp.concatenate([resize(x, size, method), skip], axis=-1)


def conv2d_joined(x: Joined, kernel: jax.Array) -> jax.Array:
    """Convolves f[b,2h,2w,c+s] with f[k,k,c+s,o], zero-padded to keep the size -> f[b,2h,2w,o], k = 1 or 3."""
    c = x.coarse.shape[-1]
    y = conv2d_upsampled(x.coarse, kernel[:, :, :c])
    return y + conv2d(x.fine, kernel[:, :, c:], padding=len(kernel) // 2) if x.fine.shape[-1] else y

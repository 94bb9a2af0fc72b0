"""Pyramid pooling with large strides: DAPPM (Hong et al. 2021, "Deep Dual-Resolution Networks", section 3.3).

Its parallel form is PAPPM (Xu et al. 2023, "PIDNet", section 3.3).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import Conv, check_image
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import is_identity, uses_batch
from jaxseg.nn.ops.pooling import avg_pool, global_avg_pool
from jaxseg.nn.ops.resize import resize

_STRIDES = (2, 4, 8)  # of the poolings over windows of 2 stride + 1 pixels; the last pooling is over the image


class NormActConv(nn.Module):
    """Norm, activation, convolution without bias: f[b,h,w,c] -> f[b,h,w,features]. Children: "norm", "conv".

    Of a single value a channel (a mean over one image), batch norm uses its running statistics.
    """

    features: int
    kernel_size: int = 3
    groups: int = 1
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common = self.common
        several = uses_batch(self, x, common.axis_name, train=train)
        x = common.activate(common.normalise(x, "norm", train=several))
        return Conv(
            self.features,
            self.kernel_size,
            groups=self.groups,
            use_bias=is_identity(common.norm),
            dtype=common.dtype,
            kernel_init=common.kernel_init,
            name="conv",
        )(x)


class DAPPM(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: means over ever larger windows, joined by 3x3 convolutions.

    The input and its means over windows of 5, 9, 17 pixels and over the image each pass a 1x1 convolution to `width`
    channels ("scale0" to "scale4"). Each mean, enlarged, is added to the result of the scale before and passes a 3x3
    convolution ("process1" to "process4"). All five are concatenated, compressed by a 1x1 convolution ("compress") and
    added to one of the input ("shortcut"). A norm and an activation come before each convolution. The zeros of the
    padding count in the means, as in the authors' code.

    Attributes:
        features: channels of the result.
        width: channels of each scale.
        parallel: PAPPM: each mean is added to the first scale instead, and one 3x3 convolution in 4 groups ("process")
            replaces the four.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    width: int = 128
    parallel: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        check_image(x, "DAPPM")

        def conv(features: int, side: int, name: str, x: jax.Array, groups: int = 1) -> jax.Array:
            return NormActConv(features, side, groups, common=self.common, name=name)(x, train=train)

        means = [_windows(x, stride) for stride in _STRIDES]
        first = conv(self.width, 1, "scale0", x)
        scales = [first]
        for i, mean in enumerate([*means, global_avg_pool(x)], start=1):
            y = resize(conv(self.width, 1, f"scale{i}", mean), x.shape[1:3])
            before = first if self.parallel else scales[-1]
            scales.append(y + before if self.parallel else conv(self.width, 3, f"process{i}", y + before))
        if self.parallel:
            joined = jnp.concatenate(scales[1:], axis=-1)
            scales = [first, conv(joined.shape[-1], 3, "process", joined, groups=4)]
        y = conv(self.features, 1, "compress", jnp.concatenate(scales, axis=-1))
        return y + conv(self.features, 1, "shortcut", x)


def _windows(x: jax.Array, stride: int) -> jax.Array:
    """Means over windows of 2 stride + 1 pixels around each `stride`-th pixel, with zeros around the image."""
    return avg_pool(jnp.pad(x, ((0, 0), (stride, stride), (stride, stride), (0, 0))), 2 * stride + 1, stride)

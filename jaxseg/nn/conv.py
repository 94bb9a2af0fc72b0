"""Convolutions and transposed convolutions, without and with norm and activation.

All take f[b,h,w,c] of any height and width. Parameters are float32; the compute dtype is the field `dtype` (None: the
dtype that the input and the parameters promote to). Padding is explicit and the same on every side, as in torch, so
that a ported network gives the same numbers for an even size at stride 2.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxseg.arguments import Count, WholeNotNegative, check_value
from jaxseg.errors import counted
from jaxseg.nn.dense import parameter
from jaxseg.nn.initializers import he_normal, lecun_normal, normal, variance_scaling
from jaxseg.nn.joined import Features, Joined, conv2d_joined, whole
from jaxseg.nn.layers import BARE, Layers
from jaxseg.nn.norm import is_identity, uses_batch
from jaxseg.nn.ops.conv import conv2d, conv2d_rectangular, conv_transpose2d
from jaxseg.nn.ops.pooling import global_avg_pool
from jaxseg.nn.ops.sizes import at_least_zero, is_known
from jaxseg.nn.ops.unit import unit_vectors
from jaxseg.types import Initializer, Key

Padding: TypeAlias = int | Literal["same"] | None
_KernelSize: TypeAlias = Count | tuple[Count, Count]
_Padding: TypeAlias = WholeNotNegative | Literal["same"] | None

unit_gain: Initializer = lecun_normal
"""Keeps the mean square of its input, for a linear map."""

near_zero: Initializer = normal(0.01)
"""For the kernel of a class head: training starts from almost equal class probabilities, however large the features."""


def identity_kernel(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Returns the kernel f[k,k,c,c], k odd, of a convolution that returns its input; it draws nothing from `key`."""
    del key
    side, _, c, features = shape
    return jnp.zeros(shape, dtype).at[side // 2, side // 2].set(jnp.eye(c, features, dtype=dtype))


class Conv(nn.Module):
    """Convolution f[b,h,w,c] -> f[b,y,x,features], y = (h + 2p - dilation (kernel_size - 1) - 1) // stride + 1.

    Parameters: kernel f32[kernel_size,kernel_size,c/groups,features] and bias f32[features].

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel; or its height and width, at stride 1, with groups = 1 and no padding
            given, which keeps the size of the image.
        stride: step between output pixels.
        dilation: step between the kernel's taps (the atrous rate).
        groups: number of channel groups, each of which is convolved separately; c makes the convolution depthwise.
        use_bias: whether a bias is added to each feature.
        padding: p, zeros on every side. None is dilation * (kernel_size - 1) // 2, which keeps the size at stride 1
            where kernel_size is odd; 0 is the "valid" convolution. "same" are the zeros of TensorFlow's "SAME", one
            more at the bottom and right where their number is odd; it differs from None where the stride is above 1.
        dtype: compute dtype.

    Raises:
        ValueError: for a kernel_size or padding of another form, if `groups` does not divide both c and `features`, or
            if the kernel is larger than the padded input.
    """

    features: int
    kernel_size: int | tuple[int, int] = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    padding: Padding = None
    dtype: Any = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Features, outputs: jax.Array | None = None, cosine: bool = False) -> jax.Array:
        """f[b,h,w,c] -> f[b,y,x,features], or f[b,y,x,s] of the features `outputs` i32[s] alone (groups = 1).

        With `cosine` they are cosines times a learned factor, see `nn.WithCosineHead`.
        """
        check_image(x, "Conv")
        check_value("Conv.kernel_size", self.kernel_size, _KernelSize)
        check_value("Conv.padding", self.padding, _Padding)
        c, k = x.shape[-1], self.kernel_size
        if isinstance(x, Joined) and isinstance(k, int) and outputs is None and not cosine and self._takes_parts(k):
            return self._joined(x, k)
        x = whole(x)
        if c % self.groups or self.features % self.groups:
            raise ValueError(
                f"Conv with groups={self.groups} cannot take {counted(c, 'channel')} to "
                f"{counted(self.features, 'feature')}."
            )
        if isinstance(k, tuple):
            return self._rectangular(x, k)
        reach = self.dilation * (k - 1) + 1
        if self.padding == "same" and (self.stride > 1 or reach % 2 == 0):
            x, padding = _padded_as_same(x, reach, self.stride), 0
        else:
            padding = self.padding if isinstance(self.padding, int) else (reach - 1) // 2
        if any(is_known(side) and side + 2 * padding < reach for side in x.shape[1:3]):
            raise ValueError(
                f"Conv with kernel_size={k}, dilation={self.dilation} and padding={padding} needs an input of at least "
                f"{reach - 2 * padding} pixels a side, got {x.shape[1]}x{x.shape[2]}."
            )
        kernel = parameter(self, "kernel", self.kernel_init, (k, k, c // self.groups, self.features))
        use_bias = self.use_bias and not cosine
        bias = parameter(self, "bias", self.bias_init, (self.features,)) if use_bias else None
        if outputs is not None:
            kernel, bias = kernel[..., outputs], None if bias is None else bias[outputs]
        if cosine:
            x, kernel = self._on_sphere(x, kernel)
        image, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d(image, kernel, stride=self.stride, dilation=self.dilation, groups=self.groups, padding=padding)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    def _takes_parts(self, k: int) -> bool:
        """Whether each output pixel of a 1x1 or 3x3 kernel lies at an input pixel, in a type for sums of taps."""
        dense = self.stride == self.dilation == self.groups == 1
        exact = self.dtype is None or jnp.dtype(self.dtype) in (jnp.float32, jnp.float64)
        return k in (1, 3) and dense and exact and self.padding in (None, "same", k // 2)

    def _joined(self, x: Joined, k: int) -> jax.Array:
        """The convolution of `Joined` features by a kernel of k x k that keeps their size."""
        kernel = parameter(self, "kernel", self.kernel_init, (k, k, x.shape[-1], self.features))
        bias = parameter(self, "bias", self.bias_init, (self.features,)) if self.use_bias else None
        coarse, fine, kernel, bias = promote_dtype(x.coarse, x.fine, kernel, bias, dtype=self.dtype)
        y = conv2d_joined(Joined(coarse, fine), kernel)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    def _rectangular(self, x: jax.Array, sides: tuple[int, int]) -> jax.Array:
        if self.stride != 1 or self.groups != 1 or self.padding is not None or not all(side % 2 for side in sides):
            raise ValueError(
                f"Conv with a kernel of {sides[0]}x{sides[1]} needs odd sides, stride=1, groups=1 and padding=None."
            )
        kernel = parameter(self, "kernel", self.kernel_init, (*sides, x.shape[-1], self.features))
        bias = parameter(self, "bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d_rectangular(x, kernel, dilation=self.dilation)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    def _on_sphere(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns f32 features of length 1, and codes whose length is the learned factor exp(log_scale)."""
        if self.kernel_size != 1:
            raise ValueError(
                f"A cosine head compares the features of a pixel with codes, so that its kernel must be 1x1; this one "
                f"is {self.kernel_size}x{self.kernel_size}."
            )
        scale = jnp.exp(parameter(self, "log_scale", nn.initializers.constant(math.log(10.0)), ()))
        return unit_vectors(x, -1, 1e-6), scale * unit_vectors(kernel, -2, 1e-6)


def _padded_as_same(x: jax.Array, reach: int, stride: int) -> jax.Array:
    """Pads f[b,h,w,c] with zeros for ceil(h / stride) windows of `reach` pixels, half of them before, rounded down."""
    sides = []
    for side in x.shape[1:3]:
        total = at_least_zero((-(-side // stride) - 1) * stride + reach - side)
        sides.append((total // 2, total - total // 2))
    return jnp.pad(x, ((0, 0), *sides, (0, 0)))


class ClassHead(Conv):
    """The convolution f[b,h,w,c] -> f[b,y,x,k] whose features are the logits of a network, with nothing but linear maps
    of each class by itself (sums, resizing, crops) after it. `of_classes` computes some of the classes alone."""


def of_classes(apply: Callable[..., Any], classes: jax.Array) -> Callable[..., Any]:
    """Returns the `apply` of a network that computes the logits of `classes` i32[s] alone, f32[b,h,w,s].

    Each `ClassHead` of the network uses the columns of its kernel that belong to these classes, so that neither memory
    nor time depend on the other classes, in the up-sampling after the head and in the gradient too. Parameters and
    their paths stay. A network whose layers read the scores of all classes (`models.NEED_ALL_CLASSES`) does not follow.
    """

    @functools.wraps(apply)
    def applied(*args: Any, **kwargs: Any) -> Any:
        def interceptor(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, ClassHead) and context.method_name == "__call__":
                kwargs = {"outputs": classes, **kwargs}  # under `rematerialised` they are given already
            return call(*args, **kwargs)

        with nn.intercept_methods(interceptor):
            return apply(*args, **kwargs)

    return applied


class ConvNormAct(nn.Module):
    """Convolution, norm, activation: f[b,h,w,c] -> f[b,h/stride,w/stride,features] (sizes rounded up).

    Children: "conv" (or "depthwise" and "pointwise" where `separable`, as in Chollet 2017) and "norm". The convolution
    has a bias only where no norm follows.

    Attributes:
        features, kernel_size, stride, dilation, groups, padding: as in `Conv`.
        separable: a depthwise convolution followed by a 1x1 convolution replaces the one convolution.
        common: norm, activation and dtype.
    """

    features: int
    kernel_size: int | tuple[int, int] = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    separable: bool = False
    padding: Padding = None
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: Features, *, train: bool = False) -> jax.Array:
        bias = is_identity(self.common.norm)
        common: dict[str, Any] = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        space: dict[str, Any] = {"kernel_size": self.kernel_size, "stride": self.stride}
        space |= {"dilation": self.dilation, "padding": self.padding}
        if self.separable:
            if self.groups != 1:
                raise ValueError(f"A separable ConvNormAct is depthwise already; groups must be 1, got {self.groups}.")
            c = x.shape[-1]
            x = Conv(c, **space, groups=c, use_bias=False, **common, name="depthwise")(x)
            x = Conv(self.features, kernel_size=1, use_bias=bias, **common, name="pointwise")(x)
        else:
            x = Conv(self.features, **space, groups=self.groups, use_bias=bias, **common, name="conv")(x)
        return self.common.activate(self.common.normalise(x, "norm", train=train))


def mean_conv(block: nn.Module, x: jax.Array, features: int, common: Layers, name: str, *, train: bool) -> jax.Array:
    """f[b,h,w,c] -> f[b,1,1,features]: a 1x1 `ConvNormAct` of the mean over the image, the child `name` of `block`.

    Call it inside a compact `__call__`. With a single image in the batch, batch norm uses its running statistics.
    """
    mean = global_avg_pool(x)
    several = uses_batch(block, mean, common.axis_name, train=train)
    return ConvNormAct(features, 1, common=common, name=name)(mean, train=several)


class ConvTranspose(nn.Module):
    """Transposed convolution f[b,h,w,c] -> f[b,h*stride,w*stride,features].

    y[stride i - p + u] += x[i] kernel[u], which is torch's ConvTranspose2d with padding p = ceil((k - stride) / 2) and
    the output_padding that makes the size exactly h * stride: kernel 2, 3 and 4 at stride 2 have (p, output_padding) =
    (0, 0), (1, 1) and (1, 0). Without output padding kernel 3 gives 2 h - 1, though texts often say that it doubles the
    size (Dumoulin & Visin 2016, "A Guide to Convolution Arithmetic for Deep Learning"). Parameters: kernel
    f32[k,k,c,features] (torch's weight is its transpose to [c,features,k,k]) and bias f32[features].
    """

    features: int
    kernel_size: int = 2
    stride: int = 2
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_image(x, "ConvTranspose")
        k, c = self.kernel_size, x.shape[-1]
        # An output pixel sums about (k / stride)^2 taps of every channel, not the k^2 that fan_in counts.
        scale = 2.0 * min(k, self.stride) ** 2
        init = self.kernel_init or variance_scaling(scale, "fan_in", "truncated_normal")
        kernel = parameter(self, "kernel", init, (k, k, c, self.features))
        bias = parameter(self, "bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv_transpose2d(x, kernel, stride=self.stride)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class ConvTransposeNormAct(nn.Module):
    """Transposed convolution, norm, activation: f[b,h,w,c] -> f[b,h*stride,w*stride,features].

    Children: "up", "norm".

    Attributes:
        features, kernel_size, stride: as in `ConvTranspose`.
        use_bias: whether there is a bias before a norm too; without a norm there always is one.
        common: norm, activation and dtype.
    """

    features: int
    kernel_size: int = 3
    stride: int = 2
    use_bias: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        bias = self.use_bias or is_identity(self.common.norm)
        up = ConvTranspose(
            self.features, self.kernel_size, self.stride, use_bias=bias, dtype=self.common.dtype, name="up"
        )
        return self.common.activate(self.common.normalise(up(x), "norm", train=train))


def check_image(x: Features, name: str) -> None:
    """Raises ValueError unless `x` is f[b,h,w,c] with at least one pixel."""
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"{name} takes an array [b,h,w,c] with h, w >= 1, got shape {x.shape}.")


def classifier(
    num_classes: int,
    *,
    kernel_size: int = 1,
    kernel_init: Initializer = he_normal,
    dtype: Any = None,
    final: bool = True,
    name: str = "head",
) -> Conv:
    """Returns the convolution f[b,h,w,c] -> f[b,h,w,num_classes] that ends a network, 1x1 by default.

    `final` is whether its features are logits (`ClassHead`), False where further layers of the network read them.

    Over normalised features, as most networks have them, keep `he_normal`: from `near_zero` such a network may predict
    the most frequent class alone for hundreds of steps. `near_zero` is for sums that no norm bounds, such as ResUNet's,
    and for networks whose papers start from it.
    """
    layer = ClassHead if final else Conv
    return layer(num_classes, kernel_size=kernel_size, dtype=dtype, kernel_init=kernel_init, name=name)

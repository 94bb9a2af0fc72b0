"""The networks of nnU-Net in 2-D.

Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18.

Two U-Nets that differ in their encoder: plain, two convolutions a stage (Isensee 2021, Methods, "Architecture
template"); and residual, with the blocks of ResNet-D (Isensee et al. 2024, "nnU-Net Revisited", ResEnc; its presets M,
L and XL differ in patch and batch size). Strided convolutions reduce the size, transposed convolutions enlarge it,
concatenating skips; each level of the decoder but the coarsest ends in logits (deep supervision).

`jaxseg.models.nnunet_topology` has the rules by which nnU-Net chooses the fields. Its own norm and activation are
`norm="instance"` and `act="leaky_relu"`. Its convolutions have biases before the instance norms, which remove them
again; ours have none.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import counted
from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.models.nnunet_topology import Pair
from jaxseg.nn import Conv, ConvTranspose, Dense, Layers, avg_pool, is_identity, pad_to_multiple, parameter
from jaxseg.nn.initializers import he_normal

Unit = Literal["plain", "residual"]

_RESIDUAL_BLOCKS = (1, 3, 4, 6)  # of the first stages of ResEnc; the others have as many as the last


class AxisConv(nn.Module):
    """Convolution, norm, activation: f[b,h,w,c] -> f[b,h/stride[0],w/stride[1],features] (sizes rounded up).

    As `jaxseg.nn.ConvNormAct`, with a kernel and a stride of either axis. Children: "conv", "norm".
    """

    features: int
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, (rows, columns) = self.common, self.stride
        form: dict[str, Any] = {"use_bias": is_identity(common.norm), "dtype": common.dtype}
        form |= {"kernel_init": common.kernel_init, "name": "conv"}
        square = self.kernel[0] == self.kernel[1]
        if square and rows == columns:
            x = Conv(self.features, self.kernel[0], stride=rows, **form)(x)
        else:  # of a few stages of an image that is far from square
            x = Conv(self.features, self.kernel[0] if square else self.kernel, **form)(x)[:, ::rows, ::columns]
        return common.activate(common.normalise(x, "norm", train=train))


class AxisUp(nn.Module):
    """Transposed convolution whose kernel is its stride: f[b,h,w,c] -> f[b,h*stride[0],w*stride[1],features].

    As a dense layer for the pixels of each window, child "dense", of one bias f32[features].
    """

    features: int
    stride: Pair
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        (b, h, w, _), (rows, columns) = x.shape, self.stride
        # Each pixel of the result sums the c channels of one pixel.
        width = rows * columns * self.features
        y = Dense(width, use_bias=False, kernel_init=he_normal, dtype=self.dtype, name="dense")(x)
        y = y.reshape(b, h, w, rows, columns, self.features).transpose(0, 1, 3, 2, 4, 5)
        bias = parameter(self, "bias", nn.initializers.zeros_init(), (self.features,)).astype(y.dtype)
        return y.reshape(b, h * rows, w * columns, self.features) + bias.reshape(1, 1, 1, -1)


class ResidualBlock(nn.Module):
    """The unit of ResEnc (the basic block of He et al. 2019, ResNet-D): f[b,h,w,c] -> f[b,h/.,w/.,features].

    Where the block reduces the size, the shortcut takes means of windows; where it changes the channels, a 1x1
    convolution and a norm follow. The activation is after the sum. Children: "conv1", "conv2", "shortcut".
    """

    features: int
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        linear = self.common.replace(act=None)
        # Without norms a block starts as its shortcut; see `jaxseg.nn.residual`.
        last = linear.replace(kernel_init=nn.initializers.zeros_init()) if is_identity(self.common.norm) else linear
        h = AxisConv(self.features, self.kernel, self.stride, self.common, name="conv1")(x, train=train)
        h = AxisConv(self.features, self.kernel, common=last, name="conv2")(h, train=train)
        shortcut = _means(x, self.stride)
        if x.shape[-1] != self.features:
            shortcut = AxisConv(self.features, (1, 1), common=linear, name="shortcut")(shortcut, train=train)
        return self.common.activate(shortcut + h)


def _means(x: jax.Array, stride: Pair) -> jax.Array:
    """f[b,h,w,c] -> f[b,h/stride[0],w/stride[1],c]: means of windows, which divide the size."""
    rows, columns = stride
    if rows == columns:
        return x if rows == 1 else avg_pool(x, rows, rows)
    b, h, w, c = x.shape
    return x.reshape(b, h // rows, rows, w // columns, columns, c).mean((2, 4))


class Stage(nn.Module):
    """f[b,h,w,c] -> f[b,h/.,w/.,features]: convolutions ("conv1", ...) or residual units ("block1", ...).

    The first of them has the stride.
    """

    features: int
    blocks: int
    unit: Unit = "plain"
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        layer, name = (AxisConv, "conv") if self.unit == "plain" else (ResidualBlock, "block")
        for i in range(self.blocks):
            stride = self.stride if i == 0 else (1, 1)
            x = layer(self.features, self.kernel, stride, self.common, name=f"{name}{i + 1}")(x, train=train)
        return x


class NNUNetEncoder(nn.Module):
    """f[b,h,w,c] -> features of each stage, finest first. Children: "stem" (residual), "stage0", "stage1", ..."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    unit: Unit
    factors: tuple[Pair, ...]
    kernels: tuple[Pair, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        if self.unit == "residual":
            x = AxisConv(self.widths[0], self.kernels[0], common=self.common, name="stem")(x, train=train)
        pyramid = []
        for i, form in enumerate(zip(self.widths, self.blocks, self.kernels, self.factors)):
            features, blocks, kernel, stride = form
            x = Stage(features, blocks, self.unit, kernel, stride, self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)


class NNUNetStage(nn.Module):
    """(f[b,h,w,c], skip f[b,H,W,features]) -> f[b,H,W,features]. Children: "up", "conv1", "conv2", ..."""

    features: int
    convs: int
    factor: Pair
    kernel: Pair
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        rows, columns = self.factor
        if rows == columns:
            x = ConvTranspose(self.features, rows, rows, dtype=self.common.dtype, name="up")(x)
        else:
            x = AxisUp(self.features, self.factor, self.common.dtype, name="up")(x)
        x = jnp.concatenate([x, skip], -1)
        for i in range(self.convs):
            x = AxisConv(self.features, self.kernel, common=self.common, name=f"conv{i + 1}")(x, train=train)
        return x


class NNUNetDecoder(nn.Module):
    """Pyramid (finest first) -> decoder features finest first, one level fewer. Children: "stage0", "stage1", ..."""

    convs: int
    factors: tuple[Pair, ...]
    kernels: tuple[Pair, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            form = (self.convs, self.factors[i + 1], self.kernels[i])
            block = NNUNetStage(skip.shape[-1], *form, common=self.common, name=f"stage{i}")
            return block(x, skip, train=train)

        return walk_up(stage, pyramid)


class NNUNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to what its poolings divide.

    Attributes:
        num_classes: k.
        widths: features of each stage, finest first; the default is that for patches of 512x512.
        unit: "plain", or "residual" for the encoder of ResEnc.
        blocks: convolutions ("plain") or residual units of each stage of the encoder; None: 2, or 1, 3, 4, 6, 6, ...
        decoder_convs: convolutions of each stage of the decoder; None: 2, or 1 beside a residual encoder.
        factors: by how much each stage reduces height and width, the first (1, 1); None: both are halved. Those of
            `nnunet_topology.topology(patch).factors`.
        kernels: height and width of the kernels of each stage, odd; None: 3x3.
        deep_supervision: whether every level of the decoder but the coarsest ends in logits, in training. `out["aux"]`
            has those of the second finest level first, bilinearly enlarged to the image, where nnU-Net reduces the
            labels. `nnunet_topology.supervision_weights` are their weights in the loss.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: if the lengths of blocks, factors or kernels are not that of widths, the first factor is not (1, 1),
            one is below 1, or a kernel is even.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 512, 512, 512)
    unit: Unit = "plain"
    blocks: tuple[int, ...] | None = None
    decoder_convs: int | None = None
    factors: tuple[tuple[int, int], ...] | None = None
    kernels: tuple[tuple[int, int], ...] | None = None
    deep_supervision: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        stages = len(self.widths)
        residual = self.unit == "residual"
        blocks = self.blocks or tuple(_RESIDUAL_BLOCKS[min(i, 3)] if residual else 2 for i in range(stages))
        factors: tuple[Pair, ...] = self.factors or ((1, 1), *((2, 2),) * (stages - 1))
        kernels: tuple[Pair, ...] = self.kernels or ((3, 3),) * stages
        _check(stages, blocks=blocks, factors=factors, kernels=kernels)
        x, size = pad_to_multiple(image, (math.prod(f[0] for f in factors), math.prod(f[1] for f in factors)))
        form = (self.widths, blocks, self.unit, factors, kernels)
        pyramid = NNUNetEncoder(*form, common=self.common, name="encoder")(x, train=train)
        convs = self.decoder_convs or (1 if residual else 2)
        decoded = NNUNetDecoder(convs, factors, kernels, self.common, name="decoder")(pyramid, train=train)
        levels = decoded or pyramid  # of a single stage
        every = self.deep_supervision and (train or self.is_initializing())
        logits, *aux = (
            to_logits(level, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype, name=f"head{i or ''}")
            for i, level in enumerate(levels[: max(1, len(levels) - 1) if every else 1])
        )
        return logits, {"aux": tuple(aux), **name_stages(encoder=pyramid, decoder=decoded)}


def _check(stages: int, **fields: Sequence[Any]) -> None:
    for name, values in fields.items():
        if len(values) != stages:
            raise ValueError(
                f"nnunet.{name} must have a value for each of the {counted(stages, 'stage')} of widths, got {values}."
            )
    if tuple(fields["factors"][0]) != (1, 1):
        raise ValueError(
            f"nnunet.factors must start with (1, 1), since logits have the size of the first stage, got "
            f"{fields['factors'][0]}."
        )
    if min(itertools.chain(*fields["factors"])) < 1:
        raise ValueError(f"nnunet.factors must be whole numbers of at least 1, got {fields['factors']}.")
    if not all(side % 2 for side in itertools.chain(*fields["kernels"])):
        raise ValueError(f"nnunet.kernels must have odd sides, got {fields['kernels']}.")

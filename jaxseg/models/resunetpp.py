"""ResUNet++ (Jha et al. 2019, "ResUNet++: An Advanced Architecture for Medical Image Segmentation").

ResUNet's residual units with gates of their channels, atrous convolutions at the bottom and before the classifier, and
an attention unit before each stage of the decoder (Fig. 1). The units are those of `jaxseg.models.resunet`; the widths
are those of the authors' code.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.nn import (
    Conv,
    ConvNormAct,
    Layers,
    NormActConv,
    PreActBlock,
    SqueezeExcite,
    join_upsampled,
    max_pool,
    pad_to_multiple,
)
from jaxseg.nn.joined import Features

_RATIO = 8  # of the gates


class GatedUnit(nn.Module):
    """A residual unit and gates of its channels (section III-A, B): f[b,h,w,c] -> f[b,h/stride,w/stride,features].

    Children: "unit", "squeeze". Without `first_preact` no norm comes before the first convolution, of the image itself.
    """

    features: int
    stride: int = 1
    first_preact: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: Features, *, train: bool = False) -> jax.Array:
        form: dict[str, Any] = {"stride": self.stride, "first_preact": self.first_preact, "common": self.common}
        x = PreActBlock(self.features, **form, name="unit")(x, train=train)
        return SqueezeExcite(_RATIO, dtype=self.common.dtype, name="squeeze")(x)


class SummedASPP(nn.Module):
    """3x3 convolutions of each rate, and one without dilation, summed: f[b,h,w,c] -> f[b,h,w,features] (section III-C).

    A norm follows each, and a 1x1 convolution the sum. Children: "local", "atrous1", "atrous2", ..., "project".
    """

    features: int
    rates: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        linear = self.common.replace(act=None)
        y = ConvNormAct(self.features, common=linear, name="local")(x, train=train)
        for i, rate in enumerate(self.rates, start=1):
            y = y + ConvNormAct(self.features, dilation=rate, common=linear, name=f"atrous{i}")(x, train=train)
        init = self.common.kernel_init
        return Conv(self.features, 1, dtype=self.common.dtype, kernel_init=init, name="project")(y)


class AttentionUnit(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,s]) -> f[b,h,w,c]: x times weights from both (section III-D).

    The skip's features, halved by max-pooling, and those of x are added; a convolution turns them into the weights.
    Children: "skip", "x", "weights", each of norm, activation and a 3x3 convolution.
    """

    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        y = max_pool(NormActConv(c, 3, common=self.common, name="skip")(skip, train=train), 2)
        y = y + NormActConv(c, 3, common=self.common, name="x")(x, train=train)
        return x * NormActConv(c, 3, common=self.common, name="weights")(y, train=train)


class ResUNetPPEncoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]], finest first. Children: "stage0", "stage1", ..."""

    widths: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        pyramid = []
        for i, features in enumerate(self.widths):
            form = (features, 1 if i == 0 else 2, i > 0, self.common)
            x = GatedUnit(*form, name=f"stage{i}")(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)


class ResUNetPPStage(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,s]) -> f[b,2h,2w,features]. Children: "attention", "block"."""

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        x = AttentionUnit(self.common, name="attention")(x, skip, train=train)
        return GatedUnit(self.features, common=self.common, name="block")(join_upsampled(x, skip), train=train)


class ResUNetPPDecoder(nn.Module):
    """Pyramid (finest first) -> decoder features finest first, one level fewer. Children: "stage0", "stage1", ..."""

    widths: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            return ResUNetPPStage(self.widths[i], self.common, name=f"stage{i}")(x, skip, train=train)

        return walk_up(stage, pyramid)


class ResUNetPP(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k; the paper has one.
        widths: features of each stage of the encoder, finest first, and of the bridge behind the last. Stage i of the
            decoder has those of stage i + 1 of the encoder.
        rates: atrous rates at the bridge and before the classifier.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: for fewer than two widths.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    rates: tuple[int, ...] = (6, 12, 18)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        if len(self.widths) < 2:
            raise ValueError(f"resunetpp.widths must be those of a stage and the bridge at least, got {self.widths}.")
        *widths, bridge = self.widths
        x, size = pad_to_multiple(image, 2 ** (len(widths) - 1))
        pyramid = ResUNetPPEncoder(tuple(widths), self.common, name="encoder")(x, train=train)
        bottom = SummedASPP(bridge, self.rates, self.common, name="bridge")(pyramid[-1], train=train)
        decoder = ResUNetPPDecoder(tuple(widths[1:]), self.common, name="decoder")
        decoded = decoder((*pyramid[:-1], bottom), train=train)
        top = (*decoded, bottom)[0]
        y = SummedASPP(widths[0], self.rates, self.common, name="aspp")(top, train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

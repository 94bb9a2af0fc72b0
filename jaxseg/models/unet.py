"""U-Net (Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation").

Names follow Fig. 1: a contracting path (the encoder), an expanding path (the decoder) of 2x2 up-convolutions that halve
the channels, a concatenation with the encoder's features of the same resolution and two 3x3 convolutions, and a final
1x1 convolution. The paper has no normalisation: `norm="none"` with `padding="valid"` is its network, of 31,030,658
parameters for one input channel and two classes.

The form of segmentation_models_pytorch's `Unet` over a pre-trained encoder is `up="nearest"`, `full_resolution=True`,
`head_kernel=3` (and `full_skip=False`, `center=True` where the encoder is a VGG).
"""

import functools
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import check_widths, decoder_levels, make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.plain import ConvStage, Padding, PlainEncoder, conv_layers
from jaxseg.nn import (
    Conv,
    ConvTranspose,
    Layers,
    SubPixelUp,
    join_upsampled,
    max_pool_with_indices,
    max_unpool,
    pad_to_multiple,
    resize,
)

Up = Literal["transposed", "subpixel", "nearest", "bilinear"]
Skip = Literal["concat", "add", "indices", "none"]


class UNetStage(nn.Module):
    """(f[b,h,w,c], skip f[b,H,W,s]) -> f[b,H,W,features]: up-convolution, concatenation, convolutions (Fig. 1 right).

    `factor` is the ratio of the resolutions; a skip without channels only gives the size. With padding="valid" the
    middle of the skip is used ("copy and crop"). Children: "up" (where it has parameters), "match" (a 1x1 convolution
    to the skip's channels, for skip="add" or "indices" if the numbers of channels differ), "conv1", "conv2", ...
    """

    features: int
    factor: int = 2
    convs: int = 2
    up: Up = "transposed"
    padding: Padding = "same"
    skip: Skip = "concat"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        if self.skip == "indices":
            x = max_unpool(self._match(x, skip), max_pool_with_indices(skip)[1], skip.shape[1:3])
        elif self.skip == "concat" and self.up == "nearest":
            joined = join_upsampled(x, skip)
            return conv_layers(joined, self.features, self.convs, self.padding, self.common, train=train)
        else:
            x = self._upsample(x, skip.shape[1:3])
        if self.skip == "concat":
            x = jnp.concatenate([x, crop_middle(skip, x.shape[1:3])], axis=-1)
        elif self.skip == "add" and skip.shape[-1]:
            x = self._match(x, skip) + crop_middle(skip, x.shape[1:3])
        return conv_layers(x, self.features, self.convs, self.padding, self.common, train=train)

    def _upsample(self, x: jax.Array, size: tuple[int, ...]) -> jax.Array:
        if self.up in ("nearest", "bilinear"):
            return resize(x, size, self.up)
        if self.factor == 1:
            return Conv(self.features, kernel_size=1, dtype=self.common.dtype, name="up")(x)
        if self.up == "subpixel":
            return SubPixelUp(self.features, self.factor, common=self.common.replace(norm=None, act=None), name="up")(x)
        return ConvTranspose(self.features, self.factor, self.factor, dtype=self.common.dtype, name="up")(x)

    def _match(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        same = x.shape[-1] == skip.shape[-1]
        return x if same else Conv(skip.shape[-1], kernel_size=1, dtype=self.common.dtype, name="match")(x)


class UNetDecoder(nn.Module):
    """Pyramid (features finest first) -> decoder features finest first, one level fewer: the expanding path.

    Attributes:
        widths: channels of each level of the result, finest first.
        strides: those of the pyramid, one more than widths.
        added: the number of levels, from the finest, that the encoder does not have; their stages are named "full0",
            "full1", ...
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    added: int = 0
    convs: int = 2
    up: Up = "transposed"
    padding: Padding = "same"
    skip: Skip = "concat"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            factor = self.strides[i + 1] // self.strides[i]
            name = f"full{i}" if i < self.added else f"stage{i - self.added}"
            form = (self.convs, self.up, self.padding, self.skip)
            block = UNetStage(self.widths[i], factor, *form, self.common, name=name)
            return block(x, skip, train=train)

        return walk_up(stage, pyramid)


class UNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of each level, finest first; the last is the bottom of the U.
        convs: 3x3 convolutions of each level, on either path.
        dropout: rate at the end of the contracting path (section 3.1); .5 at the two deepest levels in the authors'
            release. It has no effect on another encoder.
        padding: "same": the image is padded with zeros at the bottom and right to a multiple of the coarsest stride,
            and every convolution keeps its size. "valid": the paper's form, in which the image is mirrored at its
            borders to give the convolutions their context (Fig. 2); the whole image is one tile.
        up: "transposed": the paper's up-convolution; "subpixel": a 3x3 convolution whose features become pixels (Shi et
            al. 2016); or "nearest" or "bilinear" interpolation to the size of the next level, for which the image is
            not padded.
        skip: how a level of the decoder uses that of the encoder: "concat": concatenates both, as in the paper; "add":
            adds both; "indices": puts the decoder's features to the places of the encoder's maxima, which replaces `up`
            (SegNet's un-pooling); "none": not at all.
        full_resolution: whether the decoder continues to the image's resolution over an encoder that starts at a stride
            of 2 or more, in stages without a skip; `widths` then has one more for each. False: the logits are
            up-sampled.
        full_skip: whether features of stride 1 are used as a skip, if the encoder has them.
        center: whether there are convolutions at the bottom too, before the expanding path.
        head_kernel: side of the last convolution's kernel.
        encoder: another encoder under the same decoder (an `EncoderFactory`); None: the paper's. With another encoder,
            `widths` are those of the decoder's levels, finest first, one fewer than the encoder's.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    convs: int = 2
    dropout: Share = 0.5
    padding: Padding = "same"
    up: Up = "transposed"
    skip: Skip = "concat"
    full_resolution: bool = False
    full_skip: bool = True
    center: bool = False
    head_kernel: Literal[1, 3] = 1
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        if self.encoder is not None and self.padding == "valid":
            raise ValueError(
                "UNet: padding='valid' is a form of the paper's own encoder; another encoder needs 'same'."
            )
        default = functools.partial(PlainEncoder, self.widths, self.convs, self.dropout, self.padding)
        encoder = make_encoder(self.encoder or default, self.common)
        if self.padding == "valid":
            x, size = pad_for_valid(image, len(encoder.strides), self.convs), image.shape[1:3]
        else:
            doubles = self.up in ("transposed", "subpixel") or self.skip == "indices"
            x, size = pad_to_multiple(image, encoder.strides[-1] if doubles else 1)
        pyramid = encoder(x, train=train)
        skips, strides, added = decoder_levels(
            pyramid, encoder.strides, x.shape[1:3], full_resolution=self.full_resolution, full_skip=self.full_skip
        )
        check_widths("UNet", self.widths, len(skips))
        halving = all(below == 2 * above for above, below in itertools.pairwise(strides)) and not added
        if self.skip == "indices" and (self.padding == "valid" or not halving):
            raise ValueError(
                "UNet: skip='indices' undoes poolings that halve the size: it needs padding='same' and an encoder of "
                f"strides 1, 2, 4, ..., here they are {strides}."
            )
        if self.center:
            stage = ConvStage(skips[-1].shape[-1], self.convs, self.padding, common=self.common, name="center")
            skips = (*skips[:-1], stage(skips[-1], train=train))
        form = (self.convs, self.up, self.padding, self.skip)
        decoder = UNetDecoder(self.widths[: len(skips) - 1], strides, added, *form, self.common, name="decoder")
        decoded = decoder(skips, train=train)
        top = decoded[0] if decoded else skips[0]
        whole = top.shape[1:3] if strides[0] == 1 else x.shape[1:3]
        logits = to_logits(top, self.num_classes, whole, size, kernel_size=self.head_kernel, dtype=self.common.dtype)
        full = {f"decoder/full{i}": x for i, x in enumerate(decoded[:added])}
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded[added:]), **full}


def crop_middle(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """f[b,h,w,c] -> f[b,*size,c], the middle of x."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], size))
    return x[:, top : top + size[0], left : left + size[1]]


def valid_size(size: int, levels: int, convs: int = 2) -> tuple[int, int]:
    """Returns (input, output) of the smallest U-Net without padding whose output covers `size` pixels.

    It tries sizes of the bottom level: an input of n there is 2n + 2·convs one level up, so that every pooling halves
    an even size. valid_size(388, 5) == (572, 388), the numbers of Fig. 1.
    """
    lost = 2 * convs
    bottom = 0
    while True:
        bottom += 1
        before, after = bottom, bottom - lost
        for _ in range(levels - 1):
            before, after = 2 * before + lost, 2 * after - lost
        if after >= size:
            return before, after


def pad_for_valid(image: jax.Array, levels: int, convs: int = 2) -> jax.Array:
    """f[b,h,w,c] -> f[b,H,W,c] with the image mirrored at its borders, for a U-Net without padding.

    Output pixel (0, 0) of that network is image pixel (0, 0). The mirroring repeats where the image is smaller than
    the margin, so that any image of at least one pixel works.
    """
    for axis in (1, 2):
        size = image.shape[axis]
        before, after = valid_size(size, levels, convs)
        margin = (before - after) // 2
        image = jnp.take(image, mirrored(np.arange(-margin, before - margin), size), axis=axis)
    return image


def mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Maps any pixel index into [0, size) by reflection at the border pixels, which are not repeated."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if size > 1 else np.zeros_like(index)

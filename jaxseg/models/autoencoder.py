"""A convolutional autoencoder, whose encoder can be the start of a segmentation network.

It consists of the encoder of a segmentation network and a decoder that reconstructs the image from the coarsest feature
(Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks"; convolutional as in Masci et
al. 2011, "Stacked Convolutional Auto-Encoders"). It learns from images alone, by the loss term `reconstruction`. There
are no skips, which would pass the image on to the decoder.

A segmentation network with the same encoder has the same parameters under "encoder":

    python -m jaxseg.train --config experiments/autoencoder.py --workdir runs/autoencoder
    python -m jaxseg.train --config experiments/unet.py --config.model.encoder_weights=runs/autoencoder
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import check_widths, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.plain import PlainEncoder, conv_layers
from jaxseg.nn import Conv, ConvTranspose, Layers, crop_to, pad_to_multiple, resize


class UpStage(nn.Module):
    """f[b,h,w,c] -> f[b,h·factor,w·factor,features]: up-convolution and convolutions.

    Children: "up" (where factor > 1), "conv1", "conv2", ...
    """

    features: int
    factor: int = 2
    convs: int = 2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if self.factor > 1:
            x = ConvTranspose(self.features, self.factor, self.factor, dtype=self.common.dtype, name="up")(x)
        return conv_layers(x, self.features, self.convs, "same", self.common, train=train)


class CodeDecoder(nn.Module):
    """f[b,h,w,c], the coarsest level -> features f[b,.,.,widths[i]] at strides[i], finest first.

    Attributes:
        widths: channels of each level of the result, finest first.
        strides: those of the encoder's pyramid, one more than widths.
        convs: 3x3 convolutions of each level.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    convs: int = 2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        features = []
        for i in reversed(range(len(self.widths))):
            factor = self.strides[i + 1] // self.strides[i]
            x = UpStage(self.widths[i], factor, self.convs, common=self.common, name=f"stage{i}")(x, train=train)
            features.insert(0, x)
        return tuple(features)


class Autoencoder(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    `out["reconstruction"]` is {"prediction": f32[b,h,w,c], "target": the image, f32[b,h,w,c]}, for the loss term of
    that name. The logits are a probe: a linear classifier of the decoder's finest feature, through which no gradient
    flows back. A loss over labels beside the reconstruction thus trains the classifier alone, and evaluation measures
    how well the classes can be read from features that were learned without labels.

    The code of an image has widths[-1] / (c · strides[-1]²) times as many numbers as the image.

    Attributes:
        num_classes: k, of the probe.
        widths: channels of each level, finest first, on either path; the last is the code's.
        convs: 3x3 convolutions of each level.
        encoder: another encoder (an `EncoderFactory`); None: U-Net's contracting path. With another encoder,
            `widths` are those of the decoder's levels, finest first, one fewer than the encoder's.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512)
    convs: int = 2
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder or functools.partial(PlainEncoder, self.widths, self.convs), self.common)
        levels = len(encoder.strides)
        check_widths("Autoencoder", self.widths, levels)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        decoded = CodeDecoder(
            self.widths[: levels - 1], encoder.strides, self.convs, common=self.common, name="decoder"
        )(pyramid[-1], train=train)
        top = decoded[0] if decoded else pyramid[-1]
        output = Conv(image.shape[-1], 1, dtype=self.common.dtype, name="reconstruction")(top).astype(jnp.float32)
        output = crop_to(output if output.shape[1:3] == x.shape[1:3] else resize(output, x.shape[1:3]), size)
        logits = to_logits(jax.lax.stop_gradient(top), self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        pair = {"prediction": output, "target": image.astype(jnp.float32)}
        return logits, {"aux": (), "reconstruction": pair, **name_stages(encoder=pyramid, decoder=decoded)}

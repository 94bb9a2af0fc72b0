"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, "SegNet: A Deep Convolutional Encoder-Decoder Architecture").

The encoder is VGG-16 without its dense layers. Each decoder stage puts its input to the places of the maxima of the
encoder's max-pooling, with zeros elsewhere, and applies convolutions to the result (section 3, Figs. 2 and 3). Dropout
between the deepest stages makes it Bayesian SegNet (Kendall, Badrinarayanan and Cipolla 2017, section 3): predictions
under dropout are averaged, and their spread estimates the uncertainty (`jaxseg.nn.dropout` says how to ask for them).
"""

import functools
import itertools
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.models.assembly import make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.vgg import VGG
from jaxseg.nn import Conv, ConvNormAct, Dropout, Layers, max_pool_with_indices, max_unpool, pad_to_multiple


class SegNetStage(nn.Module):
    """(f[b,h/2,w/2,c], level f[b,h,w,s]) -> f[b,h,w,widths[-1]]: un-pooling to the maxima of level, convolutions.

    If both have the same size (an atrous encoder), there is no un-pooling; if their numbers of channels differ, the 1x1
    convolution "match" comes first. Children: "conv1", "conv2", ...
    """

    widths: tuple[int, ...]
    kernel_size: int = 3
    dropout: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, level: jax.Array, *, train: bool = False) -> jax.Array:
        if x.shape[-1] != level.shape[-1]:
            x = Conv(level.shape[-1], 1, dtype=self.common.dtype, name="match")(x)
        if x.shape != level.shape:
            _, indices = max_pool_with_indices(level)
            x = max_unpool(x, indices, level.shape[1:3])
        for i, features in enumerate(self.widths, start=1):
            x = ConvNormAct(features, self.kernel_size, common=self.common, name=f"conv{i}")(x, train=train)
        return Dropout(self.dropout, axis_name=self.common.axis_name, name="dropout")(x, train=train)


class SegNetDecoder(nn.Module):
    """Pyramid (features finest first) -> decoder features finest first, one level fewer.

    Attributes:
        widths: channels of the pyramid's levels; those of the decoder's convolutions mirror them.
        depths: convolutions of each stage, finest first.
        dropout: rate at the end of the deeper half of the stages.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernel_size: int = 3
    dropout: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:
        def stage(i: int, x: jax.Array, level: jax.Array) -> jax.Array:
            # The last convolution has the width of the stage that follows it.
            following = (self.widths[max(0, i - 1)],) if self.depths[i] > 0 else ()
            block = SegNetStage(
                (self.widths[i],) * (self.depths[i] - 1) + following,
                self.kernel_size,
                self.dropout if i >= (len(pyramid) - 1) // 2 else 0.0,
                common=self.common,
                name=f"stage{i}",
            )
            return block(x, level, train=train)

        return walk_up(stage, pyramid)


class SegNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        form: "full": SegNet, of 29.4 million parameters. "basic": SegNet-Basic (section 3.2), four stages of one 7x7
            convolution of 64 channels on either path, no activation in the decoder and a 1x1 classifier: 1.42 million.
        depths: convolutions of each decoder stage, finest first, of the form "full"; the last convolution of a stage
            has the channels of the stage after it, and the last of the finest is the classifier.
        dropout: rate after the deeper half of the encoder's and of the decoder's stages; .5 is Bayesian SegNet.
        encoder: another encoder, whose levels differ by factors of two; None: that of the form. `dropout` has no effect
            on another encoder.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    form: Literal["full", "basic"] = "full"
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    dropout: Share = 0.0
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = self._encoder()
        strides, basic = encoder.strides, self.form == "basic"
        if any(below not in (above, 2 * above) for above, below in itertools.pairwise(strides)):
            raise ValueError(f"SegNet: un-pooling doubles the size, so an encoder of strides {strides} does not fit.")
        if not basic and len(self.depths) < len(strides) - 1:
            raise ValueError(
                f"SegNet: depths {self.depths} are too few for an encoder of {counted(len(strides), 'level')}."
            )

        # In the form "full" the finest stage's last convolution is the classifier.
        depths = (1,) * len(strides) if basic else (self.depths[0] - 1, *self.depths[1:])
        common = self.common.replace(act=None) if basic else self.common
        decoder = SegNetDecoder(encoder.widths, depths, 7 if basic else 3, self.dropout, common, name="decoder")
        x, size = pad_to_multiple(image, strides[-1])
        pyramid = encoder(x, train=train)
        decoded = decoder(pyramid, train=train)
        y = decoded[0] if decoded else pyramid[0]
        kernel = 1 if basic else 3
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, kernel_size=kernel, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

    def _encoder(self) -> nn.Module:
        default = functools.partial(VGG, use_norm=True, dropout=self.dropout)
        if self.form == "basic":
            default = functools.partial(default, channels=(64,) * 4, depths=(1,) * 4, kernel_size=7, use_bias=False)
        return make_encoder(self.encoder or default, self.common)

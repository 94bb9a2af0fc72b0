"""The plain convolutional encoder-decoder without skips and residuals, the baseline of the project's tables.

Encoder: convolution 64, pooling, convolution 128, pooling. Decoder: stride-2 transposed convolutions back to the
image's size, the learned up-sampling of Noh et al. (2015, "Learning Deconvolution Network", section 3.2.2). The decoder
mirrors the encoder: at each resolution both have the same number of channels.
"""

from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.encoders.plain import PlainEncoder
from jaxseg.nn import ConvTransposeNormAct, Layers, max_pool, pad_to_multiple


class TransposedDecoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h·2^(n-i),w·2^(n-i),widths[i]], finest first: n transposed convolutions of stride 2.

    Children: "stage{i}" with "up" (no bias before a norm) and "norm".
    """

    widths: tuple[int, ...]
    kernel_size: int = 3
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        features = []
        for i in reversed(range(len(self.widths))):
            up = ConvTransposeNormAct(self.widths[i], self.kernel_size, 2, common=self.common, name=f"stage{i}")
            x = up(x, train=train)
            features.insert(0, x)
        return tuple(features)


class EncoderDecoder(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of the encoder's convolutions, each followed by 2x2 max-pooling; the decoder's mirror them.
        convs: convolutions of each encoder stage.
        up_kernel: side of the transposed convolutions: 2, 3 or 4.
        dropout: rate of the dropout that ends the two deepest stages of the encoder, as in U-Net's.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128)
    convs: int = 1
    up_kernel: Literal[2, 3, 4] = 3
    dropout: Share = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        x, size = pad_to_multiple(image, 2 ** len(self.widths))
        encoder = PlainEncoder(self.widths, self.convs, self.dropout, common=self.common, name="encoder")
        pyramid = encoder(x, train=train)
        bottom = max_pool(pyramid[-1], 2)
        decoded = TransposedDecoder(self.widths, self.up_kernel, self.common, name="decoder")(bottom, train=train)
        logits = to_logits(decoded[0], self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

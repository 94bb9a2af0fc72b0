"""The plain convolutional encoder-decoder: no skips, no residuals, the baseline of the project's tables.

Encoder: convolution 64, pooling, convolution 128, pooling. Decoder: stride-2 transposed convolutions back to the
image's size, the learned up-sampling of Noh et al. (2015, "Learning Deconvolution Network", section 3.2.2). The decoder
mirrors the encoder: at each resolution both have the same number of channels.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.encoders.plain import PlainEncoder
from jaxseg.nn import ConvTransposeNormAct, make_norm, max_pool, pad_to_multiple
from jaxseg.types import Activation, NormFactory


class TransposedDecoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h·2^(n-i),w·2^(n-i),widths[i]], finest first: n transposed convolutions of stride 2.

    Children: "stage{i}" with "up" (no bias before a norm) and "norm".
    """

    widths: tuple[int, ...]
    kernel_size: int = 3
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype}
        features = []
        for i in reversed(range(len(self.widths))):
            x = ConvTransposeNormAct(self.widths[i], self.kernel_size, 2, **layers, name=f"stage{i}")(x, train=train)
            features.insert(0, x)
        return tuple(features)


class EncoderDecoder(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of the encoder's convolutions, each followed by 2x2 max-pooling; the decoder's mirror them.
        convs: convolutions of each encoder stage.
        up_kernel: side of the transposed convolutions: 2, 3 or 4.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128)
    convs: int = 1
    up_kernel: Literal[2, 3, 4] = 3
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype}
        x, size = pad_to_multiple(image, 2 ** len(self.widths))
        pyramid = PlainEncoder(self.widths, self.convs, **layers, name="encoder")(x, train=train)
        bottom = max_pool(pyramid[-1], 2)
        decoded = TransposedDecoder(self.widths, self.up_kernel, **layers, name="decoder")(bottom, train=train)
        logits = to_logits(decoded[0], self.num_classes, x.shape[1:3], size, dtype=self.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

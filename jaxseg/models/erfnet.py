"""ERFNet (Romera, Álvarez, Bergasa and Arroyo 2018, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time
Semantic Segmentation", IEEE Transactions on Intelligent Transportation Systems 19(1)).

Residual blocks whose 3x3 convolutions are factorised into 3x1 and 1x3 (Fig. 2c), in an encoder of stride 8 and a small
decoder of transposed convolutions (Table I). With 20 classes it has the paper's 2.1 million parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import name_stages
from jaxseg.nn import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    ConvTransposeNormAct,
    Dropout,
    Layers,
    crop_to,
    is_identity,
    max_pool,
    pad_to_multiple,
)


class PooledConv(nn.Module):
    """f[b,h,w,c] -> f[b,h/2,w/2,features], h and w even: a 3x3 convolution of stride 2 beside max-pooling.

    The convolution gives the features that the pooling, which keeps the channels, lacks (at least one); norm and
    activation follow. Children: "conv", "norm".
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common = self.common
        init = {"dtype": common.dtype, "kernel_init": common.kernel_init, "use_bias": is_identity(common.norm)}
        y = Conv(max(1, self.features - x.shape[-1]), stride=2, **init, name="conv")(x)
        y = jnp.concatenate([y, max_pool(x).astype(y.dtype)], axis=-1)
        return common.activate(common.normalise(y, "norm", train=train))


class FactorisedBlock(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,c]: the non-bottleneck-1D (Fig. 2c).

    3x1, 1x3, and the same with an atrous rate; an activation follows each, and a norm precedes that of the 1x3 ones.
    Children: "tall1", "wide1", "tall2", "wide2" (the wide ones are `ConvNormAct`s), "dropout".
    """

    rate: int = 1
    dropout: float = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        common, c, h = self.common, x.shape[-1], x
        init = {"dtype": common.dtype, "kernel_init": common.kernel_init}
        for i, rate in ((1, 1), (2, self.rate)):
            h = common.activate(Conv(c, (3, 1), dilation=rate, **init, name=f"tall{i}")(h))
            layers = common if i == 1 else common.replace(act=None)
            h = ConvNormAct(c, (1, 3), dilation=rate, common=layers, name=f"wide{i}")(h, train=train)
        h = Dropout(self.dropout, axis_name=common.axis_name, spatial=True, name="dropout")(h, train=train)
        return common.activate(h + x)


class FactorisedStage(nn.Module):
    """`FactorisedBlock`s of these atrous rates: f[b,h,w,c] -> f[b,h,w,c]. Children: "block1", "block2", ..."""

    rates: tuple[int, ...]
    dropout: float = 0.0
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, rate in enumerate(self.rates, start=1):
            x = FactorisedBlock(rate, self.dropout, common=self.common, name=f"block{i}")(x, train=train)
        return x


class ERFNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of 8.

    Attributes:
        num_classes: k.
        widths: channels at strides 2, 4 and 8.
        blocks: factorised blocks at stride 4 of the encoder.
        rates: atrous rates of those at stride 8.
        decoder_blocks: factorised blocks of each level of the decoder.
        dropout: rate at which channels are dropped at the end of a block at stride 8; a tenth of it at stride 4.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, int, int] = (16, 64, 128)
    blocks: int = 5
    rates: tuple[int, ...] = (2, 4, 8, 16, 2, 4, 8, 16)
    decoder_blocks: int = 2
    dropout: Share = 0.3
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        common = self.common
        x, size = pad_to_multiple(image, 8)
        fine, middle, coarse = self.widths
        one = PooledConv(fine, common=common, name="down0")(x, train=train)
        x = PooledConv(middle, common=common, name="down1")(one, train=train)
        two = FactorisedStage((1,) * self.blocks, self.dropout / 10, common=common, name="stage1")(x, train=train)
        x = PooledConv(coarse, common=common, name="down2")(two, train=train)
        three = FactorisedStage(self.rates, self.dropout, common=common, name="stage2")(x, train=train)
        decoded: list[jax.Array] = []
        x = three
        for i, features in ((1, middle), (0, fine)):
            x = ConvTransposeNormAct(features, 3, 2, common=common, name=f"up{i}")(x, train=train)
            x = FactorisedStage((1,) * self.decoder_blocks, common=common, name=f"decode{i}")(x, train=train)
            decoded.insert(0, x)
        logits = ConvTranspose(self.num_classes, 2, 2, dtype=common.dtype, name="head")(x).astype(jnp.float32)
        stages = name_stages(encoder=(one, two, three), decoder=decoded)
        return crop_to(logits, size), {"aux": (), **stages}

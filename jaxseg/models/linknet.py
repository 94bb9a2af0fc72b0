"""LinkNet (Chaurasia and Culurciello 2017, "LinkNet: Exploiting Encoder Representations", arXiv 1707.03718).

Decoder blocks squeeze the channels to a quarter, enlarge, and widen to the encoder's channels of the next level, whose
features are then added (Fig. 1, Fig. 3). Over ResNet-18 the paper counts 11.5 million parameters (Table II).

The form of segmentation_models_pytorch's `Linknet` is `finest=2`, `up_kernel=4`, `ending="block"`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, ConvTranspose, ConvTransposeNormAct, Layers, crop_to, pad_to_multiple


class LinkNetBlock(nn.Module):
    """f[b,h,w,c] -> f[b,h*factor,w*factor,features] by way of c/4 channels (Fig. 3).

    The transposed convolution keeps its bias before the norm, as in the authors' code and in
    segmentation_models_pytorch. Children: "reduce", "up", "expand".
    """

    features: int
    factor: int = 2
    up_kernel: int = 3
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        width = max(1, x.shape[-1] // 4)
        x = ConvNormAct(width, 1, common=self.common, name="reduce")(x, train=train)
        # With a kernel smaller than its stride, some pixels would get no value.
        kernel = max(self.up_kernel, self.factor)
        x = ConvTransposeNormAct(width, kernel, self.factor, use_bias=True, common=self.common, name="up")(
            x, train=train
        )
        return ConvNormAct(self.features, 1, common=self.common, name="expand")(x, train=train)


class LinkNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k.
        width: channels at the end, before the classes.
        finest: the smallest stride whose features are linked.
        up_kernel: side of the transposed convolutions' kernels in the decoder blocks.
        ending: the layers from the finest linked level to the image's resolution. "full_conv", the paper's: a decoder
            block that does not enlarge, a transposed 3x3 convolution, a 3x3 convolution, and a transposed convolution
            to the classes; the transposed convolutions share the stride. "block": decoder blocks and a 1x1 convolution.
        encoder: an `EncoderFactory`; the paper's is ResNet-18.
    """

    num_classes: int
    width: int = 32
    finest: int = 4
    up_kernel: Literal[2, 3, 4] = 3
    ending: Literal["full_conv", "block"] = "full_conv"
    encoder: EncoderFactory = encoders.factory("resnet18")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common)
        image, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(image, train=train)
        levels, strides = coarse_levels("LinkNet", pyramid, encoder.strides, self.finest)

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            factor = strides[i + 1] // strides[i]
            block = LinkNetBlock(skip.shape[-1], factor, self.up_kernel, common=self.common, name=f"block{i + 1}")
            return block(x, train=train) + skip

        decoded = walk_up(stage, levels)
        end = self._end_in_convolutions if self.ending == "full_conv" else self._end_in_blocks
        logits = end(decoded[0] if decoded else levels[-1], strides[0], train=train)
        return crop_to(logits, size), {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

    def _end_in_convolutions(self, x: jax.Array, stride: int, *, train: bool) -> jax.Array:
        """The paper's Fig. 1 below "decoder block 1", for any stride of the finest linked level."""
        x = LinkNetBlock(x.shape[-1], 1, self.up_kernel, common=self.common, name="block0")(x, train=train)
        factor = 2 if stride % 2 == 0 else 1
        x = ConvTransposeNormAct(self.width, 3, factor, use_bias=True, common=self.common, name="up")(x, train=train)
        x = ConvNormAct(self.width, common=self.common, name="conv")(x, train=train)
        factor = stride // factor
        head = ConvTranspose(self.num_classes, factor, factor, dtype=self.common.dtype, name="head")
        return head(x).astype(jnp.float32)

    def _end_in_blocks(self, x: jax.Array, stride: int, *, train: bool) -> jax.Array:
        """Decoder blocks by a factor of 2 each; the last one has `width` channels, the others keep theirs."""
        steps = stride.bit_length() - 1
        for i in range(steps):
            features = self.width if i == steps - 1 else x.shape[-1]
            x = LinkNetBlock(features, 2, self.up_kernel, common=self.common, name=f"full{steps - 1 - i}")(
                x, train=train
            )
        return to_logits(x, self.num_classes, x.shape[1:3], dtype=self.common.dtype)

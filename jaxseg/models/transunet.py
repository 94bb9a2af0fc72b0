"""TransUNet (Chen et al. 2021, "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation").

A vision transformer reads the coarsest level of a convolutional encoder, each of whose pixels is a patch (section 3.2,
"CNN-Transformer Hybrid as Encoder"), and U-Net's decoder enlarges the result beside the finer levels (Fig. 1). The
paper's encoder is a ResNet-50 of three stages of 3, 4 and 9 units, the encoder `resnet50_three_stages`; ours is of the
first version, with batch norm.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import check_widths, decoder_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.vit import ViT
from jaxseg.models.unet import UNetDecoder
from jaxseg.models.vit_adapter import WithAdapter
from jaxseg.nn import ConvNormAct, Layers, pad_to_multiple


class TransUNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k.
        widths: channels of each level of the decoder, finest first, that of the image's size included; those beyond its
            levels are not used. The paper's are the first four.
        bottom: channels that a convolution brings the transformer's result to.
        width, depth, num_heads, grid, drop_path: of the transformer (`encoders.vit.ViT`); `grid` is the size of its
            table of positions, which is resized to that of the features.
        encoder: a convolutional encoder (an `EncoderFactory`).
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: if there are fewer widths than levels, or the encoder is a vision transformer.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 64, 128, 256, 512)
    bottom: int = 512
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    grid: tuple[int, int] = (14, 14)
    drop_path: Share = 0.0
    encoder: EncoderFactory = encoders.factory("resnet50_three_stages")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        if hasattr(encoder, "pyramid_width") or isinstance(encoder, WithAdapter):
            raise ValueError("transunet has a transformer of its own; give it a convolutional encoder.")
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        transformer = ViT(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            patch=1,
            grid=self.grid,
            class_token=False,
            taps=(self.depth,),
            drop_path=self.drop_path,
            common=self.common,
            name="transformer",
        )
        (seen,) = transformer(pyramid[-1], train=train)
        bottom = ConvNormAct(self.bottom, common=self.common, name="bottom")(seen, train=train)
        skips, strides, added = decoder_levels(
            (*pyramid[:-1], bottom), encoder.strides, x.shape[1:3], full_resolution=True, full_skip=True
        )
        check_widths("TransUNet", self.widths, len(skips))
        decoder = UNetDecoder(
            self.widths[: len(skips) - 1], strides, added, up="bilinear", common=self.common, name="decoder"
        )
        decoded = decoder(skips, train=train)
        top = (*decoded, bottom)[0]
        logits = to_logits(top, self.num_classes, x.shape[1:3], size, kernel_size=3, dtype=self.common.dtype)
        full = {f"decoder/full{i}": x for i, x in enumerate(decoded[:added])}
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded[added:]), **full}

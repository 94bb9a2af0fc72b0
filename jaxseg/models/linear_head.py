"""A linear head: one classifier of an encoder's features, enlarged bilinearly (Oquab et al. 2024, DINOv2, section 7.4).

What a frozen vision transformer already knows of the classes of pixels shows in it. DINOv2's "linear" reads the last
block. The blocks of its "+ms", the last four side by side, are `levels=4` over an encoder that has them as its `taps`,
of a ViT-B `encoder_args={"taps": (9, 10, 11, 12)}`: the default taps are 3, 6, 9 and 12. DINOv2's own head has a batch
norm before its classifier, which is missing here, and the rest of "+ms" was not compared.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Dropout, Layers, pad_to_multiple, resize


class LinearHead(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Over a vision transformer `norm` and `act` have no effect: there is no layer between encoder and classifier, and
    normalised levels are the encoder's `norm_levels`.

    Attributes:
        num_classes: k.
        levels: the number of levels that the classifier reads, from the coarsest (of a vision transformer: the last)
            on, brought to the size of the finest of them.
        dropout: rate before the classifier.
        encoder: an encoder (an `EncoderFactory`); a vision transformer gives its own levels, without a pyramid.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: for more levels than the encoder has.
    """

    num_classes: int
    levels: int = 1
    dropout: Share = 0.0
    encoder: EncoderFactory = encoders.factory("vit_base_dinov2")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        if self.levels > len(pyramid):
            raise ValueError(
                f"linear_head.levels={self.levels} is more than the {counted(len(pyramid), 'level')} of the encoder."
            )
        read = pyramid[-self.levels :]
        y = jnp.concatenate([resize(level, read[0].shape[1:3]) for level in read], axis=-1)
        y = Dropout(self.dropout, self.common.axis_name, name="dropout")(y, train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid)}

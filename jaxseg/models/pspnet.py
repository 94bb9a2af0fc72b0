"""PSPNet (Zhao, Shi, Qi, Wang and Jia 2017, "Pyramid Scene Parsing Network", arXiv 1612.01105).

The last features of a dilated ResNet (output stride 8) are concatenated with their means over grids of side 1, 2, 3 and
6 (section 3.2, Fig. 3); a 3x3 convolution and the classifier follow. The stage before the last has an auxiliary head
(section 3.3). Widths, dropout and the up-sampling with aligned corners are those of the authors' code.

The form of segmentation_models_pytorch's `PSPNet` is `fuse_kernel=1`, `head_kernel=3`, `norm_single=False`,
`dropout=.2`, `aux_width=None`.
"""

from typing import Any, Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import auxiliary_logits, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, Dropout, Layers, PyramidPooling


class PSPNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        width: channels after the fusion.
        bins: sides of the grids; each gets the share 1 / len(bins) of the encoder's last channels.
        fuse_kernel: side of the kernel that fuses the grids.
        head_kernel: side of the last convolution's kernel.
        norm_single: whether the mean over the whole image is normalised like the other grids.
        align_corners: of every up-sampling; True in the authors' code.
        dropout: rate at which channels are dropped before the logits, also in the auxiliary head.
        aux_width: channels of the auxiliary head on the second coarsest level, with a loss weight of .4 in the paper;
            None: no such head.
        encoder: an `EncoderFactory`; the paper's is ResNet-50 or deeper at output stride 8.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 512
    bins: tuple[int, ...] = (1, 2, 3, 6)
    fuse_kernel: Literal[1, 3] = 3
    head_kernel: Literal[1, 3] = 1
    norm_single: bool = True
    align_corners: bool = True
    dropout: Share = 0.1
    aux_width: int | None = 256
    encoder: EncoderFactory = encoders.factory("resnet50", output_stride=8)
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid_name="levels")  # "pyramid" is the pooling
        size = image.shape[1:3]
        pyramid = encoder(image, train=train)
        share = max(1, pyramid[-1].shape[-1] // len(self.bins))
        x = PyramidPooling(share, self.bins, self.norm_single, self.align_corners, common=self.common, name="pyramid")(
            pyramid[-1], train=train
        )
        fused = ConvNormAct(self.width, self.fuse_kernel, common=self.common, name="fuse")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.common.axis_name, spatial=True, name="dropout")(fused, train=train)
        logits = to_logits(
            x,
            self.num_classes,
            size,
            kernel_size=self.head_kernel,
            align_corners=self.align_corners,
            dtype=self.common.dtype,
        )
        aux = auxiliary_logits(self, pyramid, size, self.aux_width, self.dropout, self.align_corners, train=train)
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=(fused,))}

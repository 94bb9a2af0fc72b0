"""FCN-32s, 16s and 8s (Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation").

A classifier in convolutional form (section 3.1): a 7x7 and a 1x1 convolution, "fc6" and "fc7", replace the dense layers
of VGG-16, and a 1x1 convolution scores each coarse pixel. Finer levels have their own 1x1 convolutions, whose scores
are added to the coarser scores after a transposed convolution of stride 2 (section 4.2, Fig. 3). The transposed
convolutions start as bilinear interpolation and are learned; the last up-sampling, to the image, stays bilinear, as in
the authors' network. The paper has no normalisation: `norm="none"` is its network, in which the weights of a VGG also
initialise "fc6" and "fc7". The authors pad the image by 100 pixels so that the 7x7 kernel fits; here "fc6" is padded.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import ConvNormAct, ConvTranspose, Dropout, Layers, classifier, crop_to, pad_to_multiple, resize
from jaxseg.nn.conv import near_zero


def bilinear(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """The kernel f[2s,2s,k,k] with which a transposed convolution of stride s interpolates each class bilinearly."""
    del key
    side = shape[0]
    tent = 1 - np.abs((np.arange(side) + 0.5) / (side / 2) - 1)
    return jnp.asarray(tent[:, None, None, None] * tent[:, None, None] * np.eye(shape[2], shape[3]), dtype)


class FCN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    With VGG-16, norm="none" and k = 21, FCN-32s has 134,346,581 parameters (the paper: 134 M, Table 1) and FCN-8s
    134,376,863.

    Attributes:
        num_classes: k.
        stride: image pixels per score pixel before the last up-sampling: FCN-32s, 16s or 8s, or finer. Every resolution
            of the encoder, from its coarsest to this one, is scored.
        hidden: channels of "fc6" and "fc7".
        hidden_kernel: side of the kernel of "fc6", odd.
        dropout: rate after "fc6" and "fc7".
        last_up: "fixed": bilinear interpolation brings the scores to the image's size. "learned": a transposed
            convolution that starts as bilinear interpolation.
        encoder: any encoder that has a level at `stride`. The default is VGG-16 with the result of each pooling as a
            level, since the paper scores pool3 and pool4; any VGG has these levels, and at `stride` 1, which no pooling
            has, needs encoder_args={"levels": "convolved"}. Other encoders give the last features of each stride.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    stride: Literal[1, 2, 4, 8, 16, 32] = 8
    hidden: int = 4096
    hidden_kernel: int = 7
    dropout: Share = 0.5
    last_up: Literal["fixed", "learned"] = "fixed"
    encoder: EncoderFactory = encoders.factory("vgg16", levels="pooled")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        if self.hidden_kernel % 2 == 0:
            raise ValueError(f"FCN: hidden_kernel must be odd, got {self.hidden_kernel}.")
        encoder = make_encoder(self.encoder, self.common)
        levels = {stride: i for i, stride in enumerate(encoder.strides)}  # the last level of each stride
        if self.stride not in levels:
            raise ValueError(f"FCN: the encoder has no level of stride {self.stride}, only {tuple(levels)}.")
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)

        y = pyramid[-1]
        for name, kernel in (("fc6", self.hidden_kernel), ("fc7", 1)):
            y = ConvNormAct(self.hidden, kernel, common=self.common, name=name)(y, train=train)
            y = Dropout(self.dropout, axis_name=self.common.axis_name, name=f"dropout_{name}")(y, train=train)
        score = classifier(self.num_classes, kernel_init=near_zero, dtype=self.common.dtype, final=False)
        scores = [score(y).astype(jnp.float32)]
        coarse = encoder.strides[-1]
        for stride in sorted((s for s in levels if self.stride <= s < coarse), reverse=True):
            # Zero at first, so that the network starts from the coarser one's predictions (section 4.2).
            skip = classifier(
                self.num_classes,
                kernel_init=nn.initializers.zeros_init(),
                dtype=self.common.dtype,
                final=False,
                name=f"score{stride}",
            )(pyramid[levels[stride]])
            scores.append(self._up(coarse // stride, f"up{stride}", scores[-1]) + skip.astype(jnp.float32))
            coarse = stride

        if self.last_up == "learned" and coarse > 1:
            logits = self._up(coarse, "up1", scores[-1])
        else:
            logits = resize(scores[-1], x.shape[1:3])
        stages = name_stages(encoder=pyramid, scores=scores[::-1])
        return crop_to(logits, size), {"aux": (), **stages, "hidden": y}

    def _up(self, factor: int, name: str, scores: jax.Array) -> jax.Array:
        return ConvTranspose(
            self.num_classes, 2 * factor, factor, use_bias=False, dtype=jnp.float32, kernel_init=bilinear, name=name
        )(scores)

"""DeepLab v2 (Chen et al. 2017, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous ...").

Atrous spatial pyramid pooling (section 3.2, Figs. 4 and 7): the last features, at stride 8, are scored by parallel
branches whose 3x3 convolutions have different rates, and the scores are summed. On VGG-16 a branch is the "fc6", "fc7",
"fc8" of DeepLab-LargeFOV (the default here, ASPP-L); on ResNet-101 it is a single 3x3 convolution to the classes
(hidden=None), as in the authors' release. The dense CRF and the maximum over three scales work on the network's result
and are not part of it. The paper has no normalisation after VGG-16: `norm="none"` is its network.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, LargeFOV, classifier, crop_to, make_norm, pad_to_multiple, resize
from jaxseg.nn.conv import near_zero
from jaxseg.types import Activation, NormFactory


class AtrousBranch(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,k]: scores under one atrous rate. Children: "fov" (where it has hidden layers), "score"."""

    num_classes: int
    rate: int
    hidden: int | None = 1024
    dropout: float = 0.5
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if self.hidden is None:
            return Conv(self.num_classes, 3, dilation=self.rate, dtype=self.dtype, kernel_init=near_zero, name="score")(
                x
            )
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype, "axis_name": self.axis_name}
        x = LargeFOV(self.hidden, self.rate, self.dropout, **layers, name="fov")(x, train=train)
        return classifier(self.num_classes, kernel_init=near_zero, dtype=self.dtype, name="score")(x)


class ScorePyramid(nn.Module):
    """f[b,h,w,c] -> f32[b,h,w,k]: the sum of the scores of all rates. Children: "branch0", "branch1", ..."""

    num_classes: int
    rates: tuple[int, ...] = (6, 12, 18, 24)
    hidden: int | None = 1024
    dropout: float = 0.5
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype, "axis_name": self.axis_name}
        scores = jnp.zeros((*x.shape[:3], self.num_classes), jnp.float32)
        for i, rate in enumerate(self.rates):
            branch = AtrousBranch(self.num_classes, rate, self.hidden, self.dropout, **layers, name=f"branch{i}")
            scores += branch(x, train=train).astype(jnp.float32)
        return scores


class DeepLabV2(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        rates: atrous rates of the branches; (6, 12, 18, 24) is the paper's ASPP-L, (2, 4, 8, 12) its ASPP-S.
        hidden: channels of "fc6" and "fc7" of each branch; None: each branch is one convolution to the classes.
        dropout: rate after each hidden layer.
        encoder: any encoder; its last level is scored. The paper's other one is encoder="resnet101",
            encoder_args={"output_stride": 8} with hidden=None.
        axis_name: mapped axis over which dropout is drawn.
    """

    num_classes: int
    rates: tuple[int, ...] = (6, 12, 18, 24)
    hidden: int | None = 1024
    dropout: float = 0.5
    encoder: EncoderFactory = encoders.factory("vgg16", output_stride=8)
    norm: NormFactory = make_norm("batch")
    act: Activation = jax.nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        layers = {"norm": self.norm, "act": self.act, "dtype": self.dtype}
        encoder = make_encoder(self.encoder, **layers)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        head = ScorePyramid(
            self.num_classes, self.rates, self.hidden, self.dropout, **layers, axis_name=self.axis_name, name="head"
        )
        logits = resize(head(pyramid[-1], train=train), x.shape[1:3])
        return crop_to(logits, size), {"aux": (), **name_stages(encoder=pyramid)}

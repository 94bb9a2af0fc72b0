"""A plain CNN classifier in fully convolutional form, the smallest segmentation network.

The layers are those of a textbook digit classifier: convolution 32, pooling, convolution 64, pooling, dropout, a dense
hidden layer and a dense output. Long, Shelhamer and Darrell (2015, "Fully Convolutional Networks", section 3.1 and
Fig. 2) show how it segments: a dense layer over a feature map is a convolution whose kernel covers the map
(7x7 for a 28x28 image after two poolings), a dense layer after it a 1x1 convolution, and the coarse scores are
up-sampled bilinearly.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.models.encoders.plain import PlainEncoder
from jaxseg.nn import ConvNormAct, Dropout, Layers, max_pool, pad_to_multiple


class CNN(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        widths: channels of the convolutions, each followed by 2x2 max-pooling.
        dropout: rate after the last pooling.
        hidden: channels of the classifier's hidden layer.
        hidden_kernel: side of the hidden layer's convolution, odd.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64)
    dropout: Share = 0.5
    hidden: int = 128
    hidden_kernel: int = 7
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        if self.hidden_kernel % 2 == 0:
            raise ValueError(f"CNN: hidden_kernel must be odd, got {self.hidden_kernel}.")
        x, size = pad_to_multiple(image, 2 ** len(self.widths))
        pyramid = PlainEncoder(self.widths, convs=1, common=self.common, name="encoder")(x, train=train)
        y = max_pool(pyramid[-1], 2)
        y = Dropout(self.dropout, axis_name=self.common.axis_name, name="dropout")(y, train=train)
        y = ConvNormAct(self.hidden, kernel_size=self.hidden_kernel, common=self.common, name="hidden")(y, train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid), "hidden": y}

"""PointRend (Kirillov, Wu, He and Girshick 2020, "PointRend: Image Segmentation as Rendering"), of classes of pixels.

A coarse network predicts every pixel of a small grid; a perceptron predicts single points from the coarse prediction
and the fine features there (section 3.3). Training takes points at which the coarse prediction is uncertain (section
3.2). Inference enlarges the prediction by 2 until it has the size of the image, and predicts the least certain pixels
anew each time (section 3.1, Fig. 4). The coarse networks are those of the paper's section 5, Semantic FPN, whose finest
level has the fine features, and DeepLabV3, where they are the encoder's at stride 4. Train it with the loss
`cross_entropy + point_cross_entropy`: the first is of the coarse prediction, the second of the points.
"""

import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import AtLeastOne, Count, Share, at_least
from jaxseg.models import encoders
from jaxseg.models.assembly import coarse_levels, make_encoder, name_stages, to_logits
from jaxseg.models.deeplabv3 import atrous_features
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.fpn import semantic_features
from jaxseg.nn import Dense, Layers, keys_of_examples, resize
from jaxseg.nn.initializers import he_normal, normal
from jaxseg.nn.ops.points import choose_points, refine, sample_points


class PointHead(nn.Module):
    """(fine f[b,n,c], coarse f[b,n,k]) -> f32[b,n,k]: the logits of points (section 3.3).

    A perceptron with the same weights for every point; each of its layers reads the coarse prediction beside the result
    of the layer before. Children: "dense1", "dense2", ..., "score".

    Attributes:
        num_classes: k.
        features: channels of each hidden layer.
        layers: their number.
        common: activation and dtype.
    """

    num_classes: int
    features: int = 256
    layers: int = 3
    common: Layers = Layers()

    @nn.compact
    def __call__(self, fine: jax.Array, coarse: jax.Array) -> jax.Array:
        dtype, x = self.common.dtype, fine
        coarse = coarse.astype(fine.dtype)
        for i in range(1, self.layers + 1):
            x = jnp.concatenate([x, coarse], axis=-1)
            x = self.common.activate(Dense(self.features, dtype=dtype, kernel_init=he_normal, name=f"dense{i}")(x))
        x = jnp.concatenate([x, coarse], axis=-1)
        small = normal(0.001)  # as in the authors' code
        return Dense(self.num_classes, dtype=dtype, kernel_init=small, name="score")(x).astype(jnp.float32)


class PointRend(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    In training the logits are the enlarged coarse prediction, in evaluation the refined one. `out["points"]` is (logits
    f32[b,n,k], points f32[b,n,2]), which the loss term `point_cross_entropy` reads: in training the n points that the
    step draws, of the stream "dropout", in evaluation those of the last subdivision.

    Attributes:
        num_classes: k.
        coarse: the coarse network. "fpn": Semantic FPN, which adds convolutions of all levels. "deeplabv3": atrous
            pyramid pooling of the last level; the paper's encoder has output stride 16.
        width: channels of the feature pyramid, or of the atrous pyramid pooling.
        branch_width: channels of the branches of Semantic FPN.
        finest: the smallest stride whose level takes part, that of the fine features.
        rates: of "deeplabv3": atrous rates; None: 6, 12, 18 at output stride 16, 12, 24, 36 at 8.
        separable: of "deeplabv3": whether the atrous convolutions are separable.
        head_conv: of "deeplabv3": whether a 3x3 convolution precedes the coarse prediction.
        dropout: rate before the coarse prediction.
        hidden: channels of the hidden layers of the perceptron.
        layers: their number.
        points: n, points of each image in a training step.
        oversampling: k of the paper: candidates for the uncertain points, over n.
        importance: β of the paper: the share of uncertain points; the others are uniform.
        refined_points: points of each image in each subdivision, at most all of its pixels.
        encoder: an `EncoderFactory`; the paper's are ResNet-101 and 103.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    coarse: Literal["fpn", "deeplabv3"] = "fpn"
    width: int = 256
    branch_width: int = 128
    finest: int = 4
    rates: tuple[int, ...] | None = None
    separable: bool = False
    head_conv: bool = False
    dropout: Share = 0.0
    hidden: int = 256
    layers: Annotated[int, at_least(0)] = 3
    points: Count = 2048
    oversampling: AtLeastOne = 3.0
    importance: Share = 0.75
    refined_points: Count = 8192
    encoder: EncoderFactory = encoders.factory("resnet50")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder, size = make_encoder(self.encoder, self.common), image.shape[1:3]
        pyramid = encoder(image, train=train)
        taken, strides = coarse_levels("PointRend", pyramid, encoder.strides, self.finest)
        if self.coarse == "fpn":
            x, levels, _ = semantic_features(
                taken, self.width, self.branch_width, dropout=self.dropout, common=self.common, train=train
            )
            fine, stride, decoder = levels[0], strides[0], levels
        else:
            _, x = atrous_features(self, taken[-1], strides[-1], train=train)
            fine, stride, decoder = taken[0], strides[-1], (x,)
        coarse = to_logits(x, self.num_classes, x.shape[1:3], dtype=self.common.dtype, final=False)
        head = PointHead(self.num_classes, self.hidden, self.layers, self.common, name="points")

        def predict(points: jax.Array) -> jax.Array:
            return head(sample_points(fine, points), sample_points(coarse, points))

        if train:
            drawn = choose_points(coarse, self._draw(len(image)), self.points, round(self.importance * self.points))
            logits, found = resize(coarse, size), (predict(drawn), drawn)
        else:
            logits, found = coarse, None
            for enlarged in _subdivisions(size, stride):
                logits, found = refine(resize(logits, enlarged), self.refined_points, predict)
        return logits, {"aux": (), "points": found, **name_stages(encoder=pyramid, decoder=decoder)}

    def _draw(self, images: int) -> jax.Array:
        """Returns uniform points f32[images,m,2]: the candidates, then those that are taken as they are."""
        uncertain = round(self.importance * self.points)
        candidates = max(uncertain, round(self.oversampling * self.points))
        shape = (candidates + self.points - uncertain, 2)
        keys = keys_of_examples(self, "dropout", images, self.common.axis_name)
        return jax.vmap(lambda key: jax.random.uniform(key, (shape[0] * 2,)))(keys).reshape(-1, *shape)


def _subdivisions(size: tuple[int, ...], stride: float) -> list[tuple[int, ...]]:
    """Returns the heights and widths of a prediction of this stride that is enlarged by 2 to the image's, one or more.

    Where the size is not a multiple of the stride, each is the image's divided by a power of two, and rounded up.
    """
    steps = max(1, math.ceil(math.log2(stride)))
    return [tuple(-(-side // 2**i) for side in size) for i in reversed(range(steps))]

"""DDRNet (Hong, Pan, Sun and Jia 2021, "Deep Dual-Resolution Networks for Real-Time and Accurate Semantic Segmentation
of Road Scenes", arXiv 2101.06085).

Two branches share two stages and then run at strides 8 and 16 to 64 (Fig. 3, Table 1). After each of two stages they
exchange features: the coarse ones are enlarged and added to the fine ones, and the fine ones go down by convolutions of
stride 2 (equation 1). The coarse branch ends in `DAPPM`.

With 19 classes and without the auxiliary head, DDRNet-23-slim has the paper's 5.7 million parameters, and DDRNet-23
(`width=64`, `head_width=128`) 20.1.
"""

from typing import Any

import jax
from flax import linen as nn

from jaxseg.models.assembly import name_stages, to_logits
from jaxseg.nn import DAPPM, BasicBlock, BottleneckBlock, ConvNormAct, Layers, NormActConv, resize


class ResidualStage(nn.Module):
    """Residual blocks, of which the first has the stride and the last no activation: f[b,h,w,c] -> f[b,y,x,features].

    Children: "block1", "block2", ...

    Attributes:
        features: channels of the result.
        blocks: number of blocks.
        stride: of the first block.
        bottleneck: bottlenecks of half of the channels, instead of two 3x3 convolutions.
        first_act: whether the activation comes first, since the stage before has ended without one.
        linear_first: no activation after the first block either.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    blocks: int = 1
    stride: int = 1
    bottleneck: bool = False
    first_act: bool = False
    linear_first: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = self.common.activate(x) if self.first_act else x
        for i in range(self.blocks):
            linear = i == self.blocks - 1 or (i == 0 and self.linear_first)
            fields: dict[str, Any] = {"stride": self.stride if i == 0 else 1, "last_act": not linear}
            fields |= {"common": self.common, "name": f"block{i + 1}"}
            if self.bottleneck:
                x = BottleneckBlock(self.features, ratio=2, **fields)(x, train=train)
            else:
                x = BasicBlock(self.features, **fields)(x, train=train)
        return x


class PreActHidden(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: norm, activation, 3x3 convolution, norm, activation, before a classifier.

    Children: "conv" (a `NormActConv`), "norm".
    """

    features: int
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = NormActConv(self.features, common=self.common, name="conv")(x, train=train)
        return self.common.activate(self.common.normalise(x, "norm", train=train))


class DDRNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        width: channels of the stem; the coarse branch ends with 16 times as many, the fine one with 4 times.
        blocks: residual blocks of the two shared stages and of the two further ones of the coarse branch.
        pool_width: channels of each scale of the pooling.
        head_width: channels of the convolution before the logits.
        aux: an auxiliary head on the fine branch after the first exchange, in training, with a loss weight of .4 in the
            paper (section 3.4).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    width: int = 32
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    pool_width: int = 128
    head_width: int = 64
    aux: bool = True
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        common, w, size = self.common, self.width, image.shape[1:3]
        act, linear = common.activate, common.replace(act=None)

        def stage(x: jax.Array, features: int, name: str, **fields: Any) -> jax.Array:
            fields = {"first_act": True} | fields
            return ResidualStage(features, **fields, common=common, name=name)(x, train=train)

        def up(x: jax.Array, to: jax.Array, name: str) -> jax.Array:
            y = ConvNormAct(to.shape[-1], 1, common=linear, name=name)(act(x), train=train)
            return resize(y, to.shape[1:3])

        def down(x: jax.Array, features: int, name: str, layers: Layers = linear) -> jax.Array:
            return ConvNormAct(features, stride=2, common=layers, name=name)(x, train=train)

        x = down(down(image, w, "stem1", common), w, "stem2", common)
        shared = stage(x, w, "stage1", blocks=self.blocks[0], first_act=False)
        shared = stage(shared, 2 * w, "stage2", blocks=self.blocks[1], stride=2)
        low3 = stage(shared, 4 * w, "low3", blocks=self.blocks[2], stride=2)
        high = stage(shared, 2 * w, "high3", blocks=2)
        low = low3 + down(act(high), 4 * w, "down3")
        high3 = high + up(low3, high, "up3")
        low4 = stage(low, 8 * w, "low4", blocks=self.blocks[3], stride=2)
        high = stage(high3, 2 * w, "high4", blocks=2)
        low = low4 + down(down(act(high), 4 * w, "down4a", common), 8 * w, "down4b")
        high = high + up(low4, high, "up4")
        high = stage(high, 4 * w, "high5", bottleneck=True)
        low = stage(low, 16 * w, "low5", bottleneck=True, stride=2)
        context = DAPPM(4 * w, self.pool_width, common=common, name="pool")(low, train=train)
        joined = high + resize(context, high.shape[1:3])
        x = PreActHidden(self.head_width, common=common, name="hidden")(joined, train=train)
        logits = to_logits(x, self.num_classes, size, dtype=common.dtype)
        aux: tuple[jax.Array, ...] = ()
        if self.aux and (train or self.is_initializing()):
            y = PreActHidden(self.head_width, common=common, name="aux_hidden")(high3, train=train)
            aux = (to_logits(y, self.num_classes, size, dtype=common.dtype, name="aux"),)
        stages = name_stages(encoder=(shared, low3, low4, low), decoder=(joined,))
        return logits, {"aux": aux, **stages}

"""FC-DenseNet (Jegou et al. 2017, "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets").

A U of dense blocks: each layer of a block reads the features of all layers before it (equation 2), a transition down
follows each block of the encoder, a transition up precedes each block of the decoder, and skips join blocks of the same
resolution (Fig. 1). On the way up, a block passes on the features that it has added, not its input (section 3.1).

The layers follow Table 1; the networks follow section 3.3 and Table 2. The classifier reads all features of the last
block, as in Table 2 (m = 256) and the authors' release. Parameters with three channels and 11 classes:

| network | growth | layers | parameters | published |
|---|---|---|---|---|
| 56 | 12 | 11 blocks of 4 | 1,375,259 | 1.5 M |
| 67 | 16 | 11 blocks of 5 | 3,460,875 | 3.5 M |
| 103 | 16 | 4 5 7 10 12 15 12 10 7 5 4 | 9,318,859 | 9.4 M |

The published numbers of the last two include the norms' running statistics (3.50 and 9.42 M; 1.40 M for the first).
Convolutions have no bias, since every layer after them normalises or has a bias of its own; those of the release have.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.nn import Conv, ConvTranspose, Dropout, Layers, is_identity, max_pool, pad_to_multiple

# Depth -> (growth rate, layers of each block from the first of the encoder to the last of the decoder).
NETWORKS: dict[int, tuple[int, tuple[int, ...]]] = {
    56: (12, (4,) * 11),
    67: (16, (5,) * 11),
    103: (16, (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)),
}


class DenseLayer(nn.Module):
    """f[b,h,w,c] -> f[b,h,w,features]: norm, activation, convolution, dropout (Table 1 left and middle).

    Table 1's layer has a 3x3 convolution, its transition down a 1x1. Children: "norm", "conv".
    """

    features: int
    kernel_size: int = 3
    dropout: Share = 0.2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = self.common.activate(self.common.normalise(x, "norm", train=train))
        common = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        bias = is_identity(self.common.norm)
        x = Conv(self.features, self.kernel_size, use_bias=bias, **common, name="conv")(x)
        return Dropout(self.dropout, axis_name=self.common.axis_name)(x, train=train)


class DenseBlock(nn.Module):
    """f[b,h,w,c] -> (all f[b,h,w,c + l g], new f[b,h,w,l g]): l layers of growth g (Fig. 2).

    Children: "layer1", "layer2", ...
    """

    num_layers: int
    growth: int
    dropout: Share = 0.2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        new = []
        for i in range(self.num_layers):
            new.append(DenseLayer(self.growth, 3, self.dropout, self.common, name=f"layer{i + 1}")(x, train=train))
            # All later layers read these features. Without the barrier XLA repeats the sum of their gradients in each
            # operation that reads it, which makes compilation and training slower.
            x = jax.lax.optimization_barrier(jnp.concatenate([x, new[-1]], axis=-1))
        return x, jnp.concatenate(new, axis=-1)


class DenseEncoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]], finest first: the downsampling path and the bottleneck.

    Each level but the last is a skip, all features of a block; the last has the features that the bottleneck has added.
    Children: "stem", "stage{i}" (a block) and "down{i}" (the transition down before it).

    Attributes:
        layers: dense layers of each block, finest first; the last block is the bottleneck.
        growth: features that a layer adds.
        stem: features of the first convolution.
    """

    layers: tuple[int, ...] = (4, 5, 7, 10, 12, 15)
    growth: int = 16
    stem: int = 48
    dropout: Share = 0.2
    common: Layers = Layers()

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(2**i for i in range(len(self.layers)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        skips = [self.stem + self.growth * sum(self.layers[: i + 1]) for i in range(len(self.layers) - 1)]
        return (*skips, self.growth * self.layers[-1])

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        common = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        x = Conv(self.stem, use_bias=is_identity(self.common.norm), **common, name="stem")(x)
        pyramid = []
        for i, num_layers in enumerate(self.layers):
            if i > 0:
                x = DenseLayer(x.shape[-1], 1, self.dropout, self.common, name=f"down{i}")(x, train=train)
                x = max_pool(x, 2, ceil_mode=True)
            x, new = DenseBlock(num_layers, self.growth, self.dropout, self.common, name=f"stage{i}")(x, train=train)
            pyramid.append(new if i == len(self.layers) - 1 else x)
        return tuple(pyramid)


class DenseUpStage(nn.Module):
    """(f[b,h,w,c], skip f[b,2h,2w,s]) -> f[b,2h,2w,l g]: transition up (Table 1 right), concatenation, dense block.

    With everything=True the result is all features of the block, f[b,2h,2w,c + s + l g]. Children: "up", "block".
    """

    num_layers: int
    growth: int
    everything: bool = False
    dropout: Share = 0.2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        x = ConvTranspose(x.shape[-1], kernel_size=3, stride=2, dtype=self.common.dtype, name="up")(x)
        x = jnp.concatenate([x, skip], axis=-1)
        whole, new = DenseBlock(self.num_layers, self.growth, self.dropout, self.common, name="block")(x, train=train)
        return whole if self.everything else new


class DenseDecoder(nn.Module):
    """Pyramid (features finest first) -> decoder features finest first, one level fewer: the upsampling path.

    Attributes:
        layers: dense layers of each block, finest first.
        growth: features that a layer adds.
    """

    layers: tuple[int, ...]
    growth: int = 16
    dropout: Share = 0.2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:
        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            block = DenseUpStage(
                self.layers[i],
                self.growth,
                everything=i == 0,
                dropout=self.dropout,
                common=self.common,
                name=f"stage{i}",
            )
            return block(x, skip, train=train)

        return walk_up(stage, pyramid)


class FCDenseNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k.
        depth: the paper's network, by its number of layers: 56, 67 or 103.
        layers: dense layers of each block, from the first of the encoder over the bottleneck to the last of the
            decoder: an odd number of blocks, at least three. None: those of the depth.
        growth: features that a layer adds; None: that of the depth.
        stem: features of the first convolution (Table 2: 48).
        dropout: rate after each convolution of a layer or transition down (section 3.1: .2).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    depth: Literal[56, 67, 103] = 103
    layers: tuple[int, ...] | None = None
    growth: int | None = None
    stem: int = 48
    dropout: Share = 0.2
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        growth, layers = NETWORKS[self.depth]
        growth, layers = self.growth or growth, self.layers or layers
        if len(layers) < 3 or len(layers) % 2 == 0:
            raise ValueError(
                f"FCDenseNet: layers must be an odd number of blocks, at least 3 (down, bottleneck, up), got {layers}."
            )
        down = len(layers) // 2 + 1
        encoder = DenseEncoder(layers[:down], growth, self.stem, self.dropout, self.common, name="encoder")
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        decoded = DenseDecoder(layers[: down - 1 : -1], growth, self.dropout, self.common, name="decoder")(
            pyramid, train=train
        )
        logits = to_logits(decoded[0], self.num_classes, x.shape[1:3], size, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

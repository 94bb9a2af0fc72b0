"""HRNet (Wang et al. 2020, "Deep High-Resolution Representation Learning for Visual Recognition", Figs. 2 and 3).

Branches of several resolutions run in parallel and exchange their features; the finest branch goes from the stem to
the end. timm's hrnet_w18, w32 and w48 have 9,562,260, 29,305,536 and 65,325,120 parameters before their classifiers.
"""

from typing import Literal

import jax
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.nn import BARE, BasicBlock, BottleneckBlock, ConvNormAct, Layers, drop_rates, resize

Upsample = Literal["nearest", "bilinear"]


class ParallelBlocks(nn.Module):
    """Branches f[b,h/2^i,w/2^i,widths[i]] -> the same shapes: residual blocks in each, then the exchange (Fig. 3).

    Result i is the rectified sum over the branches j: j coarser is projected by a 1x1 convolution and up-sampled, j
    finer shrunk by i - j convolutions of stride 2. Children: "branch0_block1", ...; "fuse0_1" (to 0 from 1), and
    "fuse2_0_1", "fuse2_0_2", ... for the convolutions from a finer branch.

    Attributes:
        drop_path: rate of stochastic depth of each block of a branch; empty: 0.
    """

    widths: tuple[int, ...]
    blocks: int = 4
    upsample: Upsample = "nearest"
    drop_path: tuple[float, ...] = ()
    common: Layers = BARE

    @nn.compact
    def __call__(self, branches: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:
        inner = []
        for i, (x, features) in enumerate(zip(branches, self.widths, strict=True)):
            for k in range(self.blocks):
                rate, name = self.drop_path[k] if self.drop_path else 0.0, f"branch{i}_block{k + 1}"
                x = BasicBlock(features, drop_path=rate, common=self.common, name=name)(x, train=train)
            inner.append(x)
        return tuple(
            jax.nn.relu(sum(self._moved(inner, j, i, train=train) for j in range(len(inner))))
            for i in range(len(inner))
        )

    def _moved(self, branches: list[jax.Array], source: int, target: int, *, train: bool) -> jax.Array:
        """Branch `source` at the resolution and with the channels of branch `target`."""
        x, name = branches[source], f"fuse{target}_{source}"
        linear = self.common.replace(act=None)
        if source > target:
            x = ConvNormAct(self.widths[target], 1, common=linear, name=name)(x, train=train)
            return resize(x, branches[target].shape[1:3], self.upsample)
        for k in range(source, target):
            last = k == target - 1
            features, common = (self.widths[target], linear) if last else (self.widths[source], self.common)
            conv = ConvNormAct(features, stride=2, common=common, name=f"{name}_{k - source + 1}")
            x = conv(x, train=train)
        return x


class HRNet(nn.Module):
    """f[b,h,w,c] -> features f[b,h/s,w/s,width 2^i] at s = 4, 8, 16, 32, finest first; any h and w.

    Children: "stem1", "stem2", "block1", ...; then for n = 2, 3, 4 branches "transition{n}_{i}", which makes branch i,
    and "parallel{n}_{m}", the m-th `ParallelBlocks`.

    Attributes:
        width: channels of the finest branch, each coarser one having twice as many: 18, 32 or 48.
        stem: channels of the two convolutions of the stem; the bottlenecks after it give four times as many.
        bottlenecks: their number.
        modules: number of `ParallelBlocks` over two branches, over three, and so on; one more branch than entries.
        blocks: residual blocks of each branch in each of them.
        stem_stride: of the stem; 2 or 1 for small images: s = stem_stride 2^i.
        upsample: of the exchange: "nearest" is timm's, and that of the ImageNet weights; "bilinear" that of the
            authors' segmentation networks.
        drop_path: rate of stochastic depth of the last block of each branch; it grows linearly from 0 at the first
            bottleneck (Huang 2016).
    """

    width: int = 18
    stem: int = 64
    bottlenecks: int = 4
    modules: tuple[int, ...] = (1, 4, 3)
    blocks: int = 4
    stem_stride: Literal[1, 2, 4] = 4
    upsample: Upsample = "nearest"
    drop_path: Share = 0.0
    common: Layers = Layers()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * 2**i for i in range(len(self.modules) + 1))

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(self.stem_stride * 2**i for i in range(len(self.modules) + 1))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        common = self.common.replace(act=jax.nn.relu)
        for i, stride in enumerate({1: (1, 1), 2: (2, 1), 4: (2, 2)}[self.stem_stride]):
            x = ConvNormAct(self.stem, stride=stride, common=common, name=f"stem{i + 1}")(x, train=train)
        first, *others = drop_rates(self.drop_path, (self.bottlenecks, *(self.blocks,) * sum(self.modules)))
        for k in range(self.bottlenecks):
            block = BottleneckBlock(4 * self.stem, drop_path=first[k], common=common, name=f"block{k + 1}")
            x = block(x, train=train)
        conv = ConvNormAct(self.width, common=common, name="transition2_0")
        branches: tuple[jax.Array, ...] = (conv(x, train=train),)
        coarsest = x
        for n, modules in enumerate(self.modules, start=2):
            down = ConvNormAct(self.widths[n - 1], stride=2, common=common, name=f"transition{n}_{n - 1}")
            branches = (*branches, down(coarsest, train=train))
            for m in range(modules):
                branches = ParallelBlocks(
                    self.widths[:n],
                    self.blocks,
                    self.upsample,
                    others.pop(0),
                    common=common,
                    name=f"parallel{n}_{m + 1}",
                )(branches, train=train)
            coarsest = branches[-1]
        return branches

"""U^2-Net (Qin et al. 2020, "U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection").

A U-Net whose stages are U-Nets themselves (Fig. 5): a residual U-block RSU-L adds the features of a small U of L levels
to its input (Fig. 2e). The coarse stages have RSU-4F, which dilates in place of pooling. Each stage of the decoder and
the bottom give a score map, and the logits are a 1x1 convolution over all of them.

The defaults are U^2-Net, of 44.0 million parameters (Table 4) for one class; `widths` of 64 and `mids` of 16 are the
small U^2-Net†, of 1.13 million. Ours has no biases before batch norms, which are 14,400 and 2,848 of these.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.errors import counted
from jaxseg.models.assembly import name_stages, to_logits, walk_up
from jaxseg.nn import ConvNormAct, Layers, classifier, max_pool, resize

_DILATED_HEIGHT = 4  # of RSU-4F


class RSU(nn.Module):
    """A residual U-block (section 3.1): f[b,h,w,c] -> f[b,h,w,features], any h and w.

    Children: "in", "down1", ..., "down{height}" on the way down, "up{height - 1}", ..., "up1" on the way up.

    Attributes:
        features: channels of input convolution and result.
        mid: channels inside.
        height: L, the number of convolutions on the way down, of which the last two have the same size.
        dilated: whether dilation by 1, 2, 4, ... replaces the poolings (RSU-4F).
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    mid: int
    height: int
    dilated: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        layer = functools.partial(ConvNormAct, common=self.common)

        def rate(i: int) -> int:
            return 2 ** (i - 1) if self.dilated else 1 if i < self.height else 2

        y = whole = layer(self.features, name="in")(x, train=train)
        skips = []
        for i in range(1, self.height):
            y = y if i == 1 or self.dilated else max_pool(y, 2, ceil_mode=True)
            y = layer(self.mid, dilation=rate(i), name=f"down{i}")(y, train=train)
            skips.append(y)
        y = layer(self.mid, dilation=rate(self.height), name=f"down{self.height}")(y, train=train)
        for i in reversed(range(1, self.height)):
            skip = skips[i - 1]
            y = jnp.concatenate([resize(y, skip.shape[1:3]), skip], -1)
            y = layer(self.mid if i > 1 else self.features, dilation=rate(i), name=f"up{i}")(y, train=train)
        return whole + y


def _block(heights: tuple[int, ...], i: int, features: int, mid: int, common: Layers) -> RSU:
    dilated = i >= len(heights)
    return RSU(features, mid, _DILATED_HEIGHT if dilated else heights[i], dilated, common, name=f"stage{i}")


class U2NetEncoder(nn.Module):
    """f[b,h,w,c] -> features f[b,h/2^i,w/2^i,widths[i]] (sizes rounded up), finest first. Children: "stage0", ..."""

    widths: tuple[int, ...]
    mids: tuple[int, ...]
    heights: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        pyramid = []
        for i, (features, mid) in enumerate(zip(self.widths, self.mids)):
            x = x if i == 0 else max_pool(x, 2, ceil_mode=True)
            x = _block(self.heights, i, features, mid, self.common)(x, train=train)
            pyramid.append(x)
        return tuple(pyramid)


class U2NetDecoder(nn.Module):
    """Pyramid (finest first) -> decoder features finest first, one level fewer. Children: "stage0", "stage1", ..."""

    widths: tuple[int, ...]
    mids: tuple[int, ...]
    heights: tuple[int, ...]
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            x = jnp.concatenate([resize(x, skip.shape[1:3]), skip], -1)
            return _block(self.heights, i, self.widths[i], self.mids[i], self.common)(x, train=train)

        return walk_up(stage, pyramid)


class U2Net(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    The logits are the fused ones; in training `out["aux"]` has those of each decoder stage and of the bottom, finest
    first, bilinearly enlarged. The paper weighs all of them alike (section 3.3), which is an aux_weight of 1.

    Attributes:
        num_classes: k; the paper has one, a salient object.
        widths: channels of each stage of the encoder, finest first. Stage i of the decoder has those of the stage i - 1
            of the encoder, the finest those of its own.
        mids: channels inside the blocks of each stage, of encoder and decoder.
        finest_mid: channels inside the finest block of the decoder.
        heights: L of the blocks of the finest stages; the coarser ones are RSU-4F.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: unless there are as many `mids` as `widths`, two at least, and every height is 2 or more.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    mids: tuple[int, ...] = (32, 32, 64, 128, 256, 256)
    finest_mid: int = 16
    heights: tuple[int, ...] = (7, 6, 5, 4)
    common: Layers = Layers()

    def __post_init__(self) -> None:
        stages = len(self.widths)
        if len(self.mids) != stages or stages < 2:
            raise ValueError(
                f"u2net.mids must have a number for each stage of widths, of which there are two or more; got "
                f"{counted(len(self.mids), 'number')} for {counted(stages, 'stage')}."
            )
        if min(self.heights) < 2:
            raise ValueError(f"u2net.heights must be 2 or more, got {self.heights}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        stages, size = len(self.widths), image.shape[1:3]
        pyramid = U2NetEncoder(self.widths, self.mids, self.heights, self.common, name="encoder")(image, train=train)
        widths = (self.widths[0], *self.widths[: stages - 2])
        mids = (self.finest_mid, *self.mids[1 : stages - 1])
        decoder = U2NetDecoder(widths, mids, self.heights, self.common, name="decoder")
        decoded = decoder(pyramid, train=train)
        form: dict[str, Any] = {"kernel_size": 3, "dtype": self.common.dtype, "final": False}
        sides = []
        for i, x in enumerate((*decoded, pyramid[-1])):
            side = classifier(self.num_classes, **form, name=f"score{i}")
            sides.append(resize(side(x).astype(jnp.float32), size))
        fused = jnp.concatenate(sides, -1).astype(self.common.dtype or jnp.float32)
        logits = to_logits(fused, self.num_classes, size, dtype=self.common.dtype, final=False, name="fused_scores")
        aux = tuple(sides) if train or self.is_initializing() else ()
        return logits, {"aux": aux, **name_stages(encoder=pyramid, decoder=decoded)}

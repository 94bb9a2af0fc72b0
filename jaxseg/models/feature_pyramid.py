"""The simple feature pyramid (Li et al. 2022, "Exploring Plain Vision Transformer Backbones", section 3 and Fig. 2).

A plain vision transformer has one resolution. Its last features, at the stride p of the patches, are brought to p/4 and
p/2 by transposed convolutions of kernel and stride 2, kept at p, and brought to 2p by max-pooling; each level ends in a
1x1 and a 3x3 convolution. Networks that read a pyramid get it behind such an encoder, as the child "pyramid" ("levels"
of `PSPNet`, whose pooling has the other name), which is no part of the encoder: published weights have no place for it,
and it trains where the encoder is frozen.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn import Conv, ConvTranspose, LayerNorm, crop_to, max_pool, resize

_FACTORS = (4, 2, 1)  # by which the finer levels are enlarged; the coarsest is halved


class PyramidLevel(nn.Module):
    """f[b,y,x,c] -> f[b,y·s,x·s,features] for s = 4, 2, 1 or 1/2.

    Children: "up" (s = 4 and 2), "up_norm" and "up2" (s = 4), "project", "project_norm", "smooth", "smooth_norm".

    Attributes:
        features: channels.
        factor: s; 0 is 1/2, sizes rounded up.
        dtype: compute dtype.
    """

    features: int
    factor: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        norm = functools.partial(LayerNorm, epsilon=1e-6, dtype=self.dtype)
        if self.factor == 0:
            x = max_pool(x, 2, ceil_mode=True)
        if self.factor > 1:
            x = ConvTranspose(max(1, c // 2), dtype=self.dtype, name="up")(x)
        if self.factor > 2:
            x = jax.nn.gelu(norm(name="up_norm")(x), approximate=False)
            x = ConvTranspose(max(1, c // 4), dtype=self.dtype, name="up2")(x)
        conv = functools.partial(Conv, self.features, use_bias=False, dtype=self.dtype)
        x = norm(name="project_norm")(conv(kernel_size=1, name="project")(x))
        return norm(name="smooth_norm")(conv(kernel_size=3, name="smooth")(x))


class FeaturePyramid(nn.Module):
    """f[b,y,x,c] of an image f[b,h,w,.] -> features f[b,h/s,w/s,features] at s = p/4, p/2, p and 2p, rounded up.

    Strides are powers of two, which decoders expect: where the patch is none (14, of DINOv2), p is the nearest one
    (16), and the levels are sampled at the centres of its pixels, bilinearly between those of the patches. Children:
    "level0", ... (`PyramidLevel`s), 0 the finest.

    Attributes:
        features: channels of each level.
        patch: side of a patch in pixels; levels of a stride below 1 are left out.
        dtype: compute dtype.
    """

    features: int
    patch: int
    dtype: Any = None

    @property
    def levels(self) -> dict[int, int]:
        """{stride of a level: by how much the patches are enlarged for it, 0 where they are halved}, finest first."""
        nearest = 2 ** round(math.log2(self.patch))
        finer = {nearest // factor: factor for factor in _FACTORS if factor <= nearest}
        return {**finer, 2 * nearest: 0}

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return tuple(self.levels)

    @nn.compact
    def __call__(
        self, x: jax.Array, size: tuple[int, ...], seen: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, ...]:
        """Returns the levels.

        Args:
            x: the patches.
            size: height and width of the image.
            seen: height and width of what the patches show of it, which they may exceed; None: `size`.
        """
        pyramid = []
        for i, (stride, factor) in enumerate(self.levels.items()):
            level = PyramidLevel(self.features, factor, self.dtype, name=f"level{i}")(x)
            cells, pixels = (factor, self.patch) if factor else (1, 2 * self.patch)
            inside = crop_to(level, tuple(-(-side * cells // pixels) for side in seen or size))
            wanted = tuple(-(-side // stride) for side in size)
            whole = seen is None or tuple(seen) == tuple(size)
            pyramid.append(sampled(inside, pixels, cells * stride, wanted) if whole else resize(inside, wanted))
        return tuple(pyramid)


def sampled(x: jax.Array, old: int, new: int, size: tuple[int, ...]) -> jax.Array:
    """f[b,y,x,c] of cells whose side is `old` -> f[b,*size,c] of cells of `new`, from the same top left corner on.

    Bilinear where the centres of the new cells lie, and beyond the last centre its value. Resizing would bring the
    other corner to that of the new cells, which may lie elsewhere.
    """
    unit = math.gcd(old, new)
    blocks = [-(-side // (old // unit)) for side in size]  # of new // unit old cells, which are old // unit new ones
    missing = [count * (new // unit) - side for count, side in zip(blocks, x.shape[1:3])]
    x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    return crop_to(resize(x, tuple(count * (old // unit) for count in blocks)), size)


@dataclasses.dataclass(frozen=True)
class WithPyramid:
    """A plain encoder and the pyramid of its last level, called as an encoder.

    Attributes:
        encoder: the child "encoder".
        pyramid: the child "pyramid".
    """

    encoder: Any
    pyramid: FeaturePyramid

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels a feature pixel, of each level."""
        return self.pyramid.strides

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return (self.pyramid.features,) * len(self.strides)

    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        """f[b,h,w,c] -> the levels, finest first.

        Where the encoder rounds sizes down, they show the whole patches alone, brought to the size of the image.
        """
        size, patch = image.shape[1:3], self.pyramid.patch
        seen = tuple(side // patch * patch for side in size) if self.encoder.rounding == "down" else size
        return self.pyramid(self.encoder(image, train=train)[-1], size, seen)

"""EoMT (Kerssies et al. 2025, "Your ViT is Secretly an Image Segmentation Model").

The queries are further tokens of the last blocks of a vision transformer (section 3.2), so that there is neither pixel
decoder nor transformer decoder: each query's class comes from a linear layer, its mask from the product with the
patches, brought to a quarter of their stride. In training, before each of these blocks, every query is kept from the
patches outside the mask that it predicts there; with mask annealing (section 3.3) fewer and fewer queries are, first
those of the first block, until none is, as in evaluation. Train it with the loss `mask_classification`, which scores
all of these predictions. The paper's encoder is DINOv2 with registers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Positive, Share, WholeNotNegative
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.mask2former import SMALL, semantic_logits
from jaxseg.nn import (
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    LayerNorm,
    Layers,
    crop_to,
    current_step,
    draw_of_examples,
    pad_to_multiple,
    parameter,
    resize,
)
from jaxseg.nn.initializers import normal
from jaxseg.nn.ops.product import product

_gelu = functools.partial(jax.nn.gelu, approximate=False)


class UpScale(nn.Module):
    """f[b,y,x,c] -> f[b,y·2^n,x·2^n,c] by n steps: transposed convolution, GELU, 3x3 depthwise convolution, norm.

    Children: "up1", "depthwise1", "norm1", "up2", ...

    Attributes:
        steps: n.
        dtype: compute dtype.
    """

    steps: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        for i in range(1, self.steps + 1):
            x = _gelu(ConvTranspose(c, dtype=self.dtype, name=f"up{i}")(x))
            x = Conv(c, 3, groups=c, use_bias=False, dtype=self.dtype, name=f"depthwise{i}")(x)
            x = LayerNorm(epsilon=1e-6, dtype=self.dtype, name=f"norm{i}")(x)
        return x


class QueryMasks(nn.Module):
    """Queries f[b,q,c], pixels f[b,y,x,c] -> mask logits f32[b,y,x,q]: dense, GELU, dense, GELU, dense, product.

    Children: "dense1", "dense2", "dense3".
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, queries: jax.Array, pixels: jax.Array) -> jax.Array:
        x = queries
        for i in (1, 2, 3):
            x = Dense(pixels.shape[-1], kernel_init=SMALL, dtype=self.dtype, name=f"dense{i}")(x)
            x = _gelu(x) if i < 3 else x
        return product("byxc,bqc->byxq", pixels, x)


def masked_share(step: jax.Array, block: int, blocks: int, start: int, end: int, power: float) -> jax.Array:
    """The probability f32[] that a query is masked before a block: (1 - t)^power, t from 0 to 1 (section 3.3).

    The steps from `start` to `end` are divided evenly among the blocks, the first block first.

    Args:
        step: i32[].
        block: number of the block among those with queries, from 0.
        blocks: how many there are.
        start, end: steps at which the first block's annealing begins and the last one's ends.
        power: exponent of the fall.
    """
    length = max(end - start, 1) / blocks
    t = jnp.clip((step.astype(jnp.float32) - start - block * length) / length, 0.0, 1.0)
    return (1.0 - t) ** power


class EoMT(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the patch.

    Logits and `out["queries"]` are those of `jaxseg.models.mask2former.Mask2Former`: predictions before each block with
    queries, if they are made there, and at the end. In a step `nn.at_step` gives the number of the step, in training
    without one (from Python) all queries are masked, and in evaluation none is, so that there is one prediction.

    Attributes:
        num_classes: k.
        queries: q; more than the number of classes in an image.
        blocks: the last blocks of the encoder that have queries; the authors' release has 3 of 12 in ViT-S and ViT-B,
            4 of 24 in ViT-L.
        up_steps: doublings of the patches' resolution for the masks, 2.
        anneal_start: the step at which mask annealing begins.
        anneal_end: the step at which it ends, after its beginning; 0: there is no annealing, and masks stay. Then
            evaluation masks too.
        anneal_power: exponent, above 0, of the polynomial by which the share of masked queries falls.
        query_dropout: rate of dropout of whole queries, for each image: a query that is dropped begins as zeros, so
            that all dropped ones of an image are the same token. In training, and in Monte Carlo dropout. In no paper.
        encoder: a vision transformer (an `EncoderFactory`).
        common: gives the dtype and the mapped axis; norms are layer norms, and activations GELU, whatever it says.

    Raises:
        ValueError: for an encoder that is no vision transformer, or has fewer blocks than `blocks`, or annealing that
            ends before it begins.
    """

    num_classes: int
    queries: int = 100
    blocks: int = 4
    up_steps: int = 2
    anneal_start: WholeNotNegative = 0
    anneal_end: WholeNotNegative = 0
    anneal_power: Positive = 0.9
    query_dropout: Share = 0.0
    encoder: EncoderFactory = encoders.factory("vit_base_dinov2_reg")
    common: Layers = Layers()

    def __post_init__(self) -> None:
        if 0 < self.anneal_end <= self.anneal_start:
            raise ValueError(
                f"EoMT: anneal_end={self.anneal_end} must be above anneal_start={self.anneal_start}, or 0 for no "
                "annealing."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        if not hasattr(encoder, "pyramid_width"):
            raise ValueError(
                "EoMT: encoder must be a vision transformer (vit_*) without pyramid='adapter', whose "
                "blocks take the queries."
            )
        if self.blocks > encoder.depth or encoder.levels[-1] != encoder.depth or not encoder.norm_levels:
            raise ValueError(
                f"EoMT: the encoder's depth {encoder.depth} must be at least blocks={self.blocks}, its last block the "
                "last of its taps, and norm_levels True."
            )
        x, size = pad_to_multiple(image, encoder.patch)
        heads = (
            Dense(max(self.num_classes, 2) + 1, dtype=self.common.dtype, name="head"),
            UpScale(self.up_steps, self.common.dtype, name="upscale"),
            QueryMasks(self.common.dtype, name="mask"),
        )
        first = parameter(self, "query", normal(1.0), (1, self.queries, encoder.width))
        drop = Dropout(self.query_dropout, self.common.axis_name, tokens=True, name="query_dropout")
        grid = tuple(side // encoder.patch for side in x.shape[1:3])
        classes, masks = [], []

        def predict(queries: jax.Array, patches: jax.Array) -> None:
            head, upscale, mask = heads
            classes.append(head(queries).astype(jnp.float32))
            masks.append(mask(queries, upscale(patches)))

        def between(i: int, tokens: jax.Array, norm: nn.Module) -> tuple[jax.Array, jax.Array | None]:
            block = i - (encoder.depth - self.blocks)
            if block == 0:
                queries = jnp.broadcast_to(first, (tokens.shape[0], *first.shape[1:])).astype(tokens.dtype)
                tokens = jnp.concatenate([drop(queries, train=train), tokens], 1)
            if block < 0 or not (train or self.anneal_end == 0):
                return tokens, None
            y: Any = norm(tokens)  # pyright: ignore[reportCallIssue]
            others = self.queries + encoder.prefix
            predict(y[:, : self.queries], y[:, others:].reshape(-1, *grid, encoder.width))
            inside = resize(jax.lax.stop_gradient(masks[-1]), grid) > 0
            inside = inside.reshape(inside.shape[0], -1, self.queries).swapaxes(1, 2)
            if train:
                inside = inside | ~self._masked(block, inside.shape[0])
            return tokens, _whole_mask(inside, encoder.prefix)

        pyramid, prefixes = encoder(x, train=train, with_prefix=True, between=between)
        predict(prefixes[-1][:, : self.queries], pyramid[-1])
        logits = semantic_logits(classes[-1], resize(masks[-1], x.shape[1:3]), self.num_classes)
        cells = tuple(-(-side * 2**self.up_steps // encoder.patch) for side in size)  # those that the image reaches
        queries = jnp.stack(classes), jnp.stack([crop_to(mask, cells) for mask in masks])
        return crop_to(logits, size), {"aux": (), "queries": queries, **name_stages(encoder=pyramid)}

    def _masked(self, block: int, images: int) -> jax.Array:
        """Which queries of each image are kept to their masks in this block: bool[b,q,1]."""
        step = current_step()
        if step is None or self.anneal_end == 0:
            return jnp.ones((images, self.queries, 1), bool)
        share = masked_share(step, block, self.blocks, self.anneal_start, self.anneal_end, self.anneal_power)
        return draw_of_examples(self, "dropout", images, share, (self.queries, 1), self.common.axis_name)


def _whole_mask(inside: jax.Array, prefix: int) -> jax.Array:
    """Which patches each query may read, bool[b,q,t] -> the mask bool[b,1,q+prefix+t,q+prefix+t] of all tokens."""
    b, q, t = inside.shape
    rows = jnp.concatenate([jnp.ones((b, q, q + prefix), bool), inside], 2)
    return jnp.concatenate([rows, jnp.ones((b, prefix + t, q + prefix + t), bool)], 1)[:, None]

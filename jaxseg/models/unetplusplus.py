"""UNet++ (Zhou, Siddiquee, Tajbakhsh and Liang 2018, "UNet++: A Nested U-Net Architecture", arXiv 1807.10165).

Node X^{i,j} of Fig. 1a is at level i of the pyramid and is the j-th along its skip pathway: X^{i,0} are the
encoder's features, and X^{i,j} = H([X^{i,0}, ..., X^{i,j-1}, U(X^{i+1,j-1})]) (section 3.1), with up-sampling U and two
3x3 convolutions H. The paper's network has 9.04 million parameters (Table 2); ours counts as many with `norm="none"`.

The form of segmentation_models_pytorch's `UnetPlusPlus` over a pre-trained encoder is `up="nearest"`,
`full_resolution=True`, `head_kernel=3` (and `full_skip=False`, `center=True` where the encoder is a VGG).
"""

import functools
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import check_widths, decoder_levels, make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.plain import ConvStage, PlainEncoder
from jaxseg.models.unet import UNetStage, Up
from jaxseg.nn import Layers, pad_to_multiple

Node = tuple[int, int]


class UNetPlusPlusDecoder(nn.Module):
    """Pyramid (finest first) -> ({(i, j): X^{i,j}}, full-resolution features): the nested pathways of Fig. 1a.

    The inner nodes of level i have the encoder's width there, the last node of the level has widths[i]; in the paper
    these are the same. Children: "node{i}_{j}", and "full0", "full1", ... for levels that the encoder does not have.

    Attributes:
        widths: channels of the last node of each level, finest first.
        strides: those of the pyramid, one more than widths.
        added: the number of levels, from the finest, that the encoder does not have: one node each, after the last
            X^{0,j}.
        depth: the j of the last X^{0,j} that is computed; None: that of the whole network.
        convs, up: as in `UNetPlusPlus`.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    added: int = 0
    depth: int | None = None
    convs: int = 2
    up: Up = "transposed"
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, pyramid: tuple[jax.Array, ...], *, train: bool = False
    ) -> tuple[dict[Node, jax.Array], tuple[jax.Array, ...]]:
        bottom = len(pyramid) - 1 - self.added
        depth = bottom if self.depth is None else self.depth
        nodes = {(i, 0): x for i, x in enumerate(pyramid[self.added :])}
        for j in range(1, depth + 1):
            for i in range(depth - j + 1):
                features = self.widths[i + self.added] if i + j == bottom else nodes[i, 0].shape[-1]
                skip = jnp.concatenate([nodes[i, n] for n in reversed(range(j))], axis=-1)
                stage = self._stage(i + self.added, features, f"node{i}_{j}")
                nodes[i, j] = stage(nodes[i + 1, j - 1], skip, train=train)
        full: tuple[jax.Array, ...] = ()
        if depth == bottom:
            x = nodes[0, bottom]
            for i in reversed(range(self.added)):
                x = self._stage(i, self.widths[i], f"full{i}")(x, pyramid[i], train=train)
                full = (x, *full)
        return nodes, full

    def _stage(self, i: int, features: int, name: str) -> UNetStage:
        factor = self.strides[i + 1] // self.strides[i]
        return UNetStage(features, factor, self.convs, self.up, common=self.common, name=name)


class UNetPlusPlus(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k.
        widths: channels of each level, finest first (section 4: 32 · 2^i); the last is the bottom.
        convs: 3x3 convolutions of each node.
        deep_supervision: whether X^{0,1}, X^{0,2}, ... each end in logits (section 3.2). In training those before the
            last are auxiliary outputs; the paper weighs them like the last, which is an aux_weight of 1.
        branch: the form of evaluation with deep supervision. None, the paper's accurate mode: the mean of all logits
            (the paper averages probabilities). j, its fast mode: the logits of X^{0,j}, computed by those nodes alone
            on which they depend, UNet++ L^j.
        up: "transposed" convolution, or "nearest" or "bilinear" interpolation.
        full_resolution: whether the decoder continues to the image's resolution over an encoder that starts at a stride
            of 2 or more, in stages without a skip; `widths` then has one more for each.
        full_skip: whether features of stride 1 are used as a skip, if the encoder has them.
        center: whether the convolutions of a node are also applied to the bottom, before the decoder.
        head_kernel: side of the last convolutions' kernels.
        dropout: rate of the dropout that ends the two deepest stages of the own encoder, as in U-Net's; another encoder
            has its own field, if any.
        encoder: another encoder under the same decoder; None: convolutions and max-pooling. With another encoder,
            `widths` are those of the last node of each level, finest first, one fewer than the encoder's levels.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    convs: int = 2
    deep_supervision: bool = False
    branch: int | None = None
    up: Up = "transposed"
    full_resolution: bool = False
    full_skip: bool = True
    center: bool = False
    head_kernel: Literal[1, 3] = 1
    dropout: Share = 0.0
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        default = functools.partial(PlainEncoder, self.widths, self.convs, self.dropout)
        encoder = make_encoder(self.encoder or default, self.common)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid, strides = encoder(x, train=train), encoder.strides
        skips, strides, added = decoder_levels(
            pyramid, strides, x.shape[1:3], full_resolution=self.full_resolution, full_skip=self.full_skip
        )
        check_widths("UNetPlusPlus", self.widths, len(skips))
        bottom = len(skips) - 1 - added
        every = train or self.is_initializing()
        depth = self._depth(bottom, every=every)
        if self.center:
            stage = ConvStage(skips[-1].shape[-1], self.convs, common=self.common, name="center")
            skips = (*skips[:-1], stage(skips[-1], train=train))
        nodes, full = UNetPlusPlusDecoder(
            self.widths[: len(skips) - 1],
            strides,
            added,
            depth,
            self.convs,
            self.up,
            common=self.common,
            name="decoder",
        )(skips, train=train)

        def logits_of(j: int) -> jax.Array:
            return to_logits(
                full[0] if full and j == bottom else nodes[0, j],
                self.num_classes,
                x.shape[1:3],
                size,
                kernel_size=self.head_kernel,
                dtype=self.common.dtype,
                name="head" if j == bottom else f"head{j}",
            )

        fast = self.branch is not None and not every
        first = 1 if self.deep_supervision and bottom and not fast else depth
        heads = [logits_of(j) for j in range(first, depth + 1)]
        logits = heads[-1] if train else cast(jax.Array, sum(heads)) / len(heads)
        stages = name_stages(encoder=pyramid, decoder=[nodes[i, depth - i] for i in range(depth)])
        full_stages = {f"decoder/full{i}": x for i, x in enumerate(full)}
        return logits, {"aux": tuple(heads[:-1]) if every else (), **stages, **full_stages}

    def _depth(self, bottom: int, *, every: bool) -> int:
        """The j of the last X^{0,j} that is computed."""
        if self.branch is None:
            return bottom
        if not self.deep_supervision or self.branch > bottom:
            raise ValueError(
                f"UNetPlusPlus: branch={self.branch} needs deep_supervision and an encoder of at least "
                f"{self.branch + 1} levels that take part, this one has {bottom + 1}."
            )
        return bottom if every else self.branch

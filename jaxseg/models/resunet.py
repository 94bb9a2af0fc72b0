"""ResUNet (Zhang, Liu and Wang 2018, "Road Extraction by Deep Residual U-Net", arXiv 1711.10684).

A U-Net of pre-activation residual units (Fig. 1b; He et al. 2016, "Identity Mappings"), in the three parts of Fig. 2:
encoding and bridge (`ResidualEncoder`, whose last level is the bridge), and decoding. The 3x3 convolutions of Table I
and the final 1x1 convolution have 7,780,097 parameters for RGB and one class (with the last bias only), the 7.8 million
of the paper. Ours also has norms, a bias in each unit's second convolution, and the 1x1 projections that the shortcuts
need where channels or resolution change.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.models.assembly import check_widths, make_encoder, name_stages, to_logits, walk_up
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.encoders.residual import ResidualEncoder, Shortcut, Unit, refuse_depth, residual_unit, residual_units
from jaxseg.nn import ConvTranspose, Layers, drop_rates, join_upsampled, pad_to_multiple
from jaxseg.nn.conv import near_zero

Up = Literal["nearest", "bilinear", "transposed"]


class ResUNetStage(nn.Module):
    """(f[b,h,w,c], skip f[b,H,W,s]) -> f[b,H,W,features]: up-sampling, concatenation, residual units (section II-B).

    Children: "up" where up="transposed", "block1", "block2", ...
    """

    features: int
    factor: int = 2
    blocks: int = 1
    up: Up = "nearest"
    shortcut: Shortcut = "auto"
    unit: Unit = "preact"
    dropout: Share = 0.0
    drop_path: tuple[float, ...] = ()  # of each unit; empty: 0
    shared: bool = False  # see `residual_units`
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool = False) -> jax.Array:
        if self.factor > 1 and self.up == "transposed":
            x = ConvTranspose(
                x.shape[-1], kernel_size=self.factor, stride=self.factor, dtype=self.common.dtype, name="up"
            )(x)
        if self.factor > 1 and self.up != "transposed":
            joined = join_upsampled(x, skip, self.up)
        else:
            joined = jnp.concatenate([x, skip], axis=-1)

        def build(i: int) -> nn.Module:
            return residual_unit(
                self.unit,
                self.features,
                shortcut=self.shortcut,
                dropout=self.dropout,
                drop_path=self.drop_path[i] if self.drop_path else 0.0,
                common=self.common,
                name=f"block{i + 1}",
            )

        return residual_units(build, self.blocks, joined, shared=self.shared, train=train)


class ResUNetDecoder(nn.Module):
    """Pyramid (features finest first) -> decoder features finest first, one level fewer (Fig. 2 right).

    Attributes:
        widths: channels of each level of the result, finest first.
        strides: those of the pyramid, one more than widths.
        blocks, up, shortcut, unit, dropout, shared: as in `ResUNet`.
        drop_path: rate of stochastic depth of each unit of each level, in the order of the forward pass, coarsest level
            first; empty: 0.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: int = 1
    up: Up = "nearest"
    shortcut: Shortcut = "auto"
    unit: Unit = "preact"
    dropout: Share = 0.0
    drop_path: tuple[tuple[float, ...], ...] = ()
    shared: bool = False
    common: Layers = Layers()

    @nn.compact
    def __call__(self, pyramid: tuple[jax.Array, ...], *, train: bool = False) -> tuple[jax.Array, ...]:

        def stage(i: int, x: jax.Array, skip: jax.Array) -> jax.Array:
            factor = self.strides[i + 1] // self.strides[i]
            block = ResUNetStage(
                self.widths[i],
                factor,
                self.blocks,
                self.up,
                self.shortcut,
                self.unit,
                self.dropout,
                self.drop_path[len(self.widths) - 1 - i] if self.drop_path else (),
                self.shared,
                common=self.common,
                name=f"stage{i}",
            )
            return block(x, skip, train=train)

        return walk_up(stage, pyramid)


class ResUNet(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w.

    Attributes:
        num_classes: k (the paper: 1).
        widths: channels of each level, finest first (Table I); the last is the bridge.
        blocks: residual units of each level, on either path (Table I: 1).
        up: the up-sampling before each decoder level, which the paper does not specify: nearest, bilinear, or a
            transposed convolution with kernel and stride 2.
        shortcut: form of y = g(W_c x + W_r h(x)): "auto" (identity where the shape allows, else a 1x1 projection),
            "projection" (always 1x1), "learned" (1x1 on both paths), "scaled" (as auto, with one learned factor of each
            unit's branch, which starts at 0), "scaled_channels" (a factor for each channel), "weighted" (as auto,
            with a factor of the identity for each channel, which starts at 1) or "none" (the plain network of the
            ablation).
        unit: the place of norm and activation: "preact", before each convolution, as in the paper; or "basic", after
            it, with the activation g after the sum (He et al. 2015).
        dropout: rate of the dropout before the second convolution of each unit.
        drop_path: rate of stochastic depth of the decoder's last unit; it grows linearly from 0 at the first unit of
            the network (of the decoder, over another encoder).
        shared: the units of a stage after its first, which all keep the shape, have one set of parameters, as a
            recurrent network has (`residual_units`; from three units on). The statistics of batch norm are each unit's.
        encoder: another encoder under the same decoder (an `EncoderFactory`); None: the paper's. With another encoder,
            `widths` are those of the decoder's levels, finest first, one fewer than the encoder's.
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 1
    up: Up = "nearest"
    shortcut: Shortcut = "auto"
    unit: Unit = "preact"
    dropout: Share = 0.0
    drop_path: Share = 0.0
    shared: bool = False
    encoder: EncoderFactory | None = None
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        refuse_depth(self.shared, self.drop_path)
        form = (self.shortcut, self.unit, self.dropout)
        encoder = make_encoder(self.encoder or functools.partial(self._encoder, form), self.common)
        levels = len(encoder.strides)
        check_widths("ResUNet", self.widths, levels)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        pyramid = encoder(x, train=train)
        decoder = ResUNetDecoder(
            self.widths[: levels - 1],
            encoder.strides,
            self.blocks,
            self.up,
            *form,
            self._rates(levels - 1)[1:],
            self.shared,
            self.common,
            name="decoder",
        )
        decoded = decoder(pyramid, train=train)
        top = decoded[0] if decoded else pyramid[0]
        # As in Fig. 2, the sum of the last unit goes to the 1x1 convolution without norm or activation.
        logits = to_logits(top, self.num_classes, x.shape[1:3], size, kernel_init=near_zero, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=decoded)}

    def _rates(self, levels: int) -> tuple[tuple[float, ...], ...]:
        """The rates of stochastic depth: those of all units of the encoder, then of each of the decoder's levels."""
        encoder = self.blocks * len(self.widths) if self.encoder is None else 0
        return drop_rates(self.drop_path, (encoder, *(self.blocks,) * levels))

    def _encoder(self, form: tuple[Shortcut, Unit, float], common: Layers, name: str) -> ResidualEncoder:
        greatest = self._rates(len(self.widths) - 1)[0][-1]
        args = (self.widths, self.blocks, *form, greatest, self.shared)
        return ResidualEncoder(*args, output_norm=False, common=common, name=name)

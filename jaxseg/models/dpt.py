"""DPT (Ranftl et al. 2021, "Vision Transformers for Dense Prediction").

Four levels of a vision transformer, all at the stride p of its patches, are reassembled as maps of strides p/4, p/2, p
and 2p (section 3.2), and fused from the coarsest to the finest by residual units and up-sampling by 2 (Fig. 1). It has
the form of segmentation_models_pytorch's `DPT`. Over an encoder whose levels have strides of their own, nothing is
reassembled in size.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.models import encoders
from jaxseg.models.assembly import make_encoder, name_stages, to_logits
from jaxseg.models.encoders import EncoderFactory
from jaxseg.nn import Conv, ConvNormAct, ConvTranspose, Dense, Dropout, Layers, pad_to_multiple, resize

Readout = Literal["cat", "add", "ignore"]


class Reassemble(nn.Module):
    """f[b,y,x,c] and the first tokens f[b,n,c] -> f[b,y·s,x·s,features] for s = 4, 2, 1, 1/2, ... (eqs. 1-6).

    The class token is read as `readout` says: "cat", beside each patch, and a dense layer ("readout") and GELU bring
    both to c channels again; "add", the mean of the first tokens is added; "ignore". Children: "readout", "project" (to
    `width` channels), "resample" (a transposed convolution, or a 3x3 convolution of stride 1/s), "out".

    Attributes:
        width: channels while the size changes.
        features: channels of the result.
        enlarge: s, if it is 1 or more.
        reduce: 1/s, if s is 1 or less.
        readout: see above.
        common: gives the dtype and the initial kernels of convolutions.
    """

    width: int
    features: int
    enlarge: int = 1
    reduce: int = 1
    readout: Readout = "cat"
    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, prefix: jax.Array | None, *, train: bool = False) -> jax.Array:
        del train
        init = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        c, has_prefix = x.shape[-1], prefix is not None and prefix.shape[1] > 0
        if self.readout == "cat":
            if prefix is not None and has_prefix:
                token = jnp.broadcast_to(prefix[:, :1].reshape(-1, 1, 1, c), x.shape)
                x = jnp.concatenate([x, token], -1)
            x = jax.nn.gelu(Dense(c, dtype=self.common.dtype, name="readout")(x), approximate=False)
        elif self.readout == "add" and prefix is not None and has_prefix:
            x = x + prefix.mean(1).reshape(-1, 1, 1, c)
        x = Conv(self.width, 1, **init, name="project")(x)
        if self.enlarge > 1:
            x = ConvTranspose(self.width, self.enlarge, self.enlarge, dtype=self.common.dtype, name="resample")(x)
        elif self.reduce > 1:
            x = Conv(self.width, 3, stride=self.reduce, padding=1, **init, name="resample")(x)
        return Conv(self.features, 3, use_bias=False, **init, name="out")(x)


class ResidualUnit(nn.Module):
    """x + norm(conv(act(norm(conv(act(x)))))): f[b,h,w,c] -> f[b,h,w,c]. Children: "conv1", "conv2"."""

    common: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        conv = functools.partial(ConvNormAct, x.shape[-1], common=self.common.replace(act=None))
        y = conv(name="conv1")(self.common.activate(x), train=train)
        return x + conv(name="conv2")(self.common.activate(y), train=train)


class Fusion(nn.Module):
    """f[b,y,x,c] and the coarser result, of its size -> f[b,.,.,c] at `size` (Fig. 1 right).

    Children: "unit1", on the level alone, "unit2", on the sum, and "project", a 1x1 convolution after the up-sampling.
    """

    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, x: jax.Array, coarser: jax.Array | None, size: tuple[int, ...], *, train: bool = False
    ) -> jax.Array:
        x = ResidualUnit(self.common, name="unit1")(x, train=train)
        x = x if coarser is None else x + coarser
        x = ResidualUnit(self.common, name="unit2")(x, train=train)
        x = resize(x, size, align_corners=True)
        init = {"dtype": self.common.dtype, "kernel_init": self.common.kernel_init}
        return Conv(x.shape[-1], 1, **init, name="project")(x)


class DPTDecoder(nn.Module):
    """Levels, finest first, and their first tokens -> the results of each fusion, finest first.

    Children: "level0", ... (`Reassemble`) and "fuse0", ... (`Fusion`), 0 the finest.

    Attributes:
        features, widths, readout: as in `DPT`.
        reassemble: whether the levels have one stride, so that they are brought to four.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    features: int
    widths: tuple[int, ...]
    readout: Readout
    reassemble: bool
    common: Layers = Layers()

    @nn.compact
    def __call__(
        self, pyramid: tuple[jax.Array, ...], prefixes: tuple[jax.Array | None, ...], *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        levels = []
        for i, (x, prefix) in enumerate(zip(pyramid, prefixes)):
            level = Reassemble(
                self.widths[i],
                self.features,
                enlarge=max(1, 4 >> i) if self.reassemble else 1,
                reduce=max(1, 2**i >> 2) if self.reassemble else 1,
                readout=self.readout,
                common=self.common,
                name=f"level{i}",
            )
            levels.append(level(x, prefix, train=train))
        fused, coarser = [], None
        for i in reversed(range(len(levels))):
            size = tuple(2 * side for side in levels[0].shape[1:3]) if i == 0 else levels[i - 1].shape[1:3]
            coarser = Fusion(self.common, name=f"fuse{i}")(levels[i], coarser, size, train=train)
            fused.insert(0, coarser)
        return tuple(fused)


class DPT(nn.Module):
    """f[b,h,w,c] -> (f32[b,h,w,k], stages), any h and w; the image is padded to a multiple of the coarsest stride.

    Attributes:
        num_classes: k.
        features: channels of the fusion.
        widths: channels of each level while it is reassembled, finest first; one for each level of the encoder.
        readout: what is done with the class token: "cat", "add" or "ignore"; see `Reassemble`.
        dropout: rate before the classifier.
        encoder: an encoder (an `EncoderFactory`); the paper's are ViT-B, ViT-L and a hybrid.
        common: norm, activation, dtype and mapped axis of every layer.

    Raises:
        ValueError: unless there is a width for each level.
    """

    num_classes: int
    features: int = 256
    widths: tuple[int, ...] = (256, 512, 1024, 1024)
    readout: Readout = "cat"
    dropout: Share = 0.1
    encoder: EncoderFactory = encoders.factory("vit_base")
    common: Layers = Layers()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
        encoder = make_encoder(self.encoder, self.common, pyramid=False)
        x, size = pad_to_multiple(image, encoder.strides[-1])
        plain = hasattr(encoder, "pyramid_width")
        if plain:
            pyramid, prefixes = encoder(x, train=train, with_prefix=True)
        else:
            pyramid = encoder(x, train=train)
            prefixes = (None,) * len(pyramid)
        if len(self.widths) != len(pyramid):
            raise ValueError(
                f"dpt.widths must have a number for each level of the encoder, which has "
                f"{counted(len(pyramid), 'level')}, got {self.widths}."
            )
        decoder = DPTDecoder(self.features, self.widths, self.readout, plain, common=self.common, name="decoder")
        fused = decoder(pyramid, prefixes, train=train)
        y = ConvNormAct(self.features, common=self.common, name="conv")(fused[0], train=train)
        y = Dropout(self.dropout, self.common.axis_name, name="dropout")(y, train=train)
        logits = to_logits(y, self.num_classes, x.shape[1:3], size, align_corners=True, dtype=self.common.dtype)
        return logits, {"aux": (), **name_stages(encoder=pyramid, decoder=fused)}

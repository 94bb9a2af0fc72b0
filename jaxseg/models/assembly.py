"""What every architecture does around its own idea: make the encoder, walk up a pyramid, end in logits, name stages.

Each function is called inside the compact `__call__` of a model, whose children it makes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.fields import field_names
from jaxseg.nn import ConvNormAct, Dropout, classifier, crop_to, resize
from jaxseg.nn.conv import Initializer, he_normal
from jaxseg.types import Activation, NormFactory


def make_encoder(encoder: EncoderFactory, **layers: Any) -> nn.Module:
    """Returns the encoder as the child "encoder", with those of `layers` (norm, act, dtype) that it has.

    A network with an encoder of its own passes `self.encoder or` a factory of that one, with its fields set.

    A family whose published weights belong to one activation (ResNet's ReLU, MobileNetV3's hard swish) has no field
    `act` and keeps its own.
    """
    cls = encoder.func if isinstance(encoder, functools.partial) else encoder
    known = field_names(cls)
    return encoder(**{name: value for name, value in layers.items() if name in known}, name="encoder")


def check_widths(owner: str, widths: Sequence[int], levels: int) -> None:
    """Raises ValueError unless there is a width for each of the decoder's levels, one fewer than the encoder's."""
    if len(widths) < levels - 1:
        raise ValueError(f"{owner}: widths {tuple(widths)} are too few for an encoder of {levels} levels.")


def walk_up(
    stage: Callable[[int, jax.Array, jax.Array], jax.Array], pyramid: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    """Takes x = stage(i, x, pyramid[i]) from the second coarsest level to the finest; x starts as the coarsest.

    Returns:
        The result of each stage, finest first: one level fewer than the pyramid.
    """
    x, features = pyramid[-1], []
    for i in reversed(range(len(pyramid) - 1)):
        x = stage(i, x, pyramid[i])
        features.insert(0, x)
    return tuple(features)


def decoder_levels(
    pyramid: Sequence[jax.Array],
    strides: Sequence[int],
    size: tuple[int, int],
    *,
    full_resolution: bool,
    full_skip: bool,
) -> tuple[tuple[jax.Array, ...], tuple[int, ...], int]:
    """Fits a pyramid to a decoder that shall end at the image's resolution, though the encoder has no skip there.

    Args:
        pyramid: features of the encoder, finest first.
        strides: its strides.
        size: height and width of the image.
        full_resolution: puts levels without channels before a pyramid of stride 2 or more, one for each halving down
            to stride 1.
        full_skip: False leaves the features of stride 1 out.

    Returns:
        The pyramid, its strides, and how many levels were put before it.
    """
    if not full_skip and strides[0] == 1:
        pyramid, strides = pyramid[1:], strides[1:]
    finer = tuple(2**i for i in range(strides[0].bit_length() - 1)) if full_resolution else ()
    b, dtype = pyramid[0].shape[0], pyramid[0].dtype
    empty = (jnp.zeros((b, -(-size[0] // s), -(-size[1] // s), 0), dtype) for s in finer)
    return (*empty, *pyramid), (*finer, *strides), len(finer)


def coarse_levels(
    owner: str, pyramid: Sequence[jax.Array], strides: Sequence[int], finest: int
) -> tuple[tuple[jax.Array, ...], tuple[int, ...]]:
    """Returns the levels of a pyramid whose stride is at least `finest`, and their strides.

    Raises:
        ValueError: if there is none.
    """
    kept = [i for i, stride in enumerate(strides) if stride >= finest]
    if not kept:
        raise ValueError(f"{owner}: finest={finest} leaves nothing of an encoder of strides {tuple(strides)}.")
    return tuple(pyramid[i] for i in kept), tuple(strides[i] for i in kept)


class AuxiliaryHead(nn.Module):
    """f[b,y,x,c] -> f32[b,*size,k]: the head that an auxiliary loss is put on (Zhao 2017, section 3.3 and Fig. 4).

    A 3x3 convolution, norm, activation, dropout, the 1x1 classifier and bilinear up-sampling. Children: "conv", "head".

    Attributes:
        num_classes: k.
        features: channels of the convolution.
        dropout: rate at which channels are dropped.
        align_corners: of the up-sampling.
        axis_name: mapped axis over which dropout is drawn.
    """

    num_classes: int
    features: int = 256
    dropout: float = 0.1
    align_corners: bool = False
    norm: NormFactory | None = None
    act: Activation = nn.relu
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int], *, train: bool = False) -> jax.Array:
        x = ConvNormAct(self.features, norm=self.norm, act=self.act, dtype=self.dtype, name="conv")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.axis_name, spatial=True, name="dropout")(x, train=train)
        return to_logits(x, self.num_classes, size, align_corners=self.align_corners, dtype=self.dtype)


def auxiliary_logits(
    model: nn.Module,
    pyramid: Sequence[jax.Array],
    size: tuple[int, int],
    width: int | None,
    dropout: float,
    align_corners: bool = False,
    *,
    train: bool,
) -> tuple[jax.Array, ...]:
    """Returns (f32[b,*size,k],) of an `AuxiliaryHead`, the child "aux", on the second coarsest level of a pyramid.

    The tuple is empty in evaluation, without a width, and over an encoder of one level.

    Args:
        model: the network, which gives the head num_classes, norm, act, dtype and axis_name.
        size: height and width of the image.
        width, dropout, align_corners: the head's fields; a width of None: no head.
    """
    if width is None or len(pyramid) < 2 or not (train or model.is_initializing()):
        return ()
    layers = {"norm": model.norm, "act": model.act, "dtype": model.dtype, "axis_name": model.axis_name}
    head = AuxiliaryHead(model.num_classes, width, dropout, align_corners, **layers, name="aux")
    return (head(pyramid[-2], size, train=train),)


def to_logits(
    x: jax.Array,
    num_classes: int,
    padded: tuple[int, int],
    size: tuple[int, int] | None = None,
    *,
    kernel_size: int = 1,
    align_corners: bool = False,
    kernel_init: Initializer = he_normal,
    dtype: Any = None,
    name: str = "head",
) -> jax.Array:
    """f[b,y,x,c] -> f32[b,*size,k]: the classifier, bilinear up-sampling to `padded`, the crop to `size`.

    Args:
        padded: height and width of what the encoder saw.
        size: those of the image, where it was padded; None: the same.
        kernel_size: side of the classifier's kernel.
        align_corners: of the up-sampling, see `jaxseg.nn.resize`.
        kernel_init: of the classifier, see `jaxseg.nn.conv.classifier`.
    """
    head = classifier(num_classes, kernel_size=kernel_size, kernel_init=kernel_init, dtype=dtype, name=name)
    logits = head(x).astype(jnp.float32)
    if logits.shape[1:3] != tuple(padded):
        logits = resize(logits, tuple(padded), align_corners=align_corners)
    return logits if size is None else crop_to(logits, size)


def name_stages(**groups: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """Returns {"encoder/stage0": ..., "decoder/stage0": ...} for encoder=pyramid, decoder=features."""
    return {f"{group}/stage{i}": feature for group, features in groups.items() for i, feature in enumerate(features)}

"""The parts that all architectures share: make the encoder, walk up a pyramid, end in logits, name the stages.

Call these functions inside the compact `__call__` of a model: the modules that they make are its children.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Share
from jaxseg.errors import counted
from jaxseg.models.encoders import EncoderFactory
from jaxseg.models.feature_pyramid import FeaturePyramid, WithPyramid
from jaxseg.models.vit_adapter import ViTAdapter, WithAdapter
from jaxseg.nn import BARE, ConvNormAct, Dropout, Layers, classifier, crop_to, resize
from jaxseg.nn.conv import he_normal
from jaxseg.types import Initializer


def make_encoder(
    encoder: EncoderFactory, common: Layers, *, pyramid: bool = True, pyramid_name: str = "pyramid"
) -> Any:
    """Returns the encoder as the child "encoder".

    A plain vision transformer, whose levels have one stride, gets a feature pyramid behind it, the child "pyramid"
    (`feature_pyramid`), unless `pyramid` is False, for networks that read its own levels. A network that has a child of
    this name already gives another, `pyramid_name`. With `pyramid="adapter"` it has the levels of its adapter, the
    child "adapter" (`vit_adapter`), in every network.

    A family whose published weights belong to one activation (ResNet's ReLU, MobileNetV3's hard swish) keeps it,
    whatever the activation in `common`. A third-party factory gets those of common, norm, act and dtype that are
    parameters of it.
    """
    offered = {"common": common, "norm": common.norm, "act": common.act, "dtype": common.dtype}
    parameters = inspect.signature(encoder).parameters
    made: Any = encoder(**{name: value for name, value in offered.items() if name in parameters}, name="encoder")
    if getattr(made, "pyramid", "simple") == "adapter":
        ends = tuple(sorted(set(made.levels)))
        form = (made.adapter_heads or made.num_heads, made.adapter_ratio, made.adapter_stem, float(made.drop_path))
        return WithAdapter(made, ViTAdapter(made.width, made.patch, ends, *form, common=common, name="adapter"))
    if not pyramid or not hasattr(made, "pyramid_width"):
        return made
    return WithPyramid(made, FeaturePyramid(made.pyramid_width, made.patch, common.dtype, name=pyramid_name))


def check_widths(owner: str, widths: Sequence[int], levels: int) -> None:
    """Raises ValueError unless there is a width for each of the decoder's levels, one fewer than the encoder's."""
    if len(widths) < levels - 1:
        raise ValueError(f"{owner}: widths {tuple(widths)} are too few for an encoder of {counted(levels, 'level')}.")


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
    size: tuple[int, ...],
    *,
    full_resolution: bool,
    full_skip: bool,
) -> tuple[tuple[jax.Array, ...], tuple[int, ...], int]:
    """Extends a pyramid for a decoder that ends at the image's resolution, where the encoder has no level.

    Args:
        pyramid: features of the encoder, finest first.
        strides: its strides.
        size: height and width of the image.
        full_resolution: whether levels without channels are put before a pyramid that starts at stride 2 or more, one
            for each power of two down to stride 1.
        full_skip: False removes the level of stride 1.

    Returns:
        The pyramid, its strides, and the number of levels that were put before it.
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
        raise ValueError(f"{owner}: finest={finest} leaves no level of an encoder of strides {tuple(strides)}.")
    return tuple(pyramid[i] for i in kept), tuple(strides[i] for i in kept)


class AuxiliaryHead(nn.Module):
    """f[b,y,x,c] -> f32[b,*size,k]: the head of an auxiliary loss (Zhao 2017, section 3.3 and Fig. 4).

    3x3 convolution, norm, activation, dropout, 1x1 classifier and bilinear up-sampling. Children: "conv", "head".

    Attributes:
        num_classes: k.
        features: channels of the convolution.
        dropout: rate at which channels are dropped.
        align_corners: of the up-sampling.
        common: norm, activation, dtype and mapped axis of every layer.
    """

    num_classes: int
    features: int = 256
    dropout: Share = 0.1
    align_corners: bool = False
    common: Layers = BARE

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, ...], *, train: bool = False) -> jax.Array:
        x = ConvNormAct(self.features, common=self.common, name="conv")(x, train=train)
        x = Dropout(self.dropout, axis_name=self.common.axis_name, spatial=True, name="dropout")(x, train=train)
        return to_logits(x, self.num_classes, size, align_corners=self.align_corners, dtype=self.common.dtype)


def auxiliary_logits(
    model: Any,
    pyramid: Sequence[jax.Array],
    size: tuple[int, ...],
    width: int | None,
    dropout: float,
    align_corners: bool = False,
    *,
    train: bool,
) -> tuple[jax.Array, ...]:
    """Returns (f32[b,*size,k],) of an `AuxiliaryHead`, the child "aux", on the second coarsest level of a pyramid.

    The tuple is empty in evaluation, if `width` is None, and over an encoder of one level.

    Args:
        model: the network, whose fields num_classes and common the head gets.
        size: height and width of the image.
        width, dropout, align_corners: fields of the head; a width of None means no head.
    """
    on = {"aux": pyramid[-2]} if len(pyramid) > 1 else {}
    return auxiliary_heads(model, on, size, width, dropout, align_corners, train=train)


def auxiliary_heads(
    model: Any,
    on: Mapping[str, jax.Array],
    size: tuple[int, ...],
    width: int | None,
    dropout: float = 0.0,
    align_corners: bool = False,
    *,
    train: bool,
) -> tuple[jax.Array, ...]:
    """Returns the logits f32[b,*size,k] of an `AuxiliaryHead` on each of the features `on`, by the name of the child.

    The tuple is empty in evaluation, and if `width` is None. The other arguments are those of `auxiliary_logits`.
    """
    if width is None or not (train or model.is_initializing()):
        return ()
    fields = (model.num_classes, width, dropout, align_corners)
    return tuple(AuxiliaryHead(*fields, common=model.common, name=name)(x, size, train=train) for name, x in on.items())


def to_logits(
    x: jax.Array,
    num_classes: int,
    padded: tuple[int, ...],
    size: tuple[int, ...] | None = None,
    *,
    kernel_size: int = 1,
    align_corners: bool = False,
    kernel_init: Initializer = he_normal,
    dtype: Any = None,
    final: bool = True,
    name: str = "head",
) -> jax.Array:
    """f[b,y,x,c] -> f32[b,*size,k]: the classifier, bilinear up-sampling to `padded`, the crop to `size`.

    Args:
        padded: height and width of the encoder's input.
        size: height and width of the image before padding; None: no crop.
        kernel_size: side of the classifier's kernel.
        align_corners: of the up-sampling, see `jaxseg.nn.resize`.
        kernel_init, final: of the classifier, see `jaxseg.nn.conv.classifier`.
    """
    head = classifier(
        num_classes, kernel_size=kernel_size, kernel_init=kernel_init, dtype=dtype, final=final, name=name
    )
    logits = head(x).astype(jnp.float32)
    if logits.shape[1:3] != tuple(padded):
        logits = resize(logits, tuple(padded), align_corners=align_corners)
    return logits if size is None else crop_to(logits, size)


def name_stages(**groups: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """Returns {"encoder/stage0": ..., "decoder/stage0": ...} for encoder=pyramid, decoder=features."""
    return {f"{group}/stage{i}": feature for group, features in groups.items() for i, feature in enumerate(features)}

"""A dense CRF as settings, as a layer with parameters, and around a network (CRF-as-RNN)."""

import contextlib
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.arguments import Count, NotNegative, Positive, check_value
from jaxseg.errors import ArgumentError, nearest
from jaxseg.nn.cosine import WithCosineHead, cosine_heads
from jaxseg.nn.ops.dense_crf import Method, Normalization, dense_crf
from jaxseg.nn.quantisation import without_quantised_inputs

CRF_PRESETS: dict[str, dict[str, Any]] = {
    # Chen et al. 2015 and 2017: what the scripts of the published models have, found on 100 images of PASCAL VOC. Their
    # code divides each message by the filtered ones.
    "deeplab-v1": {"appearance_weight": 4.0, "appearance_xy": 49.0, "appearance_rgb": 5.0},
    "deeplab-v2-vgg16": {
        "smooth_weight": 2.0,
        "smooth_xy": 2.0,
        "appearance_weight": 4.0,
        "appearance_xy": 65.0,
        "appearance_rgb": 3.0,
    },
    "deeplab-v2-resnet101": {
        "smooth_xy": 1.0,
        "appearance_weight": 4.0,
        "appearance_xy": 67.0,
        "appearance_rgb": 3.0,
    },
    # The example of the authors' second version of their code, which normalises symmetrically.
    "krahenbuhl": {
        "appearance_weight": 10.0,
        "appearance_xy": 80.0,
        "appearance_rgb": 13.0,
        "iterations": 5,
        "normalization": "symmetric",
    },
    # Zheng et al. 2015: where the training of the published network starts.
    "crf-as-rnn": {"appearance_weight": 5.0, "appearance_xy": 160.0, "appearance_rgb": 3.0},
}
"""Name -> the fields of `CRF` that differ from its defaults."""


@dataclasses.dataclass(frozen=True)
class CRF:
    """The settings of a dense CRF; see `dense_crf` for the formulas.

    Attributes:
        smooth_weight: w of the smoothness kernel.
        smooth_xy: θ_γ, its standard deviation in pixels.
        appearance_weight: w of the appearance kernel.
        appearance_xy: θ_α, its standard deviation in pixels.
        appearance_rgb: θ_β, its standard deviation in units of colour, which go from 0 to 255.
        iterations: of the mean field.
        normalization: "after", "symmetric" or "none".
        method: "fast" or "exact".

    Raises:
        ArgumentError: for an invalid value.
    """

    smooth_weight: NotNegative = 3.0
    smooth_xy: Positive = 3.0
    appearance_weight: NotNegative = 4.0
    appearance_xy: Positive = 49.0
    appearance_rgb: Positive = 5.0
    iterations: Count = 10
    normalization: Normalization = "after"
    method: Method = "fast"

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, check_value(f"{name} of the CRF", getattr(self, name), hint))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the settings that a text such as "deeplab-v1" or "deeplab-v1,appearance_weight=5" names.

        The name of a preset may stand first; without one the other fields are those of "deeplab-v1".

        Raises:
            ArgumentError: for an unknown preset or field, naming the nearest, or an invalid value.
        """
        hints = _hints(cls)
        values: dict[str, Any] = {}
        for place, part in enumerate(text.split(",")):
            name, equals, value = (each.strip() for each in part.partition("="))
            if not equals and place == 0:
                if name not in CRF_PRESETS:
                    raise ArgumentError(f"There is no preset {name!r} of a CRF.{nearest(name, CRF_PRESETS)}")
                values |= CRF_PRESETS[name]
            elif not equals or name not in hints:
                near = nearest(name, hints)
                raise ArgumentError(f"A CRF is a preset or NAME=VALUE with commas between, got {part!r}.{near}")
            else:
                values[name] = _number(value)
        return cls(**values)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return ",".join(f"{name}={_shown(getattr(self, name))}" for name in _hints(type(self)))

    @property
    def numbers(self) -> dict[str, float]:
        """The fields that a compiled program takes as arrays."""
        return {name: value for name, value in dataclasses.asdict(self).items() if isinstance(value, float)}


@dataclasses.dataclass(frozen=True)
class LayerCRF(CRF):
    """The settings of a CRF inside a network.

    Attributes:
        train_iterations: of the mean field in training: Zheng et al. train with 5 and predict with 10.
        learn: whether weights and compatibility are parameters. False: they keep the values of the settings.
    """

    train_iterations: Count = 5
    learn: bool = True


def _hints(cls: type[CRF]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _number(text: str) -> Any:
    """Returns the whole number, the number or the truth value that a text is; else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class DenseCRF(nn.Module):
    """f32[b,h,w,k], f[b,h,w,c] -> f32[b,h,w,k]: refines logits by a dense CRF over an image with colours in [0, 255].

    Zheng et al. 2015, "Conditional Random Fields as Recurrent Neural Networks": each kernel has a weight for each class
    and the compatibility is a matrix, which starts as Potts. Parameters: "smooth_weight" f32[k], "appearance_weight"
    f32[k], "compatibility" f32[k,k]. One logit (binary) counts as the difference of two classes.

    Attributes:
        crf: the settings.
    """

    crf: LayerCRF = LayerCRF()

    @nn.compact
    def __call__(self, logits: jax.Array, image: jax.Array, *, train: bool = False) -> jax.Array:
        logits, crf = logits.astype(jnp.float32), self.crf
        numbers: dict[str, Any] = dict(crf.numbers)
        if crf.learn:
            k = max(logits.shape[-1], 2)
            for name in ("smooth_weight", "appearance_weight"):
                numbers[name] = self.param(name, nn.initializers.constant(numbers[name]), (k,), jnp.float32)
            numbers["compatibility"] = self.param("compatibility", _potts, (k, k), jnp.float32)
        return of_two_classes(
            logits,
            lambda logits: dense_crf(
                logits,
                image,
                iterations=crf.train_iterations if train else crf.iterations,
                normalization=crf.normalization,
                method=crf.method,
                **numbers,
            ),
        )


def of_two_classes(logits: jax.Array, refine: Any) -> jax.Array:
    """Refines f[b,h,w,k]; for k = 1 as the logits 0 and z of two classes, and returns the difference, f[b,h,w,1]."""
    if logits.shape[-1] > 1:
        return refine(logits)
    both = refine(jnp.concatenate([jnp.zeros_like(logits), logits], -1))
    return both[..., 1:] - both[..., :1]


def _potts(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    return 1 - jnp.eye(shape[0], dtype=dtype)


class WithCRF(nn.Module):
    """A network whose logits a dense CRF refines: f[b,h,w,c] -> (f32[b,h,w,k], out).

    The parameters of the network keep their paths; those of the CRF are in the child "crf". The auxiliary logits stay.

    Attributes:
        network: a model of `jaxseg.models`.
        crf: the settings of the CRF.
        mean: what was subtracted from images in [0, 1], one number or one for each channel.
        std: what they were then divided by.
        cosine: whether the heads of the network are cosine heads, as in `WithCosineHead`.
    """

    network: nn.Module
    crf: LayerCRF
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cosine: bool = False

    def setup(self) -> None:
        nn.share_scope(self, self.network)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, Mapping[str, Any]]:
        with cosine_heads() if self.cosine else contextlib.nullcontext():
            logits, out = self.network(image, train=train)
        mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1) for values in (self.mean, self.std))
        colors = 255 * (image.astype(jnp.float32) * std + mean)
        return DenseCRF(self.crf, name="crf")(logits, colors, train=train), out


def without_crf(model: nn.Module) -> nn.Module:
    """Returns the network inside a `WithQuantisedInputs`, `WithCRF` or `WithCosineHead`; any other module as it is."""
    model = without_quantised_inputs(model)
    return model.network if isinstance(model, WithCRF | WithCosineHead) else model

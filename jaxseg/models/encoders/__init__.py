"""Encoders (backbones), one family a file: each turns an image into a pyramid of features.

`encoder(x, train=train)` takes f[b,h,w,c] and returns a tuple of features, finest first: level i is
f[b, h/strides[i], w/strides[i], widths[i]]. `strides` and `widths` depend on the fields alone, so that a decoder can be
built before anything is traced. If `encoder.strides[-1]` does not divide h or w, the sizes of the levels are rounded
(up, unless the family says otherwise); a decoder reads them from the features.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

from flax import linen as nn

from jaxseg.arguments import check
from jaxseg.errors import ArgumentError, nearest
from jaxseg.models.fields import field_hints, field_names
from jaxseg.nn import Layers

__all__ = [
    "ENCODERS",
    "EncoderFactory",
    "EncoderSpec",
    "build",
    "factory",
    "family",
    "name_of",
    "names",
    "needs_of",
]

# Builds an encoder: `encoder(common=Layers(), name="encoder")`. An `EncoderSpec` does, and so does the class of one.
EncoderFactory: TypeAlias = Callable[..., nn.Module]

# Convolutions of the five stages (Simonyan and Zisserman 2015, Table 1: configurations A, B, D, E).
_VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_BASIC = {"block": "basic", "widths": (64, 64, 128, 256, 512)}  # ResNet-18 and 34
_GATES_OF_8: dict[str, Any] = {"squeeze_excite": True, "squeeze_divisor": 8}
_D = {"deep_stem": True, "average_shortcut": True}  # the -D form
_MIT = {"widths": (64, 128, 320, 512), "heads": (1, 2, 5, 8)}
_VIT: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "num_heads": 6},
    "base": {},
    "large": {"width": 1024, "num_heads": 16, "depth": 24},
}
_DINOV2: dict[str, Any] = {"patch": 14, "grid": (37, 37), "layer_scale": 1.0}
_DINOV3: dict[str, Any] = {
    "position": "rotary",
    "registers": 4,
    "key_bias": False,
    "layer_scale": 1.0,
    "epsilon": 1e-5,
}
_CLIP: dict[str, Any] = {"pre_norm": True, "patch_bias": False, "act": "quick_gelu", "epsilon": 1e-5}
_SIGLIP2: dict[str, Any] = {"class_token": False, "act": "gelu_tanh"}


def _vits() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The vision transformers: each pretraining has its form, and CLIP's and SigLIP 2's large ones their own grids."""
    forms = {
        "vit_{}": {size: {} for size in _VIT},
        "vit_{}_dinov2": {size: _DINOV2 for size in _VIT},
        "vit_{}_dinov2_reg": {size: _DINOV2 | {"registers": 4, "antialias": True} for size in _VIT},
        "vit_{}_dinov3": {size: _DINOV3 for size in _VIT},
        "vit_{}_mae": {"base": {}, "large": {}},
        "vit_{}_clip": {"base": _CLIP, "large": _CLIP | {"patch": 14, "grid": (16, 16)}},
        "vit_{}_siglip2": {"base": _SIGLIP2, "large": _SIGLIP2 | {"grid": (16, 16)}},
    }
    rows = ((name.format(size), _VIT[size] | form) for name, sizes in forms.items() for size, form in sizes.items())
    return {name: ("vit", "ViT", fields) for name, fields in rows}


# Name -> (file in this folder, class, fields that the name fixes).
_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "convnext_base": (
        "convnext",
        "ConvNeXt",
        {"widths": (128, 256, 512, 1024), "depths": (3, 3, 27, 3), "drop": 0.5},
    ),
    "convnext_large": (
        "convnext",
        "ConvNeXt",
        {"widths": (192, 384, 768, 1536), "depths": (3, 3, 27, 3), "drop": 0.5},
    ),
    "convnext_small": ("convnext", "ConvNeXt", {"depths": (3, 3, 27, 3), "drop": 0.4}),
    "convnext_tiny": ("convnext", "ConvNeXt", {}),
    "efficientnet_b0": ("efficientnet", "EfficientNet", {"width": 1.0, "depth": 1.0}),
    "efficientnet_b1": ("efficientnet", "EfficientNet", {"width": 1.0, "depth": 1.1}),
    "efficientnet_b2": ("efficientnet", "EfficientNet", {"width": 1.1, "depth": 1.2}),
    "efficientnet_b3": ("efficientnet", "EfficientNet", {"width": 1.2, "depth": 1.4}),
    "efficientnet_b4": ("efficientnet", "EfficientNet", {"width": 1.4, "depth": 1.8}),
    "efficientnet_b5": ("efficientnet", "EfficientNet", {"width": 1.6, "depth": 2.2, "epsilon": 1e-3}),
    "efficientnet_b6": ("efficientnet", "EfficientNet", {"width": 1.8, "depth": 2.6, "epsilon": 1e-3}),
    "efficientnet_b7": ("efficientnet", "EfficientNet", {"width": 2.0, "depth": 3.1, "epsilon": 1e-3}),
    "hrnet_w18": ("hrnet", "HRNet", {"width": 18}),
    "hrnet_w32": ("hrnet", "HRNet", {"width": 32}),
    "hrnet_w48": ("hrnet", "HRNet", {"width": 48}),
    "mit_b0": ("mit", "MixTransformer", {}),
    "mit_b1": ("mit", "MixTransformer", _MIT),
    "mit_b2": ("mit", "MixTransformer", _MIT | {"depths": (3, 4, 6, 3)}),
    "mit_b3": ("mit", "MixTransformer", _MIT | {"depths": (3, 4, 18, 3)}),
    "mit_b4": ("mit", "MixTransformer", _MIT | {"depths": (3, 8, 27, 3)}),
    "mit_b5": ("mit", "MixTransformer", _MIT | {"depths": (3, 6, 40, 3)}),
    "mobilenet_v2": ("mobilenet", "MobileNetV2", {}),
    "mobilenet_v3_large": ("mobilenet", "MobileNetV3", {"variant": "large"}),
    "mobilenet_v3_small": ("mobilenet", "MobileNetV3", {"variant": "small"}),
    "plain": ("plain", "PlainEncoder", {}),
    "residual": ("residual", "ResidualEncoder", {}),
    "resnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3)}),
    "resnet101d": ("resnet", "ResNet", _D | {"depths": (3, 4, 23, 3)}),
    "resnet152": ("resnet", "ResNet", {"depths": (3, 8, 36, 3)}),
    "resnet152d": ("resnet", "ResNet", _D | {"depths": (3, 8, 36, 3)}),
    "resnet18": ("resnet", "ResNet", _BASIC | {"depths": (2, 2, 2, 2)}),
    "resnet18d": ("resnet", "ResNet", _BASIC | _D | {"depths": (2, 2, 2, 2)}),
    "resnet34": ("resnet", "ResNet", _BASIC),
    "resnet34d": ("resnet", "ResNet", _BASIC | _D),
    "resnet50": ("resnet", "ResNet", {}),
    "resnet50d": ("resnet", "ResNet", _D),
    "resnext101_32x8d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 1}),
    "resnext50_32x4d": ("resnet", "ResNet", {"groups": 32, "ratio": 2}),
    "seresnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "squeeze_excite": True}),
    "seresnet152": ("resnet", "ResNet", {"depths": (3, 8, 36, 3), "squeeze_excite": True}),
    "seresnet18": ("resnet", "ResNet", _BASIC | _GATES_OF_8 | {"depths": (2, 2, 2, 2)}),
    "seresnet34": ("resnet", "ResNet", _BASIC | _GATES_OF_8),
    "seresnet50": ("resnet", "ResNet", {"squeeze_excite": True}),
    **{
        f"vgg{layers}{norm}": ("vgg", "VGG", {"depths": depths, "use_norm": norm == "_bn"})
        for layers, depths in _VGG_DEPTHS.items()
        for norm in ("", "_bn")
    },
    **_vits(),
    "wide_resnet101_2": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "ratio": 2}),
    "wide_resnet50_2": ("resnet", "ResNet", {"ratio": 2}),
}
ENCODERS = tuple(_CLASSES)


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """An encoder by its name and the fields that were set: `spec(common=Layers(), name="encoder")` builds the module.

    Specs are equal, and of equal hash, if name and fields are, so that equal networks share a compilation. Make one
    with `factory`, which checks name and fields.

    Attributes:
        name: one of `names()`.
        fields: pairs of a field of the encoder and its value, sorted.
    """

    name: str
    fields: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *, common: Layers | None = None, name: str | None = None) -> nn.Module:
        """Builds the encoder, as the child `name`, with `common` for all of its layers."""
        return _class(self.name)(**self.settings, common=Layers() if common is None else common, name=name)

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that the name fixes and those that were set, which have precedence."""
        return _CLASSES[self.name][2] | dict(self.fields)

    def replace(self, **fields: Any) -> "EncoderSpec":
        """Returns the spec with `fields` set too; raises as `factory` does."""
        return factory(self.name, **(dict(self.fields) | fields))


def names() -> tuple[str, ...]:
    """Returns the names that `build` and `factory` know."""
    return ENCODERS


def factory(name: str, **fields: Any) -> EncoderSpec:
    """Returns the encoder `name` with `fields` set, to be called with the network's `common` and a name for the child.

    Args:
        name: one of `names()`.
        **fields: fields of the encoder that differ from its defaults.

    Raises:
        ArgumentError: for an unknown name or field (naming the nearest right one), or a value of the wrong type.
    """
    if name not in ENCODERS:
        raise ArgumentError(f"There is no encoder {name!r}.{nearest(name, ENCODERS)}")
    values = check(f"the encoder {name}", fields, field_hints(_class(name)), prefix=f"{name}.")
    return EncoderSpec(name, tuple(sorted(values.items())))


def needs_of(default: EncoderSpec, name: str) -> dict[str, Any]:
    """Returns what a network needs of its encoder: those fields of `default` that `name` has too.

    A network's default encoder sets what the network's paper says of any encoder: its dilation, which features are its
    levels, how it is up-sampled. The name itself fixes what belongs to the encoder: its depths and widths.

    Raises:
        ArgumentError: for an unknown name (naming the nearest right one).
    """
    known = field_names(_class(factory(name).name))
    return {key: value for key, value in default.fields if key in known}


def build(name: str, *, common: Layers | None = None, **fields: Any) -> nn.Module:
    """Returns the encoder `name` with `common` for all of its layers; raises as `factory` does."""
    return factory(name, **fields)(common=common)


def family(name: str) -> str:
    """Returns the file in this folder that holds the encoder `name`."""
    return _CLASSES[name][0]


def name_of(encoder: EncoderFactory) -> str | None:
    """Returns the name of an `EncoderSpec`, None for another factory."""
    return encoder.name if isinstance(encoder, EncoderSpec) else None


def _class(name: str) -> type[nn.Module]:
    file, class_name, _ = _CLASSES[name]
    return getattr(importlib.import_module(f"jaxseg.models.encoders.{file}"), class_name)

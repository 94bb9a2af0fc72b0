"""Encoders (backbones), one family a file: each turns an image into a pyramid of features.

`encoder(x, train=train)` takes f[b,h,w,c], say with h and w multiples of `encoder.strides[-1]`, and returns a tuple of
features, finest first: level i is f[b, h/strides[i], w/strides[i], widths[i]]. `strides` and `widths` depend on the
fields alone, so a decoder can be laid out before anything is traced. Other heights and widths work too; the sizes of
the levels are then rounded (up, unless the family says otherwise), and a decoder takes them from the features.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

from flax import linen as nn

from jaxseg.errors import nearest
from jaxseg.models.fields import checked, field_names

__all__ = [
    "ENCODERS",
    "LAYOUT",
    "EncoderFactory",
    "build",
    "changed",
    "factory",
    "family",
    "layout_of",
    "name_of",
    "names",
]

# Builds an encoder: `encoder(norm=norm, act=act, dtype=dtype, name="encoder")`. An encoder class is one.
EncoderFactory: TypeAlias = Callable[..., nn.Module]

# Convolutions of the five stages (Simonyan and Zisserman 2015, Table 1: configurations A, B, D, E).
_VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_BASIC = {"block": "basic", "widths": (64, 64, 128, 256, 512)}  # ResNet-18 and 34
_D = {"deep_stem": True, "average_shortcut": True}  # the -D form
_MIT = {"widths": (64, 128, 320, 512), "heads": (1, 2, 5, 8)}
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
    "resnet18": ("resnet", "ResNet", _BASIC | {"depths": (2, 2, 2, 2)}),
    "resnet18d": ("resnet", "ResNet", _BASIC | _D | {"depths": (2, 2, 2, 2)}),
    "resnet34": ("resnet", "ResNet", _BASIC),
    "resnet34d": ("resnet", "ResNet", _BASIC | _D),
    "resnet50": ("resnet", "ResNet", {}),
    "resnet50d": ("resnet", "ResNet", _D),
    "resnext101_32x8d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 1}),
    "resnext50_32x4d": ("resnet", "ResNet", {"groups": 32, "ratio": 2}),
    "seresnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "squeeze_excite": True}),
    "seresnet50": ("resnet", "ResNet", {"squeeze_excite": True}),
    **{
        f"vgg{layers}{norm}": ("vgg", "VGG", {"depths": depths, "use_norm": norm == "_bn"})
        for layers, depths in _VGG_DEPTHS.items()
        for norm in ("", "_bn")
    },
    "wide_resnet101_2": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "ratio": 2}),
    "wide_resnet50_2": ("resnet", "ResNet", {"ratio": 2}),
}
ENCODERS = tuple(_CLASSES)
# Fields of its own encoder that a network asks of a named one too.
LAYOUT = ("output_stride",)


def names() -> tuple[str, ...]:
    """Returns the names that `build` and `factory` know."""
    return ENCODERS


def factory(name: str, *, axis_name: str | None = None, **fields: Any) -> EncoderFactory:
    """Returns the encoder class `name` with `fields` set, to be called with norm, act, dtype and name.

    Args:
        name: one of `names()`.
        axis_name: the mapped axis over which encoders that drop something draw it.
        **fields: fields of the encoder that differ from its defaults.

    Raises:
        ValueError: for an unknown name or field (naming the nearest right one), or a value of the wrong type.
    """
    if name not in ENCODERS:
        raise ValueError(f"There is no encoder {name!r}.{nearest(name, ENCODERS)}")
    file, class_name, fixed = _CLASSES[name]
    cls = getattr(importlib.import_module(f"jaxseg.models.encoders.{file}"), class_name)
    fields = fixed | checked(f"Encoder {name!r}", cls, fields)
    if "axis_name" in field_names(cls):
        fields["axis_name"] = axis_name
    return functools.partial(cls, **fields)


def changed(encoder: functools.partial, *, axis_name: str | None = None, **fields: Any) -> EncoderFactory:
    """Returns the factory `encoder` with `fields` set anew; raises as `factory` does."""
    cls = encoder.func
    fields = checked(f"Encoder {cls.__name__!r}", cls, fields)
    if "axis_name" in field_names(cls):
        fields["axis_name"] = axis_name
    return functools.partial(cls, **(encoder.keywords | fields))


def layout_of(encoder: functools.partial, name: str) -> dict[str, Any]:
    """Returns the fields of LAYOUT that `encoder` sets and the encoder `name` has and does not fix itself.

    Raises:
        ValueError: for an unknown name (naming the nearest right one).
    """
    target = factory(name)
    known = field_names(target.func)
    return {
        key: value
        for key, value in encoder.keywords.items()
        if key in LAYOUT and key in known and key not in target.keywords
    }


def build(name: str, **fields: Any) -> nn.Module:
    """Returns the encoder `name`; raises as `factory` does."""
    return factory(name, **fields)()


def family(name: str) -> str:
    """Returns the file in this folder that holds the encoder `name`."""
    return _CLASSES[name][0]


def name_of(encoder: EncoderFactory) -> str | None:
    """Returns the name under which `factory` makes `encoder`; None for a class, or fields, of no name here."""
    cls, fields = (encoder.func, encoder.keywords) if isinstance(encoder, functools.partial) else (encoder, {})
    values = {f.name: f.default for f in dataclasses.fields(cls)} | fields
    fitting = [
        (len(fixed), name)
        for name, (file, class_name, fixed) in _CLASSES.items()
        if (cls.__module__, cls.__name__) == (f"{__name__}.{file}", class_name)
        and all(values[key] == value for key, value in fixed.items())
    ]
    return max(fitting)[1] if fitting else None

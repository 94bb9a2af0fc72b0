"""Encoders (backbones), one family a file: each turns an image into a pyramid of features.

`encoder(x, train=train)` takes f[b,h,w,c], say with h and w multiples of `encoder.strides[-1]`, and returns a tuple of
features, finest first: level i is f[b, h/strides[i], w/strides[i], widths[i]]. `strides` and `widths` depend on the
fields alone, so a decoder can be laid out before anything is traced. Other heights and widths work too; the sizes of
the levels are then rounded (up, unless the family says otherwise), and a decoder takes them from the features.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

from flax import linen as nn

from jaxseg.models.fields import checked, field_names, nearest

__all__ = ["ENCODERS", "EncoderFactory", "build", "factory", "names"]

# Builds an encoder: `encoder(norm=norm, act=act, dtype=dtype, name="encoder")`. An encoder class is one.
EncoderFactory: TypeAlias = Callable[..., nn.Module]

_BASIC = {"block": "basic", "widths": (64, 64, 128, 256, 512)}  # ResNet-18 and 34
_D = {"deep_stem": True, "average_shortcut": True}  # the -D form

# Name -> (file in this folder, class, fields that the name fixes).
_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("plain", "PlainEncoder", {}),
    "residual": ("residual", "ResidualEncoder", {}),
    "resnet18": ("resnet", "ResNet", _BASIC | {"depths": (2, 2, 2, 2)}),
    "resnet34": ("resnet", "ResNet", _BASIC),
    "resnet50": ("resnet", "ResNet", {}),
    "resnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3)}),
    "resnet152": ("resnet", "ResNet", {"depths": (3, 8, 36, 3)}),
    "resnet18d": ("resnet", "ResNet", _BASIC | _D | {"depths": (2, 2, 2, 2)}),
    "resnet34d": ("resnet", "ResNet", _BASIC | _D),
    "resnet50d": ("resnet", "ResNet", _D),
    "resnet101d": ("resnet", "ResNet", _D | {"depths": (3, 4, 23, 3)}),
    "resnext50_32x4d": ("resnet", "ResNet", {"groups": 32, "ratio": 2}),
    "resnext101_32x8d": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "groups": 32, "ratio": 1}),
    "seresnet50": ("resnet", "ResNet", {"squeeze_excite": True}),
    "seresnet101": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "squeeze_excite": True}),
    "wide_resnet50_2": ("resnet", "ResNet", {"ratio": 2}),
    "wide_resnet101_2": ("resnet", "ResNet", {"depths": (3, 4, 23, 3), "ratio": 2}),
}
ENCODERS = tuple(_CLASSES)


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


def build(name: str, **fields: Any) -> nn.Module:
    """Returns the encoder `name`; raises as `factory` does."""
    return factory(name, **fields)()

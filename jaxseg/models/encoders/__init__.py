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
from jaxseg.models.encoders.named import CLASSES
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

ENCODERS = tuple(CLASSES)


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
        return CLASSES[self.name][2] | dict(self.fields)

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
    return CLASSES[name][0]


def name_of(encoder: EncoderFactory) -> str | None:
    """Returns the name of an `EncoderSpec`, None for another factory."""
    return encoder.name if isinstance(encoder, EncoderSpec) else None


def _class(name: str) -> type[nn.Module]:
    file, class_name, _ = CLASSES[name]
    return getattr(importlib.import_module(f"jaxseg.models.encoders.{file}"), class_name)

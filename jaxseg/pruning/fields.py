"""The fields of a network that say how many channels its layers have, made smaller by a share."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxseg.models.encoders import EncoderSpec
from jaxseg.models.fields import field_names

# Fields of networks and encoders that are numbers of channels; `width` of MobileNet and EfficientNet is a factor.
WIDTHS = (
    "widths",
    "width",
    "channels",
    "features",
    "hidden",
    "stem",
    "last",
    "growth",
    "aux_width",
    "branch_width",
    "key_width",
    "low_width",
    "pixel_hidden",
)


def smaller_fields(network: nn.Module, share: float) -> dict[str, Any]:
    """Returns {name: value} of the fields `WIDTHS` of a network times `share`, each at least 1.

    Those of its encoder are under "encoder_args". A field that has another type or is None is left out.
    """
    fields = _scaled({name: getattr(network, name) for name in field_names(type(network))}, share)
    encoder: Any = network.encoder if "encoder" in field_names(type(network)) else None
    if isinstance(encoder, EncoderSpec):
        module = encoder()
        of_encoder = _scaled({name: getattr(module, name) for name in field_names(type(module))}, share)
        fields |= {"encoder_args": of_encoder} if of_encoder else {}
    return fields


def _scaled(values: Mapping[str, Any], share: float) -> dict[str, Any]:
    scaled = {name: _times(values[name], share) for name in WIDTHS if name in values}
    return {name: value for name, value in scaled.items() if value is not None}


def _times(value: Any, share: float) -> Any:
    if isinstance(value, tuple) and all(type(each) is int for each in value):
        return tuple(_times(each, share) for each in value)
    if type(value) is int:
        return max(1, round(share * value))
    return share * value if type(value) is float else None

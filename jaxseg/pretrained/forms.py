"""Which fields give our networks the form of a peer's, whose weights then lead to the peer's numbers.

Some leave their mark in the arrays (a kernel's size), so that weights without them do not fit; others do not (kept
corners), so that the weights fit and the numbers differ. Both are told: the first in the error, the second in a note.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from jaxseg import models
from jaxseg.models import encoders
from jaxseg.nn import rates_at


class Form(NamedTuple):
    """A network of a peer in our fields; those of the encoder are under "encoder_args", as in `model.args`.

    Attributes:
        peer: whose it is.
        fields: what makes its form.
        sizes: what its user may have chosen otherwise, and the shapes of the arrays decide: its defaults.
    """

    peer: str
    fields: Mapping[str, Any]
    sizes: Mapping[str, Any]


_SMP, _TORCHVISION, _TRANSFORMERS = "segmentation_models.pytorch", "torchvision", "transformers"
_UNET = {"up": "nearest", "full_resolution": True, "head_kernel": 3}
_OVER_VGG = {"full_skip": False, "center": True}
_WIDTHS = {"widths": (16, 32, 64, 128, 256)}
_DEEPLAB = {"rates": (12, 24, 36), "head_conv": True, "align_corners": True}
# Name of the rules, as in the catalogue -> whose, fields, sizes.
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "deeplab:torchvision_deeplabv3": (
        _TORCHVISION,
        {"rates": (12, 24, 36), "head_conv": True, "align_corners": False, "encoder_args": {"output_stride": 8}},
        {"aux_width": 256},
    ),
    "deeplab:smp_deeplabv3": (
        _SMP,
        {**_DEEPLAB, "encoder_args": {"output_stride": 8, "first_dilated": True}},
        {"aux_width": None},
    ),
    "deeplab:smp_deeplabv3plus": (
        _SMP,
        {**_DEEPLAB, "decoder_convs": 1, "encoder_args": {"output_stride": 16, "first_dilated": True}},
        {},
    ),
    "fcn:torchvision": (_TORCHVISION, {"encoder_args": {"output_stride": 8}}, {"aux_width": 256}),
    "mobilenet:torchvision_lraspp": (
        _TORCHVISION,
        {"low_stride": 8, "encoder_args": {"output_stride": 16, "tap": "first"}},
        {"width": 128},
    ),
    "mit:segformer_transformers": (_TRANSFORMERS, {}, {"features": 768}),
    "smp:fpn": (_SMP, {"smooth": False, "align_corners": True}, {}),
    "smp:linknet": (_SMP, {"finest": 2, "up_kernel": 4, "ending": "block"}, {}),
    "smp:pspnet": (
        _SMP,
        {"fuse_kernel": 1, "head_kernel": 3, "norm_single": False, "align_corners": True, "aux_width": None},
        {},
    ),
    "smp:unet": (_SMP, _UNET, _WIDTHS),
    "smp:unetplusplus": (_SMP, _UNET, _WIDTHS),
    "smp:upernet": (_SMP, {"norm_features": True, "align_corners": True, "aux_width": None}, {"width": 256}),
    "upernet:transformers": (
        _TRANSFORMERS,
        {"norm_features": False, "align_corners": False},
        {"width": 512, "aux_width": 256},
    ),
}


def of(rules: str, encoder: str | None) -> Form | None:
    """Returns the form of the networks over `encoder` that the rules of this name are for, or None."""
    if rules not in FORMS:
        return None
    peer, fields, sizes = FORMS[rules]
    family = None if encoder is None else encoders.family(encoder)
    if rules in ("smp:unet", "smp:unetplusplus") and family == "vgg":
        fields = fields | _OVER_VGG
    if rules == "smp:pspnet" and encoder is not None:
        sizes = _to_stride_8(encoder)
    if rules == "upernet:transformers" and family == "convnext":
        fields = {**fields, "encoder_args": {"output_norm": True}}
    if rules == "mit:segformer_transformers" and encoder in ("mit_b0", "mit_b1"):
        sizes = {"features": 256}
    return Form(peer, {"act": "relu", **fields}, sizes)  # the activation of all of them, which leaves no mark


def _to_stride_8(encoder: str) -> dict[str, Any]:
    """The encoder without its stages beyond stride 8, which PSPNet of segmentation_models.pytorch does not use."""
    built, family = encoders.build(encoder), encoders.family(encoder)
    if family == "resnet":
        return {"encoder_args": {"depths": built.depths[:2], "widths": built.widths[:3]}}
    return {"encoder_args": {"widths": built.widths[:2]}} if family == "mit" else {}


def differences(wanted: Mapping[str, Any], network: Any) -> list[str]:
    """Returns "model.args.KEY=VALUE" for what `wanted` has and the network has otherwise."""
    flat = {key: value for key, value in wanted.items() if key != "encoder_args"}
    other = [f"model.args.{key}={_show(value)}" for key, value in flat.items() if _field(network, key, wanted) != value]
    if "encoder_args" in wanted:
        encoder = network.encoder()
        for key, value in wanted["encoder_args"].items():
            if hasattr(encoder, key) and getattr(encoder, key) != value:
                other.append(f"model.args.encoder_args.{key}={_show(value)}")
    return other


def _field(network: Any, key: str, wanted: Mapping[str, Any]) -> Any:
    """Returns a field as `wanted` has it: the name of the activation, and the rates that follow the output stride."""
    if key == "act":
        act = network.common.act
        return next((name for name in models.ACTIVATIONS if getattr(jax.nn, name) is act), act)
    value = getattr(network, key)
    if key == "rates" and value is None:
        return rates_at(wanted["encoder_args"]["output_stride"])
    return value


def _show(value: Any) -> str:
    return str(value).replace(" ", "")


def advice(form: Form, network: nn.Module) -> str:
    """Returns what may be wrong where weights do not fit: the fields in which the network is not of the form."""
    fields, sizes = differences(form.fields, network), differences(form.sizes, network)
    if not fields and not sizes:
        return ""
    usual = f"{' and ' if fields else ''}by default {', '.join(sizes)}" if sizes else ""
    return f" The file has the names of {form.peer}, whose network is ours with {', '.join(fields)}{usual}."


def remark(form: Form, network: nn.Module) -> str:
    """Returns what to note where weights fit a network that computes otherwise than the peer's; else ""."""
    fields = differences(form.fields, network)
    return f"computes otherwise than {form.peer}'s network, which is ours with {', '.join(fields)}" if fields else ""

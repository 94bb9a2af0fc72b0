"""UPerNet of transformers (`UperNetForSemanticSegmentation`), over the rules of its backbone."""

from collections.abc import Iterable, Sequence

from jaxseg.models import encoders
from jaxseg.pretrained.family import TRANSFORMERS, Family, NetworkFormat, PeerForm
from jaxseg.pretrained.rules import Rule, conv_norm, layer, prefixed


def transformers(encoder: Iterable[Rule], bins: Sequence[int] = (1, 2, 3, 6)) -> list[Rule]:
    """Rules for our `UPerNet`, whose `finest` and `encoder` must give the backbone's levels.

    Args:
        encoder: rules relative to the backbone, which is one of transformers or of timm.
        bins: `pool_scales` of its configuration.
    """
    rules = prefixed(encoder, r"backbone\.(?:_backbone\.)?", "encoder")
    for i, side in enumerate(bins):
        rules += _module(rf"decode_head\.psp_modules\.{i}\.1", f"decoder/pyramid/bin{side}")
    rules += _module(r"decode_head\.bottleneck", "decoder/bottleneck")
    rules += _module(r"decode_head\.lateral_convs\.(\d+)", "decoder/lateral{1}")
    rules += _module(r"decode_head\.fpn_convs\.(\d+)", "decoder/smooth{1}")
    rules += _module(r"decode_head\.fpn_bottleneck", "decoder/fuse")
    rules += layer(r"decode_head\.classifier", "head")
    return [
        *rules,
        *_module(r"auxiliary_head\.convs\.0", "aux/conv"),
        *layer(r"auxiliary_head\.classifier", "aux/head"),
    ]


def _module(pattern: str, path: str) -> list[Rule]:
    """Rules of a `UperNetConvModule`."""
    return conv_norm(rf"{pattern}\.conv", rf"{pattern}\.batch_norm", path)


_OWN = ("convnext", "swin")  # families of which transformers has its own backbones, with a norm of each level but in V2


def _form(encoder: str | None) -> PeerForm:
    fields = {"act": "relu", "norm_features": False, "align_corners": False}
    if encoder is not None and encoders.family(encoder) in _OWN and not encoder.startswith("swinv2"):
        fields["encoder_args"] = {"output_norm": True}
    return PeerForm(fields, sizes={"width": 512, "aux_width": 256})


def _names(encoder: str | None) -> str:
    """Returns the names over a backbone of transformers' own, or over one that it takes from timm."""
    own = encoder is not None and encoders.family(encoder) in _OWN
    return r"(?!backbone\._backbone\.).*" if own else r"(?!backbone\.).*|backbone\._backbone\..*"


FAMILY = Family(
    network_formats=(
        NetworkFormat("upernet", TRANSFORMERS, transformers, takes=("encoder",), form=_form, names=_names),
    )
)

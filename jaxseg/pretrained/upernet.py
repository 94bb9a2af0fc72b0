"""Rules for UPerNet of transformers (`UperNetForSemanticSegmentation`), from the rules of its backbone."""

from collections.abc import Iterable, Sequence

from jaxseg.pretrained.rules import Rule, conv_norm, layer, prefixed


def transformers(encoder: Iterable[Rule], bins: Sequence[int] = (1, 2, 3, 6)) -> list[Rule]:
    """Our `UPerNet`; `finest` and `encoder` must give the backbone's levels.

    Args:
        encoder: rules of the backbone, one of transformers or of timm, relative to it.
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
    """A `UperNetConvModule`."""
    return conv_norm(rf"{pattern}\.conv", rf"{pattern}\.batch_norm", path)

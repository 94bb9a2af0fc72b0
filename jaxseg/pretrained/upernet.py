"""Rules for UPerNet of transformers (`UperNetForSemanticSegmentation`), from the rules of its backbone."""

from collections.abc import Iterable, Sequence

from jaxseg.pretrained.rules import Rule, layer, norm, prefixed


def transformers(
    backbone: Iterable[Rule], bins: Sequence[int] = (1, 2, 3, 6), *, within: str = r"backbone\."
) -> list[Rule]:
    r"""Our `UPerNet` with its default fields; `finest` and `encoder` must give the backbone's levels.

    Args:
        backbone: rules of the backbone, relative to it.
        bins: `pool_scales` of its configuration.
        within: where the backbone is, a regular expression (r"backbone\._backbone\." for one of timm).
    """
    rules = prefixed(backbone, within, "encoder")
    for i, side in enumerate(bins):
        rules += _conv_norm(rf"decode_head\.psp_modules\.{i}\.1", f"decoder/pyramid/bin{side}")
    rules += _conv_norm(r"decode_head\.bottleneck", "decoder/bottleneck")
    rules += _conv_norm(r"decode_head\.lateral_convs\.(\d+)", "decoder/lateral{1}")
    rules += _conv_norm(r"decode_head\.fpn_convs\.(\d+)", "decoder/smooth{1}")
    rules += _conv_norm(r"decode_head\.fpn_bottleneck", "decoder/fuse")
    rules += layer(r"decode_head\.classifier", "head")
    return [
        *rules,
        *_conv_norm(r"auxiliary_head\.convs\.0", "aux/conv"),
        *layer(r"auxiliary_head\.classifier", "aux/head"),
    ]


def _conv_norm(pattern: str, path: str) -> list[Rule]:
    return [*layer(rf"{pattern}\.conv", f"{path}/conv"), *norm(rf"{pattern}\.batch_norm", f"{path}/norm")]

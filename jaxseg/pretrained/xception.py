"""Aligned Xception of timm; classifiers are left out."""

import functools

from jaxseg.pretrained.family import APACHE, HALF, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm, layer, norm, prefixed

# (channels, stride) of the entry flow of 71 layers.
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))


def timm(entry: tuple[tuple[int, int], ...] = ((128, 2), (256, 2), (728, 2)), middle: int = 8) -> list[Rule]:
    """Rules of timm's `xception41`, `xception65` and `xception71`.

    Args:
        entry, middle: the encoder's fields of these names.
    """
    inside = conv_norm(r"shortcut\.conv", r"shortcut\.bn", "shortcut")
    for i in (1, 2, 3):
        theirs, ours = rf"stack\.conv{i}\.", f"conv{i}"
        inside += [*layer(rf"{theirs}conv_dw", f"{ours}/depthwise"), *layer(rf"{theirs}conv_pw", f"{ours}/pointwise")]
        inside += [*norm(rf"{theirs}bn_dw", f"{ours}/depthwise_norm"), *norm(rf"{theirs}bn_pw", f"{ours}/norm")]
    rules = conv_norm(r"stem\.0\.conv", r"stem\.0\.bn", "stem1") + conv_norm(r"stem\.1\.conv", r"stem\.1\.bn", "stem")
    stage = number = 0
    for n, stride in enumerate([*(s for _, s in entry), *(1,) * middle, 2, 1]):
        stage, number = (stage + 1, 1) if stride > 1 else (stage, number + 1)
        rules += prefixed(inside, rf"blocks\.{n}\.", f"stage{stage}/block{number}")
    return [*rules, Rule(r"head\..*", None)]


_FORMS = {"xception41": {}, "xception65": {"middle": 16}, "xception71": {"entry": ENTRY_71, "middle": 16}}

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(name, "imagenet", Published(f"timm/{name}.tf_in1k", normalised=HALF), APACHE) for name in _FORMS
    ),
    encoder_formats=tuple(EncoderFormat((name,), functools.partial(timm, **form)) for name, form in _FORMS.items()),
)

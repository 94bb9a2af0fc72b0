"""MobileNetV2, MobileNetV3 and LR-ASPP of torchvision, from `features.0` on; classifiers are left out."""

import re
from collections.abc import Iterable

from jaxseg.models.encoders.mobilenet import V2, V3, places
from jaxseg.pretrained.family import (
    BSD,
    SMP,
    TORCHVISION,
    EncoderFormat,
    EncoderWeights,
    Family,
    NetworkFormat,
    PeerForm,
    Published,
)
from jaxseg.pretrained.rules import Rule, conv_norm, layer, prefixed, sequence


def torchvision_v2(rows: tuple[tuple, ...] = V2, *, last: bool = True) -> list[Rule]:
    """Rules of torchvision's `mobilenet_v2`; without `last` the last convolution is left out."""
    expansions = [1] + [t for t, _, n, _ in rows for _ in range(n)]
    strides = [1] + [s if i == 0 else 1 for _, _, n, s in rows for i in range(n)]
    rules = sequence(r"features\.0", "stem")
    for i, (place, expansion) in enumerate(zip(places(strides, 32), expansions)):
        theirs, ours = rf"features\.{i + 1}\.conv", f"stage{place.level}/block{place.number}"
        at = 0
        if expansion != 1:
            rules += sequence(rf"{theirs}\.0", f"{ours}/expand")
            at = 1
        rules += sequence(rf"{theirs}\.{at}", f"{ours}/depthwise")
        rules += conv_norm(rf"{theirs}\.{at + 1}", rf"{theirs}\.{at + 2}", f"{ours}/project")
    return rules + ending(len(strides) + 1, last) + [Rule(r"classifier\..*", None)]


def torchvision_v3_large(*, last: bool = True) -> list[Rule]:
    """Rules of torchvision's `mobilenet_v3_large`."""
    return torchvision_v3(V3["large"], last=last)


def torchvision_v3_small(*, last: bool = True) -> list[Rule]:
    """Rules of torchvision's `mobilenet_v3_small`."""
    return torchvision_v3(V3["small"], last=last)


def torchvision_v3(rows: tuple[tuple, ...], *, stem: int = 16, last: bool = True) -> list[Rule]:
    """Rules of torchvision's `MobileNetV3` with these rows; without `last` the last convolution is left out."""
    rules = sequence(r"features\.0", "stem")
    c = stem
    for i, (place, row) in enumerate(zip(places([row[5] for row in rows], 32), rows)):
        _, expanded, features, squeeze, *_ = row
        theirs, ours = rf"features\.{i + 1}\.block", f"stage{place.level}/block{place.number}"
        rules += inverted(theirs, ours, expand=expanded != c, squeeze=squeeze)
        c = features
    return rules + ending(len(rows) + 1, last) + [Rule(r"classifier\..*", None)]


def torchvision_lraspp(encoder: Iterable[Rule]) -> list[Rule]:
    """Rules of torchvision's `lraspp_mobilenet_v3_large`, from those of its encoder (`torchvision_v3_large()`)."""
    bare = [
        rule._replace(pattern=rule.pattern.removeprefix(r"features\."))
        for rule in encoder
        if not re.match(r"classifier", rule.pattern)
    ]
    return [
        *prefixed(bare, r"backbone\.", "encoder"),
        *sequence(r"classifier\.cbr", "project"),
        *layer(r"classifier\.scale\.1", "scale"),
        *layer(r"classifier\.low_classifier", "head_low"),
        *layer(r"classifier\.high_classifier", "head"),
    ]


def inverted(theirs: str, ours: str, *, expand: bool, squeeze: bool) -> list[Rule]:
    """Rules of the numbered layers of an inverted residual block, with squeeze-and-excitation if `squeeze` is set."""
    parts = ["expand"] * expand + ["depthwise"] + ["excite"] * squeeze + ["project"]
    rules = []
    for i, part in enumerate(parts):
        if part == "excite":
            rules += layer(rf"{theirs}\.{i}\.fc1", f"{ours}/excite/reduce")
            rules += layer(rf"{theirs}\.{i}\.fc2", f"{ours}/excite/expand")
        else:
            rules += sequence(rf"{theirs}\.{i}", f"{ours}/{part}")
    return rules


def ending(index: int, last: bool) -> list[Rule]:
    """Rules of the last convolution, features.`index`, which is left out without `last`."""
    return sequence(rf"features\.{index}", "last") if last else [Rule(rf"features\.{index}\..*", None)]


FAMILY = Family(
    encoder_weights=(
        EncoderWeights(
            "mobilenet_v2",
            "imagenet",
            Published("smp-hub/mobilenet_v2.imagenet", revision="e67aa804e17f7b404b629127eabbd224c4e0690b"),
            BSD,
            # The cards of smp-hub say "other" and name the file that was copied.
            "torchvision, of `mobilenet_v2-b0353104.pth`",
        ),
    ),
    encoder_formats=(
        EncoderFormat(("mobilenet_v2",), torchvision_v2, (SMP,)),
        EncoderFormat(("mobilenet_v3_large",), torchvision_v3_large, (TORCHVISION,)),
        EncoderFormat(("mobilenet_v3_small",), torchvision_v3_small),
    ),
    network_formats=(
        NetworkFormat(
            "lraspp",
            TORCHVISION,
            torchvision_lraspp,
            takes=("encoder",),
            form=PeerForm(
                {"act": "relu", "low_stride": 8, "encoder_args": {"output_stride": 16, "tap": "first"}},
                sizes={"width": 128},
            ),
        ),
    ),
    torchvision_files=(
        "mobilenet_v2-7ebf99e0",
        "mobilenet_v2-b0353104",
        "mobilenet_v3_large-5c1a4163",
        "mobilenet_v3_large-8738ca79",
        "mobilenet_v3_small-047dcff4",
        "lraspp_mobilenet_v3_large-d234d4ea",
    ),
)

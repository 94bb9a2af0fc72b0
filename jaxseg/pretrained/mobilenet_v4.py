"""MobileNetV4 (convolutional) of timm; the layers after its last stage are left out."""

import functools

from jaxseg.models.encoders.mobilenet import places
from jaxseg.models.encoders.mobilenet_v4 import ROWS
from jaxseg.pretrained.family import APACHE, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm

_UNIVERSAL = (("dw_start", "start"), ("pw_exp", "expand"), ("dw_mid", "depthwise"), ("pw_proj", "project"))


def timm(rows: tuple[tuple, ...], *, last: bool = False) -> list[Rule]:
    """Rules of timm's `mobilenetv4_conv_*`, whose stages begin with the blocks that have a stride.

    Args:
        rows: the encoder's field of that name.
        last: whether the encoder has the last convolution, which is left out otherwise.
    """
    rules = conv_norm("conv_stem", "bn1", "stem")
    where = places([row[2] for row in rows], 32)
    for place, (start, _, _, expansion, _) in zip(where, rows):
        # Each level but the stem's is a stage there.
        theirs, ours = rf"blocks\.{place.level - 1}\.{place.number - 1}\.", f"stage{place.level}/block{place.number}"
        if not expansion:
            rules += conv_norm(rf"{theirs}conv", rf"{theirs}bn1", ours)
        elif start == "fused":
            rules += conv_norm(rf"{theirs}conv_exp", rf"{theirs}bn1", f"{ours}/expand")
            rules += conv_norm(rf"{theirs}conv_pwl", rf"{theirs}bn2", f"{ours}/project")
        else:
            for part, our in _UNIVERSAL:
                rules += conv_norm(rf"{theirs}{part}\.conv", rf"{theirs}{part}\.bn", f"{ours}/{our}")
    after = rf"blocks\.{where[-1].level}\.0\."
    rules += conv_norm(rf"{after}conv", rf"{after}bn1", "last") if last else [Rule(rf"{after}.*", None)]
    return [*rules, Rule(r"(?:conv_head|norm_head|classifier)\..*", None)]


_RECIPES = {"small": "e2400_r224", "medium": "e500_r256", "large": "e600_r384"}

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(
            f"mobilenet_v4_conv_{size}", "imagenet", Published(f"timm/mobilenetv4_conv_{size}.{recipe}_in1k"), APACHE
        )
        for size, recipe in _RECIPES.items()
    ),
    encoder_formats=tuple(
        EncoderFormat((f"mobilenet_v4_conv_{size}",), functools.partial(timm, rows)) for size, rows in ROWS.items()
    ),
)

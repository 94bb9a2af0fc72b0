"""ConvNeXt and ConvNeXt V2 of torchvision, timm and transformers; what follows the last stage is left out."""

import numpy as np

from jaxseg.pretrained.family import (
    APACHE,
    SMP,
    TRANSFORMERS,
    EncoderFormat,
    EncoderWeights,
    Family,
    Published,
    Withheld,
)
from jaxseg.pretrained.rules import Rule, Transform, layer, norm, pointwise, unchanged

_STAGES = 4
_MOST_BLOCKS = 27  # of a stage: ConvNeXt-S, B and L


def _scale(x: np.ndarray) -> np.ndarray:
    """Layer scale f[c,1,1] -> f[c]."""
    return x[:, 0, 0]


def torchvision() -> list[Rule]:
    """Rules of torchvision's `convnext_*`: features.1, 3, 5, 7 are the stages; 0, 2, 4, 6 the layers before each."""
    rules = layer(r"features\.0\.0", "stem") + norm(r"features\.0\.1", "stem_norm")
    for i in range(_STAGES):
        if i > 0:
            rules += norm(rf"features\.{2 * i}\.0", f"stage{i}/norm")
            rules += layer(rf"features\.{2 * i}\.1", f"stage{i}/reduce")
        for j in range(_MOST_BLOCKS):
            names = (r"block\.0", r"block\.2", r"block\.3", r"block\.5", "layer_scale")
            rules += _block(rf"features\.{2 * i + 1}\.{j}\.", f"stage{i}/block{j + 1}", names, _scale)
    return [*rules, Rule(r"classifier\..*", None)]


def timm() -> list[Rule]:
    """Rules of timm's `convnext_*`: classifiers, and (with underscores) models that only return features."""
    rules = layer(r"stem[._]0", "stem") + norm(r"stem[._]1", "stem_norm")
    for i in range(_STAGES):
        if i > 0:
            rules += norm(rf"stages[._]{i}\.downsample\.0", f"stage{i}/norm")
            rules += layer(rf"stages[._]{i}\.downsample\.1", f"stage{i}/reduce")
        for j in range(_MOST_BLOCKS):
            names = ("conv_dw", "norm", r"mlp\.fc1", r"mlp\.fc2", "gamma")
            theirs, ours = rf"stages[._]{i}\.blocks\.{j}\.", f"stage{i}/block{j + 1}"
            rules += [*_block(theirs, ours, names), *_response(rf"{theirs}mlp\.grn", ours)]
    return [*rules, Rule(r"head\..*", None)]


def transformers() -> list[Rule]:
    """Rules of transformers' `ConvNextBackbone`, with its norm of each level (`output_norm`)."""
    rules = layer(r"embeddings\.patch_embeddings", "stem") + norm(r"embeddings\.layernorm", "stem_norm")
    for i in range(_STAGES):
        if i > 0:
            rules += norm(rf"encoder\.stages\.{i}\.downsampling_layer\.0", f"stage{i}/norm")
            rules += layer(rf"encoder\.stages\.{i}\.downsampling_layer\.1", f"stage{i}/reduce")
        for j in range(_MOST_BLOCKS):
            names = ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter")
            theirs, ours = rf"encoder\.stages\.{i}\.layers\.{j}\.", f"stage{i}/block{j + 1}"
            rules += [*_block(theirs, ours, names), *_response(rf"{theirs}grn", ours)]
        rules += norm(rf"hidden_states_norms\.stage{i + 1}", f"norm{i}")
    return rules


def _block(theirs: str, ours: str, names: tuple[str, str, str, str, str], scale: Transform = unchanged) -> list[Rule]:
    """A block; `names` are those of its layers after the prefix `theirs`: depthwise, norm, expand, project, scale."""
    depthwise, norm_, expand, project, gamma = (theirs + name for name in names)
    return [
        *layer(depthwise, f"{ours}/depthwise"),
        *norm(norm_, f"{ours}/norm"),
        *layer(expand, f"{ours}/expand", pointwise),
        *layer(project, f"{ours}/project", pointwise),
        Rule(gamma, f"params/{ours}/scale", scale),
    ]


def _response(theirs: str, ours: str) -> list[Rule]:
    """The global response normalisation of V2, whose arrays are f[c] or f[1,1,1,c]."""
    return [
        Rule(rf"{theirs}\.weight", f"params/{ours}/response/scale", np.ravel),
        Rule(rf"{theirs}\.bias", f"params/{ours}/response/bias", np.ravel),
    ]


_V2 = tuple(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large"))
_ENCODERS = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(name, "imagenet", Published(f"timm/{name}.fb_in1k"), APACHE) for name in _ENCODERS
    ),
    encoder_formats=(
        EncoderFormat(_ENCODERS, torchvision),
        EncoderFormat(_ENCODERS, timm, (SMP,)),
        EncoderFormat(_ENCODERS, transformers, (TRANSFORMERS,)),
        EncoderFormat(_V2, timm, (SMP,)),
        EncoderFormat(_V2, transformers, (TRANSFORMERS,)),
    ),
    withheld=(
        Withheld(
            _V2,
            "Those of ConvNeXt V2 (timm/convnextv2_* and facebook/convnextv2-*) are under CC BY-NC 4.0, which forbids "
            "commercial use",
        ),
    ),
    torchvision_files=(
        "convnext_tiny-983f1562",
        "convnext_small-0c510722",
        "convnext_base-6075fbad",
        "convnext_large-ea097f82",
    ),
)

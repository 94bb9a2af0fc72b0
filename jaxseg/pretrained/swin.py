"""Swin Transformers and Swin V2 of timm, torchvision, transformers and the authors, up to the last stage.

timm counts the merging of patches with the stage behind it, all others with the stage before it.
"""

from typing import Any

import numpy as np

from jaxseg.pretrained.family import MIT, TRANSFORMERS, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, dense, layer, norm, prefixed

_STAGES = 4
_MOST_BLOCKS = 18  # of a stage: all but the tiny ones
_THREE = ("query", "key", "value")


def timm() -> list[Rule]:
    """Rules of timm's `swin_*` and `swinv2_*`: classifiers, and (with underscores) models that only return features."""
    return _joined(before=False)


def authors() -> list[Rule]:
    """Rules of the authors' files, classifiers and backbones of their networks for segmentation ("norm0", ...)."""
    return [*_joined(before=True), *norm(r"norm(\d)", "norm{1}")]


def _joined(before: bool) -> list[Rule]:
    rules = layer(r"patch_embed\.proj", "stem") + norm(r"patch_embed\.norm", "stem_norm")
    for i in range(_STAGES):
        theirs = rf"layers[._]{i}\."
        if i + before:  # a name that one of them cannot have tells the files apart
            rules += _merging(rf"{theirs}downsample\.", i + before)
        for j in range(_MOST_BLOCKS):
            rules += prefixed(_block(), rf"{theirs}blocks\.{j}\.", f"stage{i}/block{j + 1}")
    return [*rules, Rule(r"(?:norm|head)\..*", None)]


def torchvision() -> list[Rule]:
    """Rules of torchvision's `swin_*`: features.1, 3, 5, 7 are the stages, 2, 4, 6 the mergings before each."""
    rules = layer(r"features\.0\.0", "stem") + norm(r"features\.0\.2", "stem_norm")
    for i in range(_STAGES):
        rules += _merging(rf"features\.{2 * i}\.", i)
        for j in range(_MOST_BLOCKS):
            theirs, ours = rf"features\.{2 * i + 1}\.{j}\.", f"stage{i}/block{j + 1}"
            rules += prefixed(_block(("mlp.0", "mlp.3")), theirs, ours)
    return [*rules, Rule(r"(?:norm|head)\..*", None)]


def _block(mlp: tuple[str, str] = ("mlp.fc1", "mlp.fc2")) -> list[Rule]:
    """Rules of a block; `mlp` are the names of its dense layers. Of V2 some files have biases of the keys, of zeros."""
    kernels, biases = (tuple(f"params/attention/{x}/{leaf}" for x in _THREE) for leaf in ("kernel", "bias"))
    rules = norm("norm1", "norm1") + norm("norm2", "norm2")
    rules.append(Rule(r"attn\.qkv\.weight", kernels, lambda x: [part.T for part in np.split(x, 3)]))
    rules.append(Rule(r"attn\.qkv\.bias", biases, lambda x: np.split(x, 3)))
    rules += [Rule(rf"attn\.{short}_bias", f"params/attention/{name}/bias") for name, short in zip(_THREE, "qkv")]
    rules += layer(r"attn\.proj", "attention/out", dense)
    for name, ours in zip(mlp, ("expand", "reduce")):
        rules += layer(name.replace(".", r"\."), ours, dense)
    return rules + _positions(r"attn\.", "cpb_mlp") + [Rule(r"attn_mask", None)]


def _positions(theirs: str, network: str) -> list[Rule]:
    """Rules of the biases by distance: a table, or the `network` of V2, beside its scale."""
    return [
        Rule(rf"{theirs}relative_position_bias_table", "params/attention/position"),
        Rule(rf"{theirs}logit_scale", "params/attention/log_scale", np.ravel),
        Rule(rf"{theirs}{network}\.0\.weight", "params/attention/position_in", dense),
        Rule(rf"{theirs}{network}\.0\.bias", "params/attention/position_bias"),
        Rule(rf"{theirs}{network}\.2\.weight", "params/attention/position_out", dense),
        Rule(rf"{theirs}(?:relative_position_index|relative_coords_table)", None),
    ]


def _merging(theirs: str, stage: int) -> list[Rule]:
    reduce = Rule(rf"{theirs}reduction\.weight", f"params/stage{stage}/reduce/kernel", dense)
    return [reduce, *norm(rf"{theirs}norm", f"stage{stage}/norm")]


def transformers() -> list[Rule]:
    """Rules of `SwinModel`, `SwinBackbone` and `Swinv2Model`, alone or in a classifier ("swin.")."""
    rules = layer(r"embeddings\.patch_embeddings\.projection", "stem") + norm(r"embeddings\.norm", "stem_norm")
    for i in range(_STAGES):
        rules += _merging(rf"encoder\.layers\.{i}\.downsample\.", i + 1)
        rules += norm(rf"hidden_states_norms\.stage{i + 1}", f"norm{i}")
        for j in range(_MOST_BLOCKS):
            theirs = rf"encoder\.layers\.{i}\.blocks\.{j}\."
            rules += prefixed(_block_transformers(), theirs, f"stage{i}/block{j + 1}")
    rules += [Rule(r"(?:layernorm|pooler)\..*", None), Rule(r"embeddings\.(?:mask_token|position_embeddings)", None)]
    inside = [rule._replace(pattern=r"(?:swin\.|swinv2\.)?" + rule.pattern) for rule in rules]
    return [*inside, Rule(r"classifier\..*", None)]


def _block_transformers() -> list[Rule]:
    """Rules of a block by the names of files, or of the modules of transformers 5."""
    rules = norm("layernorm_before", "norm1") + norm("layernorm_after", "norm2")
    for name in _THREE:
        rules += layer(rf"attention\.(?:self\.{name}|{name[0]}_proj)", f"attention/{name}", dense)
    rules += _positions(r"attention\.(?:self\.|relative_position_bias\.)?", "continuous_position_bias_mlp")
    rules += layer(r"attention\.(?:output\.dense|o_proj)", "attention/out", dense)
    rules += layer(r"(?:intermediate\.dense|mlp\.fc1)", "expand", dense)
    return rules + layer(r"(?:output\.dense|mlp\.fc2)", "reduce", dense)


def _without_key_bias(rules: list[Rule]) -> list[Rule]:
    """The rules for V2, whose keys have no bias: that of the keys in a joined one is left out."""

    def reduced(rule: Rule) -> Rule:
        if isinstance(rule.path, tuple) and rule.path[0].endswith("bias"):
            return rule._replace(path=rule.path[::2], transform=_outer_thirds)
        return rule._replace(path=None) if rule.pattern.endswith("k_bias") else rule

    return [reduced(rule) for rule in rules]


def _outer_thirds(x: np.ndarray) -> list[Any]:
    return np.split(x, 3)[::2]


def timm_v2() -> list[Rule]:
    """Rules of timm's `swinv2_*`."""
    return _without_key_bias(timm())


def authors_v2() -> list[Rule]:
    """Rules of the authors' files of Swin V2."""
    return _without_key_bias(authors())


def torchvision_v2() -> list[Rule]:
    """Rules of torchvision's `swin_v2_*`."""
    return _without_key_bias(torchvision())


_V1 = ("swin_tiny", "swin_small", "swin_base", "swin_large")
_V2 = ("swinv2_tiny", "swinv2_small", "swinv2_base", "swinv2_large")

_PUBLISHED = {
    "swin_tiny": "timm/swin_tiny_patch4_window7_224.ms_in1k",
    "swin_small": "timm/swin_small_patch4_window7_224.ms_in1k",
    "swin_base": "timm/swin_base_patch4_window7_224.ms_in22k_ft_in1k",
    "swin_large": "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    **{name: f"timm/{name}_window8_256.ms_in1k" for name in _V2[:-1]},
    "swinv2_large": "timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
}

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(name, "imagenet", Published(place), MIT) for name, place in _PUBLISHED.items()
    ),
    encoder_formats=(
        EncoderFormat(_V1, timm),
        EncoderFormat(_V1, authors),
        EncoderFormat(_V1, torchvision),
        EncoderFormat(_V1, transformers, (TRANSFORMERS,)),
        EncoderFormat(_V2, timm_v2),
        EncoderFormat(_V2, authors_v2),
        EncoderFormat(_V2, torchvision_v2),
        EncoderFormat(_V2, transformers, (TRANSFORMERS,)),
    ),
    torchvision_files=(
        "swin_t-704ceda3",
        "swin_s-5e29d889",
        "swin_b-68c6b09e",
        "swin_v2_t-b137f0e2",
        "swin_v2_s-637d8ceb",
        "swin_v2_b-781e5279",
    ),
)

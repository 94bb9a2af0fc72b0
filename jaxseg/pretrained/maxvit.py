"""MaxViT of timm (`maxvit_*_tf`, the authors' weights) and of torchvision (`maxvit_t`); classifiers are left out."""

import numpy as np

from jaxseg.pretrained.family import APACHE, HALF, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm, dense, layer, norm, prefixed

_STAGES = 4
_MOST_BLOCKS = 14  # of a stage
_THREE = ("query", "key", "value")


def timm() -> list[Rule]:
    """Rules of timm's `maxvit_*_tf_*`."""
    rules = layer(r"stem\.conv(1|2)", "stem/conv{1}") + norm(r"stem\.norm1", "stem/norm")
    block = prefixed(_conv_of_timm(), r"conv\.", "conv")
    for theirs, ours in (("attn_block", "window"), ("attn_grid", "grid")):
        block += prefixed(_attention_of_timm(), rf"{theirs}\.", ours)
    for i in range(_STAGES):
        for j in range(_MOST_BLOCKS):
            rules += prefixed(block, rf"stages[._]{i}\.blocks\.{j}\.", f"stage{i + 1}/block{j + 1}")
    return [*rules, Rule(r"(?:norm|head)\..*", None)]


def _conv_of_timm() -> list[Rule]:
    rules = norm("pre_norm", "norm") + conv_norm("conv1_1x1", "norm1", "expand")
    rules += conv_norm("conv2_kxk", "norm2", "depthwise") + layer("conv3_1x1", "project")
    rules += layer(r"shortcut\.expand", "shortcut")
    return rules + layer(r"se\.fc1", "excite/reduce") + layer(r"se\.fc2", "excite/expand")


def _attention_of_timm() -> list[Rule]:
    rules = norm("norm1", "norm1") + norm("norm2", "norm2")
    rules += _joined(r"attn\.qkv") + layer(r"attn\.proj", "attention/out", dense)
    rules.append(Rule(r"attn\.rel_pos\.relative_position_bias_table", "params/attention/position", _by_distance))
    return rules + layer(r"mlp\.fc1", "expand", dense) + layer(r"mlp\.fc2", "reduce", dense)


def _joined(theirs: str) -> list[Rule]:
    """Rules of a layer that gives queries, keys and values."""
    kernels, biases = (tuple(f"params/attention/{x}/{leaf}" for x in _THREE) for leaf in ("kernel", "bias"))
    return [
        Rule(rf"{theirs}\.weight", kernels, lambda x: [part.T for part in np.split(x, 3)]),
        Rule(rf"{theirs}\.bias", biases, lambda x: np.split(x, 3)),
    ]


def _by_distance(x: np.ndarray) -> np.ndarray:
    """f[n,2s-1,2s-1] of the distances from query to key -> f[(2s-1)²,n] of those from key to query."""
    return np.transpose(x[:, ::-1, ::-1], (1, 2, 0)).reshape(-1, x.shape[0])


def torchvision() -> list[Rule]:
    """Rules of torchvision's `maxvit_t`, for an encoder with `form="torchvision"`."""
    rules = layer(r"stem\.0\.0", "stem/conv1") + norm(r"stem\.0\.1", "stem/norm") + layer(r"stem\.1\.0", "stem/conv2")
    block = prefixed(_conv_of_torchvision(), r"MBconv\.", "conv")
    for name in ("window", "grid"):
        block += prefixed(_attention_of_torchvision(), rf"{name}_attention\.", name)
    for i in range(_STAGES):
        for j in range(_MOST_BLOCKS):
            rules += prefixed(block, rf"blocks\.{i}\.layers\.{j}\.layers\.", f"stage{i + 1}/block{j + 1}")
    return [*rules, Rule(r"classifier\..*", None)]


def _conv_of_torchvision() -> list[Rule]:
    rules = norm(r"layers\.pre_norm", "norm")
    for theirs, ours in (("conv_a", "expand"), ("conv_b", "depthwise")):
        rules += conv_norm(rf"layers\.{theirs}\.0", rf"layers\.{theirs}\.1", ours)
    for theirs, ours in (("fc1", "reduce"), ("fc2", "expand")):
        rules += layer(rf"layers\.squeeze_excitation\.{theirs}", f"excite/{ours}")
    return rules + layer(r"layers\.conv_c", "project") + layer(r"proj\.1", "shortcut")


def _attention_of_torchvision() -> list[Rule]:
    rules = norm(r"attn_layer\.0", "norm1") + norm(r"mlp_layer\.0", "norm2")
    rules += _joined(r"attn_layer\.1\.to_qkv") + layer(r"attn_layer\.1\.merge", "attention/out", dense)
    rules.append(Rule(r"attn_layer\.1\.relative_position_bias_table", "params/attention/position"))
    rules.append(Rule(r"attn_layer\.1\.relative_position_index", None))
    return rules + layer(r"mlp_layer\.1", "expand", dense) + layer(r"mlp_layer\.3", "reduce", dense)


_ENCODERS = ("maxvit_tiny", "maxvit_small", "maxvit_base", "maxvit_large")

# Those of ImageNet-21k had images of mean and deviation .5.
FAMILY = Family(
    encoder_weights=(
        *(EncoderWeights(name, "imagenet", Published(f"timm/{name}_tf_224.in1k"), APACHE) for name in _ENCODERS),
        *(
            EncoderWeights(name, "imagenet21k", Published(f"timm/{name}_tf_224.in21k", normalised=HALF), APACHE)
            for name in _ENCODERS[2:]
        ),
    ),
    encoder_formats=(EncoderFormat(_ENCODERS, timm), EncoderFormat(_ENCODERS, torchvision)),
    torchvision_files=("maxvit_t-bc5ab103",),
)

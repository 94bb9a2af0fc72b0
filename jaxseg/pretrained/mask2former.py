"""Mask2Former of transformers (facebook/mask2former-*): its decoders."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxseg.pretrained.family import TRANSFORMERS, Family, NetworkFormat
from jaxseg.pretrained.rules import Rule, dense, layer, norm, prefixed

_MOST_LAYERS = 12
# Layers of a deformable attention -> ours.
_ATTENTION = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "value",
    "output_proj": "out",
}


def mask2former_transformers() -> list[Rule]:
    """Rules of `Mask2FormerForUniversalSegmentation` without its encoder (model.pixel_level_module.encoder)."""
    rules = prefixed(_pixel_decoder(), r"model\.pixel_level_module\.decoder\.", "decoder")
    theirs = r"model\.transformer_module\."
    rules += [
        Rule(theirs + r"queries_embedder\.weight", "params/query_position", lambda x: x[None]),
        Rule(theirs + r"queries_features\.weight", "params/query", lambda x: x[None]),
        Rule(theirs + r"level_embed\.weight", "params/level"),
    ]
    rules += norm(theirs + r"decoder\.layernorm", "query_norm")
    for n in range(_MOST_LAYERS):
        rules += prefixed(_query_layer(), theirs + rf"decoder\.layers\.{n}\.", f"layer{n + 1}")
    for n in range(3):
        rules += layer(theirs + rf"decoder\.mask_predictor\.mask_embedder\.{n}\.0", f"mask_head/dense{n + 1}", dense)
    rules += layer(r"class_predictor", "head", dense)
    return [*rules, Rule(r"criterion\.empty_weight", None)]


def _pixel_decoder() -> list[Rule]:
    rules = [Rule(r"level_embed", "params/level")]
    rules += layer(r"input_projections\.(\d+)\.0", "project{1}")
    rules += norm(r"input_projections\.(\d+)\.1", "project_norm{1}")
    rules += layer(r"mask_projection", "mask")
    for i in range(_MOST_LAYERS):
        theirs, ours = rf"encoder\.layers\.{i}\.", f"layer{i + 1}"
        for name, short in _ATTENTION.items():
            rules += layer(theirs + rf"self_attn\.{name}", f"{ours}/attention/{short}", dense)
        rules += norm(theirs + r"self_attn_layer_norm", f"{ours}/attention_norm")
        rules += prefixed(_feed_forward(), theirs, f"{ours}/ffn")
        rules += layer(rf"adapter_{i + 1}\.0", f"lateral{i}") + norm(rf"adapter_{i + 1}\.1", f"lateral_norm{i}")
        rules += layer(rf"layer_{i + 1}\.0", f"output{i}") + norm(rf"layer_{i + 1}\.1", f"output_norm{i}")
    return rules


def _feed_forward() -> list[Rule]:
    return layer(r"fc1", "expand", dense) + layer(r"fc2", "reduce", dense) + norm(r"final_layer_norm", "norm")


def _query_layer() -> list[Rule]:
    rules = norm(r"self_attn_layer_norm", "self_norm") + norm(r"cross_attn_layer_norm", "cross_norm")
    for name, short in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        rules += layer(rf"self_attn\.{short}_proj", f"self/{name}", dense)
    three = ("query", "key", "value")
    rules.append(Rule(r"cross_attn\.in_proj_weight", tuple(f"params/cross/{n}/kernel" for n in three), _thirds(dense)))
    rules.append(Rule(r"cross_attn\.in_proj_bias", tuple(f"params/cross/{n}/bias" for n in three), _thirds(np.asarray)))
    rules += layer(r"cross_attn\.out_proj", "cross/out", dense)
    return rules + prefixed(_feed_forward(), "", "ffn")


def _thirds(transform: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], list[Any]]:
    return lambda x: [transform(part) for part in np.split(x, 3)]


FAMILY = Family(network_formats=(NetworkFormat("mask2former", TRANSFORMERS, mask2former_transformers),))

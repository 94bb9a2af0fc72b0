"""Vision transformers of transformers (DINOv2, DINOv3, ViT, MAE, CLIP, SigLIP) and of timm and the authors of DINOv2.

The rules know the names of files on the Hub and those of the modules of transformers 5. Mask tokens, poolers,
classifiers, decoders of the pretraining and the text towers of CLIP and SigLIP have no counterpart and are left out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxseg.pretrained.family import (
    APACHE,
    HALF,
    MIT,
    SMP,
    TRANSFORMERS,
    EncoderFormat,
    EncoderWeights,
    Family,
    Normalisation,
    Published,
    Withheld,
)
from jaxseg.pretrained.rules import Rule, dense, layer, norm, prefixed

_MOST_BLOCKS = 24  # of a large one


def transformers(blocks: str = r"(?:encoder\.layer|layers)", out: str = r"(?:output\.dense|o_proj)") -> list[Rule]:
    """Rules of `Dinov2Model`, `Dinov2WithRegistersModel`, `ViTModel` and `ViTMAEModel`; of others, see `dinov3`.

    Args:
        blocks: regular expression of what stands before the number of a block.
        out: of the last layer of an attention.
    """
    rules = [
        Rule(r"embeddings\.cls_token", "params/stem/class_token"),
        Rule(r"embeddings\.position_embeddings", "params/stem/position"),
        Rule(r"embeddings\.register_tokens", "params/stem/registers"),
        Rule(r"embeddings\.mask_token", None),
        Rule(r"(?:pooler|classifier|decoder)\..*", None),
    ]
    rules += layer(r"embeddings\.patch_embeddings(?:\.projection)?", "stem/patch")
    rules += norm(r"(?:layernorm|norm)", "norm")
    for n in range(_MOST_BLOCKS):
        rules += prefixed(_block_transformers(out), rf"{blocks}\.{n}\.", f"block{n + 1}")
    return rules


def dinov3() -> list[Rule]:
    """Rules of `DINOv3ViTModel`."""
    return transformers(r"(?:model\.)?layer")


def of_eomt() -> list[Rule]:
    """Rules of the encoder in `EomtForUniversalSegmentation`, whose positions are those of the patches alone."""
    rules = [rule for rule in transformers("layers", "out_proj") if rule.path != "params/stem/position"]
    return [*rules, Rule(r"embeddings\.position_embeddings\.weight", "params/stem/position", _as_tokens)]


def _block_transformers(out: str) -> list[Rule]:
    rules = norm(r"(?:norm1|layernorm_before)", "norm1") + norm(r"(?:norm2|layernorm_after)", "norm2")
    for name, short in (("query", "q"), ("key", "k"), ("value", "v")):
        rules += layer(rf"attention\.(?:attention\.{name}|{short}_proj)", f"attention/{name}", dense)
    rules += layer(rf"attention\.{out}", "attention/out", dense)
    rules += [Rule(rf"layer_scale{i}\.lambda1", f"params/scale{i}") for i in (1, 2)]
    rules += layer(r"(?:mlp\.fc1|mlp\.up_proj|intermediate\.dense)", "expand", dense)
    return rules + layer(r"(?:mlp\.fc2|mlp\.down_proj|output\.dense)", "reduce", dense)


def towers() -> list[Rule]:
    """Rules of `CLIPVisionModel` and `SiglipVisionModel`, alone or as a tower ("vision_model.") beside one of texts."""
    rules = [
        Rule(r"embeddings\.class_embedding", "params/stem/class_token", _as_token),
        Rule(r"embeddings\.position_embedding\.weight", "params/stem/position", _as_tokens),
        Rule(r"embeddings\.position_ids", None),
        Rule(r"head\..*", None),
    ]
    rules += layer(r"embeddings\.patch_embedding", "stem/patch")
    rules += norm(r"pre_layrnorm", "stem/norm") + norm(r"post_layernorm", "norm")
    for n in range(_MOST_BLOCKS):
        theirs, ours = rf"encoder\.layers\.{n}\.", f"block{n + 1}"
        rules += norm(theirs + r"layer_norm1", f"{ours}/norm1") + norm(theirs + r"layer_norm2", f"{ours}/norm2")
        for name, short in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
            rules += layer(theirs + rf"self_attn\.{short}_proj", f"{ours}/attention/{name}", dense)
        rules += layer(theirs + r"mlp\.fc1", f"{ours}/expand", dense)
        rules += layer(theirs + r"mlp\.fc2", f"{ours}/reduce", dense)
    others = r"text_model\..*|(?:visual|text)_projection\.weight|logit_scale|logit_bias"
    inside = [rule._replace(pattern=r"(?:vision_model\.)?" + rule.pattern) for rule in rules]
    return [*inside, Rule(others, None)]


def timm() -> list[Rule]:
    """Rules of timm's `vit_*` and of the files of DINOv2's authors: queries, keys and values are one layer there."""
    rules = [
        Rule(r"cls_token", "params/stem/class_token"),
        Rule(r"pos_embed", "params/stem/position"),
        Rule(r"(?:reg_token|register_tokens)", "params/stem/registers"),
        Rule(r"mask_token", None),
        Rule(r"(?:head|fc_norm|attn_pool|decoder_blocks|decoder_embed|decoder_norm|decoder_pred)\..*", None),
    ]
    rules += layer(r"patch_embed\.proj", "stem/patch") + norm(r"norm_pre", "stem/norm") + norm(r"norm", "norm")
    three = ("query", "key", "value")
    for n in range(_MOST_BLOCKS):
        theirs, ours = rf"blocks\.{n}\.", f"block{n + 1}"
        rules += norm(theirs + "norm1", f"{ours}/norm1") + norm(theirs + "norm2", f"{ours}/norm2")
        kernels, biases = (tuple(f"params/{ours}/attention/{x}/{leaf}" for x in three) for leaf in ("kernel", "bias"))
        rules.append(Rule(theirs + r"attn\.qkv\.weight", kernels, _thirds(dense)))
        rules.append(Rule(theirs + r"attn\.qkv\.bias", biases, _thirds(np.asarray)))
        rules += layer(theirs + r"attn\.proj", f"{ours}/attention/out", dense)
        rules += [Rule(theirs + rf"ls{i}\.gamma", f"params/{ours}/scale{i}") for i in (1, 2)]
        rules += layer(theirs + r"mlp\.fc1", f"{ours}/expand", dense)
        rules += layer(theirs + r"mlp\.fc2", f"{ours}/reduce", dense)
    return rules


def _as_token(x: np.ndarray) -> np.ndarray:
    """f[c] -> f[1,1,c]."""
    return x[None, None]


def _as_tokens(x: np.ndarray) -> np.ndarray:
    """f[t,c] -> f[1,t,c]."""
    return x[None]


def _thirds(transform: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], list[Any]]:
    return lambda x: [transform(part) for part in np.split(x, 3)]


_SIZES = ("small", "base", "large")
_PLAIN = tuple(f"vit_{size}" for size in _SIZES)
_DINOV2 = tuple(f"vit_{size}_dinov2" for size in _SIZES)
_REGISTERS = tuple(f"vit_{size}_dinov2_reg" for size in _SIZES)
_DINOV3 = tuple(f"vit_{size}_dinov3" for size in _SIZES)
_MAE = ("vit_base_mae", "vit_large_mae")
_TOWERS = ("vit_base_clip", "vit_large_clip", "vit_base_siglip2", "vit_large_siglip2")

_OF_CLIP: Normalisation = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

_PUBLISHED = {
    **{
        ("imagenet", name): Published(f"timm/{name}_patch16_224.augreg_in21k_ft_in1k", normalised=HALF)
        for name in _PLAIN
    },
    **{
        ("google", f"vit_{size}"): Published(f"google/vit-{size}-patch16-224", normalised=HALF)
        for size in ("base", "large")
    },
    **{("dinov2", f"vit_{size}_dinov2"): Published(f"facebook/dinov2-{size}") for size in _SIZES},
    **{("dinov2", f"vit_{size}_dinov2_reg"): Published(f"facebook/dinov2-with-registers-{size}") for size in _SIZES},
    ("clip", "vit_base_clip"): Published("openai/clip-vit-base-patch16", normalised=_OF_CLIP),
    ("clip", "vit_large_clip"): Published("openai/clip-vit-large-patch14", normalised=_OF_CLIP),
    ("siglip2", "vit_base_siglip2"): Published("google/siglip2-base-patch16-224", normalised=HALF),
    ("siglip2", "vit_large_siglip2"): Published("google/siglip2-large-patch16-256", normalised=HALF),
}
# Name -> licence, and what states it where it is not the model card.
_LICENCES = {
    "imagenet": (APACHE,),
    "google": (APACHE,),
    "dinov2": (APACHE,),
    "clip": (MIT, "github.com/openai/CLIP"),
    "siglip2": (APACHE, "timm, of its copies"),
}

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(encoder, name, published, *_LICENCES[name]) for (name, encoder), published in _PUBLISHED.items()
    ),
    encoder_formats=(
        EncoderFormat((*_PLAIN, *_DINOV2, *_REGISTERS, *_MAE), transformers, (TRANSFORMERS,)),
        EncoderFormat(_DINOV3, dinov3, (TRANSFORMERS,)),
        EncoderFormat((*_PLAIN, *_DINOV2, *_REGISTERS, *_MAE), timm, (SMP,)),
        EncoderFormat(_TOWERS, towers),
    ),
    withheld=(
        Withheld(
            _DINOV3,
            "Those of DINOv3 (facebook/dinov3-vit*-pretrain-lvd1689m) are under the DINOv3 License, and Meta gives "
            "them to those who ask for them on the Hub",
        ),
        Withheld(
            _MAE,
            "Those of MAE (facebook/vit-mae-base and -large) are under CC BY-NC 4.0, which forbids commercial use",
        ),
    ),
)

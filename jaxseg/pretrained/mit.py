"""Mix Transformers (MiT) and SegFormer, of transformers and of segmentation_models.pytorch; PVTv2 of timm.

Files on the Hub (nvidia/mit-b0, nvidia/segformer-b0-finetuned-ade-512-512, ...) have the names that transformers used
before version 5, and that it still saves. Its modules have other names since then. The rules know both.
"""

import numpy as np

from jaxseg.pretrained.family import (
    APACHE,
    SMP,
    TRANSFORMERS,
    EncoderFormat,
    EncoderWeights,
    Family,
    NetworkFormat,
    PeerForm,
    Published,
    Withheld,
)
from jaxseg.pretrained.rules import Rule, conv, dense, layer, norm, pointwise, prefixed

_MOST_BLOCKS = 40  # of a stage: MiT-B5
_STAGES = 4


def mit_transformers() -> list[Rule]:
    """Rules of `SegformerModel` of transformers, by the names of its files or of its modules."""
    rules = []
    for s in range(_STAGES):
        ours = f"stage{s}"
        rules += layer(rf"(?:encoder\.patch_embeddings\.{s}|stages\.{s}\.patch_embeddings)\.proj", f"{ours}/patch")
        rules += norm(
            rf"(?:encoder\.patch_embeddings\.{s}|stages\.{s}\.patch_embeddings)\.layer_norm", f"{ours}/patch_norm"
        )
        rules += norm(rf"(?:encoder\.layer_norm\.{s}|stages\.{s}\.layer_norm)", f"{ours}/norm")
        for n in range(_MOST_BLOCKS):
            theirs = rf"(?:encoder\.block\.{s}\.{n}|stages\.{s}\.blocks\.{n})\."
            rules += prefixed(_block_transformers(), theirs, f"{ours}/block{n + 1}")
    return rules


def _block_transformers() -> list[Rule]:
    rules = []
    for name, short in (("query", "q"), ("key", "k"), ("value", "v")):
        pattern = rf"attention\.(?:self\.{name}|{short}_proj)"
        rules += layer(pattern, f"attention/attention/{name}", dense)
    rules += layer(r"attention\.(?:output\.dense|o_proj)", "attention/attention/out", dense)
    rules += layer(r"attention\.(?:self\.sr|sequence_reduction\.sequence_reduction)", "attention/reduce")
    rules += norm(r"attention\.(?:self|sequence_reduction)\.layer_norm", "attention/reduce_norm")
    rules += norm(r"(?:layer_norm_1|layernorm_before)", "norm1")
    rules += norm(r"(?:layer_norm_2|layernorm_after)", "norm2")
    rules += layer(r"mlp\.(?:dense1|fc1)", "ffn/expand", pointwise)
    rules += layer(r"mlp\.dwconv\.dwconv", "ffn/depthwise")
    return rules + layer(r"mlp\.(?:dense2|fc2)", "ffn/reduce", pointwise)


def mit_smp() -> list[Rule]:
    """Rules of the mit_b* encoders of segmentation_models.pytorch, which have the names of the authors' release.

    Files of the classifiers hold "head" too, which is left out.
    """
    rules = [Rule(r"head\.(?:weight|bias)", None)]
    for s in range(_STAGES):
        rules += layer(rf"patch_embed{s + 1}\.proj", f"stage{s}/patch")
        rules += norm(rf"patch_embed{s + 1}\.norm", f"stage{s}/patch_norm")
        rules += norm(rf"norm{s + 1}", f"stage{s}/norm")
        for n in range(_MOST_BLOCKS):
            rules += prefixed(_block_smp(), rf"block{s + 1}\.{n}\.", f"stage{s}/block{n + 1}")
    return rules


def pvt_v2_timm() -> list[Rule]:
    """Rules of timm's `pvt_v2_*`; those of the authors' files are `mit_smp`."""
    rules = layer(r"patch_embed\.proj", "stage0/patch") + norm(r"patch_embed\.norm", "stage0/patch_norm")
    for s in range(_STAGES):
        theirs = rf"stages\.{s}\."
        rules += layer(rf"{theirs}downsample\.proj", f"stage{s}/patch")
        rules += norm(rf"{theirs}downsample\.norm", f"stage{s}/patch_norm") + norm(rf"{theirs}norm", f"stage{s}/norm")
        for n in range(_MOST_BLOCKS):
            rules += prefixed(_block_smp(), rf"{theirs}blocks\.{n}\.", f"stage{s}/block{n + 1}")
    return [*rules, Rule(r"head\..*", None)]


def _block_smp() -> list[Rule]:
    both = ("attention/attention/key", "attention/attention/value")
    rules = layer(r"attn\.q", "attention/attention/query", dense)
    rules.append(Rule(r"attn\.kv\.weight", tuple(f"params/{p}/kernel" for p in both), lambda x: np.split(x.T, 2, 1)))
    rules.append(Rule(r"attn\.kv\.bias", tuple(f"params/{p}/bias" for p in both), lambda x: np.split(x, 2)))
    rules += layer(r"attn\.proj", "attention/attention/out", dense)
    rules += layer(r"attn\.sr", "attention/reduce") + norm(r"attn\.norm", "attention/reduce_norm")
    rules += norm(r"norm1", "norm1") + norm(r"norm2", "norm2")
    rules += layer(r"mlp\.fc1", "ffn/expand", pointwise) + layer(r"mlp\.dwconv(?:\.dwconv)?", "ffn/depthwise")
    return rules + layer(r"mlp\.fc2", "ffn/reduce", pointwise)


def segformer_transformers() -> list[Rule]:
    """Rules of `SegformerForSemanticSegmentation` of transformers, by the names of its files or of its modules."""
    rules = prefixed(mit_transformers(), r"segformer\.", "encoder")
    rules += layer(r"decode_head\.(?:linear_c|linear_projections)\.(\d+)\.proj", "decoder/project{1}", pointwise)
    rules.append(Rule(r"decode_head\.linear_fuse\.weight", "params/decoder/fuse/conv/kernel", conv))
    rules += norm(r"decode_head\.batch_norm", "decoder/fuse/norm")
    return rules + layer(r"decode_head\.classifier", "head")


def mit_classifier() -> list[Rule]:
    """Rules of files of ImageNet classifiers (nvidia/mit-b0 to b5) and of SegFormers, whose heads are left out."""
    inside = [rule._replace(pattern=r"segformer\." + rule.pattern) for rule in mit_transformers()]
    return [*inside, Rule(r"(?:classifier|decode_head)\..*", None)]


_ENCODERS = tuple(f"mit_b{n}" for n in range(6))
_PVT_V2 = tuple(f"pvt_v2_b{n}" for n in range(6))


def _segformer_form(encoder: str | None) -> PeerForm:
    return PeerForm({"act": "relu"}, sizes={"features": 256 if encoder in ("mit_b0", "mit_b1") else 768})


FAMILY = Family(
    encoder_weights=tuple(EncoderWeights(name, "imagenet", Published(f"timm/{name}.in1k"), APACHE) for name in _PVT_V2),
    withheld=(
        Withheld(
            _ENCODERS,
            "Those of SegFormer and MiT (nvidia/segformer-b*, nvidia/mit-b*, smp-hub/mit_b*.imagenet) are under the "
            "NVIDIA Source Code License for SegFormer, which allows research and evaluation alone",
            models=("segformer",),
        ),
    ),
    encoder_formats=(
        EncoderFormat(_ENCODERS, mit_transformers),
        EncoderFormat(_ENCODERS, mit_classifier),
        EncoderFormat(_ENCODERS, mit_smp, (SMP,)),
        EncoderFormat(_PVT_V2, pvt_v2_timm),
        EncoderFormat(_PVT_V2, mit_smp),
    ),
    network_formats=(NetworkFormat("segformer", TRANSFORMERS, segformer_transformers, form=_segformer_form),),
)

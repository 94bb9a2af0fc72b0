"""EoMT of transformers (`EomtForUniversalSegmentation`): a vision transformer whose class token has no position.

Its buffer `attn_mask_probs` says whether evaluation has masks: it is 0 after the annealing, as ours with `anneal_end`
above 0, and 1 before it, as ours with 0. It has a number for each block with queries. It is left out, and a note says
where the fields of the network differ from it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxseg.pretrained import vit
from jaxseg.pretrained.family import MIT, TRANSFORMERS, Family, NetworkFormat, NetworkWeights, PeerForm, Published
from jaxseg.pretrained.rules import Rule, conv_transpose, dense, layer, norm, prefixed

_MOST_STEPS = 4  # of the up-sampling


def transformers() -> list[Rule]:
    """Rules of `EomtForUniversalSegmentation`; the weights of classes in its loss are left out."""
    rules = prefixed(vit.of_eomt(), "", "encoder")
    rules.append(Rule(r"query\.weight", "params/query", lambda x: x[None]))
    for i in range(_MOST_STEPS):
        theirs = rf"upscale_block\.block\.{i}\."
        rules += layer(theirs + "conv1", f"upscale/up{i + 1}", conv_transpose)
        rules += layer(theirs + "conv2", f"upscale/depthwise{i + 1}")
        rules += norm(theirs + "layernorm2d", f"upscale/norm{i + 1}")
    for i in (1, 2, 3):
        rules += layer(rf"mask_head\.fc{i}", f"mask/dense{i}", dense)
    return [*rules, *layer("class_predictor", "head", dense), Rule(r"attn_mask_probs|criterion\..*", None)]


_FORM = PeerForm({"encoder_args": {"class_position": False}}, sizes={"queries": 200, "blocks": 4, "up_steps": 2})


def _annealing(arrays: Mapping[str, np.ndarray], network: Any) -> list[str]:
    """Returns the fields in which the network differs from what the buffer says: its length and whether masks stay."""
    shares = next((array for name, array in arrays.items() if name.endswith("attn_mask_probs")), None)
    if shares is None:
        return []
    fields = [] if len(shares) == network.blocks else [f"blocks={len(shares)}"]
    if bool(np.any(shares > 0)) != (network.anneal_end == 0):
        fields.append("anneal_end=0" if np.any(shares > 0) else "anneal_end above 0")
    return fields


def _names(encoder: str | None) -> str:
    """Returns the names in it; the rules of the encoder know those of other models too."""
    del encoder
    return r"(?!.*attention\.attention\.|embeddings\.patch_embeddings\.(?:weight|bias)).*"


FAMILY = Family(
    network_weights=tuple(
        NetworkWeights("eomt", Published(f"tue-mps/{name}"), MIT, "the authors, of `tue-mps/*_dinov3`")
        for name in ("ade20k_semantic_eomt_large_512", "cityscapes_semantic_eomt_large_1024")
    ),
    network_formats=(NetworkFormat("eomt", TRANSFORMERS, transformers, form=_FORM, names=_names, left_out=_annealing),),
)

"""Hiera of SAM 2, of timm and of the authors' files; heads and the rest of SAM 2 are left out."""

import functools
from collections.abc import Sequence

import numpy as np

from jaxseg.pretrained.family import APACHE, EncoderFormat, EncoderWeights, Family, Published, Withheld
from jaxseg.pretrained.rules import Rule, dense, layer, norm, prefixed

_THREE = ("query", "key", "value")
# How the names of all other parts of SAM 2 and 2.1 begin: neck, memory, prompts, decoder of masks, pointers to objects.
# A rule for any name at all would take the names of other networks, and of wrapped ones, too.
_OUTSIDE = r"(?:image_encoder\.neck\.|mask_downsample\.|maskmem_|memory_|no_mem_|no_obj_|obj_ptr_|sam_|head\.).*"
_DEPTHS = {"tiny": (1, 2, 7, 2), "small": (1, 2, 11, 2), "base_plus": (2, 3, 16, 3), "large": (2, 6, 36, 4)}


def rules(depths: Sequence[int]) -> list[Rule]:
    """Rules of timm's `sam2_hiera_*` and of the trunk in files of SAM 2, which count the blocks over all stages.

    Of files of SAM 2 what is outside "image_encoder.trunk." is left out, of timm's the classifier.
    """
    found = layer(r"patch_embed\.proj", "stem/patch")
    found.append(Rule(r"pos_embed", "params/stem/position", _channels_last))
    found.append(Rule(r"pos_embed_window", "params/stem/position_window", _channels_last))
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    for n, (stage, block) in enumerate(places):
        found += prefixed(_block(), rf"blocks\.{n}\.", f"stage{stage}/block{block + 1}")
    trunk = [rule._replace(pattern=r"(?:image_encoder\.trunk\.)?" + rule.pattern) for rule in found]
    return [*trunk, Rule(_OUTSIDE, None)]


def _block() -> list[Rule]:
    kernels, biases = (tuple(f"params/attention/{x}/{leaf}" for x in _THREE) for leaf in ("kernel", "bias"))
    found = norm("norm1", "norm1") + norm("norm2", "norm2")
    found.append(Rule(r"attn\.qkv\.weight", kernels, lambda x: [part.T for part in np.split(x, 3)]))
    found.append(Rule(r"attn\.qkv\.bias", biases, lambda x: np.split(x, 3)))
    found += layer(r"attn\.proj", "attention/out", dense) + layer("proj", "shortcut", dense)
    found += layer(r"mlp\.(?:fc1|layers\.0)", "expand", dense)
    return found + layer(r"mlp\.(?:fc2|layers\.1)", "reduce", dense)


def _channels_last(x: np.ndarray) -> np.ndarray:
    """f[1,c,h,w] -> f[1,h,w,c]."""
    return np.transpose(x, (0, 2, 3, 1))


_ENCODERS = {size: f"sam2_hiera_{size}" for size in _DEPTHS}
_PIXELS = {size: 1024 if size == "large" else 896 for size in _DEPTHS}

FAMILY = Family(
    encoder_weights=tuple(
        EncoderWeights(encoder, name, Published(f"timm/{encoder}.fb_r{_PIXELS[size]}{ending}"), APACHE)
        for size, encoder in _ENCODERS.items()
        for name, ending in (("sam2", ""), ("sam2.1", "_2pt1"))
    ),
    encoder_formats=tuple(
        EncoderFormat((encoder,), functools.partial(rules, _DEPTHS[size])) for size, encoder in _ENCODERS.items()
    ),
    withheld=(
        Withheld(
            tuple(_ENCODERS.values()),
            "Those of the first Hiera (facebook/hiera-*, timm/hiera_*) are of networks with other positions and under "
            "CC BY-NC 4.0, which forbids commercial use",
        ),
    ),
)

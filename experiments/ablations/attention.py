"""Does attention in the decoder help, of which kind, and at how many resolutions?

    python -m jaxseg.sweep --config experiments/ablations/attention.py

One encoder-decoder with concatenated skips. A gate (Oktay et al. 2018) weighs the skip by what the coarser level
knows; self-attention (Vaswani et al. 2017) works on the concatenation. "1" is the decoder's coarsest level alone, 8x8,
"2" that and the next, 16x16. Learning rate 3e-3 and 1200 steps: at the 1e-2 and 800 of the other ablations some seeds
of self-attention stay near the background.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="attention_decoder", model__args={"widths": (8, 16, 32, 64)})
    update(config, optimizer__learning_rate=3e-3, steps=1200, eval__every=300, checkpoint__every=600)
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {"none": {"model__args__attention": False}}
    for kind in ("gate", "self"):
        for levels in (1, 2):
            variants[f"{kind}-{levels}"] = {"model__args__kind": kind, "model__args__levels": levels}
    return Sweep(variants, baseline="none")

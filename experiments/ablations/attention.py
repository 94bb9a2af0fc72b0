"""Does attention in the decoder help, of which kind, and at how many resolutions?

    python -m jaxseg.sweep --config experiments/ablations/attention.py

One encoder-decoder with concatenated skips. A gate (Oktay et al. 2018) weighs the skip by the features of
the coarser level; self-attention (Vaswani et al. 2017) works on the concatenation. "1" has attention at the decoder's
coarsest level alone, 8x8, and "2" at that level and the next, 16x16. The learning rate is 3e-3, a third of that of the
other ablations, for 1200 steps: attention learns badly at high learning rates.

Found on shapes: 5 seeds, after 1200 steps, when all scores still rise: without attention 72.66 ± 4.40 points of mIoU.
Gates (70.78 ± 8.85 at one resolution, 70.81 ± 7.92 at two) and self-attention at one (68.70 ± 9.01) are not separable
from it. Self-attention at two resolutions is lower, 64.51 ± 9.94; the difference has the interval [-15.82, -0.48], for
14 % more parameters and 45 % more operations. Attention does not help here. The likely reason is that colour and nearby
outline distinguish the shapes, and that self-attention learns more slowly. The whole table is
`benchmarks/results/ablations/attention/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "attention_decoder",
        {"widths": (8, 16, 32, 64)},
        optimizer__learning_rate=3e-3,
        steps=1200,
        eval__every=300,
        checkpoint__every=600,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {"none": {"model__args__attention": False}}
    for kind in ("gate", "self"):
        for levels in (1, 2):
            variants[f"{kind}-{levels}"] = {"model__args__kind": kind, "model__args__levels": levels}
    return Sweep(variants, baseline="none")

"""Which loss gives the best mIoU: one that counts pixels, one that looks at overlap, or both?

    python -m jaxseg.sweep --config experiments/ablations/loss.py

One U-Net. "weighted" is cross-entropy with median-frequency class weights.

Found on shapes: cross-entropy 63.67 ± 5.43 points of mIoU, 5 seeds, after 800 steps, where all still rise. Lovasz,
with 75.74 ± 5.03, is above it by an interval of [+3.68, +20.45], and focal below, by [-10.10, -3.02]. Dice (71.06 ±
9.72), its sum with cross-entropy, and class weights are not separable from noise. The whole table is
`benchmarks/results/ablations/loss/table.md`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="unet", model__args={"widths": (8, 16, 32, 64), "dropout": 0.0})
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        "cross_entropy": {"loss__terms": "cross_entropy"},
        "weighted": {"loss__terms": "cross_entropy", "loss__class_weights": "median_frequency"},
        "dice": {"loss__terms": "dice"},
        "cross_entropy+dice": {"loss__terms": "cross_entropy + dice"},
        "focal": {"loss__terms": "focal"},
        "lovasz": {"loss__terms": "lovasz"},
    }
    return Sweep(variants, baseline="cross_entropy")

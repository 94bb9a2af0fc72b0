"""Which loss gives the best mIoU: one that counts pixels, one that looks at overlap, or both?

    python -m jaxseg.sweep --config experiments/ablations/loss.py

One U-Net. "weighted" is cross-entropy with median-frequency class weights.

Found on shapes, 5 seeds (`benchmarks/results/ablations/loss/table.md`): after 800 steps, where all still rise, Lovasz is
12.1 points of mIoU above cross-entropy, with a 95 % interval of [+3.7, +20.5], and focal 6.6 below, [-10.1, -3.0]. Dice
(+7.4), its sum with cross-entropy (+3.3) and class weights (-1.5) are not separable from noise.
"""

from jaxseg.config import ConfigDict, default_config, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
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

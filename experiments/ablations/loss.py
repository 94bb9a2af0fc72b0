"""Which loss gives the best mIoU: one over pixels, one over regions, or their sum?

    python -m jaxseg.sweep --config experiments/ablations/loss.py
    python -m jaxseg.sweep --config experiments/ablations/loss.py:folder --config.data.dir=MY_FOLDER

One U-Net. "weighted" is cross-entropy with median-frequency class weights.

Found on shapes: 5 seeds, after 800 steps, when all scores still rise: cross-entropy gives 63.67 ± 5.43 points of mIoU.
Lovasz is higher, 75.74 ± 5.03; the difference has the interval [+3.68, +20.45]. Focal is lower, with the interval
[-10.10, -3.02]. Dice (71.06 ± 9.72), its sum with cross-entropy, and class weights are not separable from
cross-entropy. The whole table is `benchmarks/results/ablations/loss/table.md`.

Found on nuclei: 3 seeds, images of 64x64 pixels, 300 steps: cross-entropy gives 83.74 ± 0.96 points of mIoU, Dice
83.85 ± 2.11 and Lovasz 83.66 ± 1.67. Neither is separable from cross-entropy; the differences have the intervals
[-2.87, +3.08] and [-1.90, +1.72], which exclude the gain of Lovasz on shapes. The whole table is
`benchmarks/results/ablations/loss-nuclei/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(arg, "unet", {"widths": (8, 16, 32, 64), "dropout": 0.0}, folder={})


def sweep(arg: str | None = None) -> Sweep:
    """Returns the variants: of a folder one loss over pixels and two over regions."""
    variants = {
        "cross_entropy": {"loss__terms": "cross_entropy"},
        "weighted": {"loss__terms": "cross_entropy", "loss__class_weights": "median_frequency"},
        "dice": {"loss__terms": "dice"},
        "cross_entropy+dice": {"loss__terms": "cross_entropy + dice"},
        "focal": {"loss__terms": "focal"},
        "lovasz": {"loss__terms": "lovasz"},
    }
    if arg == "folder":
        variants = {name: variants[name] for name in ("cross_entropy", "dice", "lovasz")}
    return Sweep(variants, baseline="cross_entropy")

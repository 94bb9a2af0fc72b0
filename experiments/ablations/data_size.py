"""How much does more data help?

    python -m jaxseg.sweep --config experiments/ablations/data_size.py

One U-Net trains for the same number of steps on 5, 10, 25, 50 and 100 per cent of 2048 images; each set contains the
smaller ones.

Found on shapes: 5 seeds, after 800 steps, which are 3 epochs of all images and 63 epochs of 5 % of them: all images
give 66.99 ± 7.69 points of mIoU and 10 % of them 59.36 ± 5.82; the difference has the interval [-13.45, -1.80]. 50 %
(68.00 ± 4.67), 25 % (68.44 ± 8.28) and 5 % (60.25 ± 7.70) are not separable from all. So short a run shows no gain from
more than a quarter of the images. The whole table is `benchmarks/results/ablations/data_size/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep

IMAGES = 2048


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(arg, "unet", {"widths": (8, 16, 32, 64), "dropout": 0.0})


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        f"{percent}-percent": {"data__shapes_train": IMAGES * percent // 100} for percent in (5, 10, 25, 50, 100)
    }
    return Sweep(variants, baseline="100-percent")

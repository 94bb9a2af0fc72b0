"""How much does more data help?

    python -m jaxseg.sweep --config experiments/ablations/data_size.py

One U-Net trained for the same number of steps on 5, 10, 25, 50 and 100 per cent of 2048 images; the smaller sets are
parts of the larger ones.

Found on shapes: 5 seeds, after 800 steps, which are 3 passes over all images and 63 over 5 % of them: all images give
66.99 ± 7.69 points of mIoU, 10 % of them 59.36 ± 5.82, less by an interval of [-13.45, -1.80]. A half (68.00 ± 4.67),
a quarter (68.44 ± 8.28) and 5 % (60.25 ± 7.70) are not separable from all. In so short a training nothing shows of
more than a quarter of the images. The whole table is `benchmarks/results/ablations/data_size/table.md`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import for_ablation
from jaxseg.sweep import Sweep

IMAGES = 2048


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="unet", model__args={"widths": (8, 16, 32, 64), "dropout": 0.0})
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        f"{percent}-percent": {"data__shapes_train": IMAGES * percent // 100} for percent in (5, 10, 25, 50, 100)
    }
    return Sweep(variants, baseline="100-percent")

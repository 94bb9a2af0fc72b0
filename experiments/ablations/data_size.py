"""How much does more data help?

    python -m jaxseg.sweep --config experiments/ablations/data_size.py

One U-Net trained for the same number of steps on 5, 10, 25, 50 and 100 per cent of 2048 images; the smaller sets are
parts of the larger ones.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import for_ablation
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

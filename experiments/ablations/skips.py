"""What should a decoder take from the encoder: nothing, features to add, features to concatenate, or SegNet's indices?

    python -m jaxseg.sweep --config experiments/ablations/skips.py

One U-Net. Concatenation costs parameters; the other forms are made as large again by wider coarse levels.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    config = for_ablation(default_config())
    update(config, model__name="unet", model__args={"widths": (8, 16, 34, 68), "dropout": 0.0})
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {name: {"model__args__skip": name} for name in ("none", "add", "indices")}
    variants["concat"] = {"model__args__skip": "concat", "model__args__widths": (8, 16, 32, 64)}
    return Sweep(variants, baseline="none")

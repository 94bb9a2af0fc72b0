"""Deep and narrow or shallow and wide, at equal operations?

    python -m jaxseg.sweep --config experiments/ablations/depth_width.py

One ResUNet; more units a level, and channels that keep the operations of the whole within a tenth.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="resunet", model__args={"widths": (12, 24, 48, 96), "blocks": 1})
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    widths = {1: (12, 24, 48, 96), 2: (9, 18, 36, 72), 4: (7, 14, 24, 48)}
    variants = {
        f"{blocks}x{own[0]}": {"model__args__blocks": blocks, "model__args__widths": own}
        for blocks, own in widths.items()
    }
    return Sweep(variants, baseline="1x12")

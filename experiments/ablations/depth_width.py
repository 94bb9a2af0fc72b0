"""Deep and narrow or shallow and wide, at equal operations?

    python -m jaxseg.sweep --config experiments/ablations/depth_width.py

One ResUNet; more units a level, and channels that keep the operations of the whole within a tenth and, with four
units, the parameters too, for which the coarse levels are narrower than twice the level before.

Found on shapes: 5 seeds, after 800 steps: two units a level give 77.79 ± 6.56 points of mIoU, more than one, 66.69 ±
10.21, by an interval of [+2.76, +19.45]. Four units have a mean of 74.06 ± 18.11, not separable from one: four seeds
are above 80 and one stays at 42. The whole table is `benchmarks/results/ablations/depth_width/table.md`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import for_ablation
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

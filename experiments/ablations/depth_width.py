"""Deep and narrow or shallow and wide, at equal operations?

    python -m jaxseg.sweep --config experiments/ablations/depth_width.py

One ResUNet with one, two or four units a level. The channels keep the operations of the whole network within a tenth.
With four units they keep the parameters too: the coarse levels are narrower than twice the level before.

Found on shapes: 5 seeds, after 800 steps: two units a level give 77.79 ± 6.56 points of mIoU and one unit 66.69 ±
10.21; the difference has the interval [+2.76, +19.45]. Four units give 74.06 ± 18.11, which is not separable from one:
four seeds are above 80 and one stays at 42. The whole table is `benchmarks/results/ablations/depth_width/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(arg, "resunet", {"widths": (12, 24, 48, 96), "blocks": 1})


def sweep() -> Sweep:
    """Returns the variants."""
    widths = {1: (12, 24, 48, 96), 2: (9, 18, 36, 72), 4: (7, 14, 24, 48)}
    variants = {
        f"{blocks}x{channels[0]}": {"model__args__blocks": blocks, "model__args__widths": channels}
        for blocks, channels in widths.items()
    }
    return Sweep(variants, baseline="1x12")

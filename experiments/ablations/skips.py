"""What should a decoder take from the encoder: nothing, features to add, features to concatenate, or SegNet's indices?

    python -m jaxseg.sweep --config experiments/ablations/skips.py

One U-Net. Concatenation costs parameters; no skips and addition are made as large again by wider coarse levels, with a
seventh less operations. The indices also replace the transposed convolution, by unpooling and a 1x1 convolution: 7 %
fewer parameters and a fifth less operations.

Found on shapes: 5 seeds, after 800 steps: without skips 39.11 ± 3.56 points of mIoU; concatenation gives 66.99 ± 7.69,
more by an interval of [+17.71, +38.05], and addition 63.81 ± 5.87, by [+17.96, +31.44]. The indices of the maxima
alone, 32.76 ± 10.74, are not separable from none. The whole table is `benchmarks/results/ablations/skips/table.md`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="unet", model__args={"widths": (8, 16, 34, 68), "dropout": 0.0})
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {name: {"model__args__skip": name} for name in ("none", "add", "indices")}
    variants["concat"] = {"model__args__skip": "concat", "model__args__widths": (8, 16, 32, 64)}
    return Sweep(variants, baseline="none")

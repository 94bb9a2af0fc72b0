"""What should a decoder take from the encoder: nothing, features to add, features to concatenate, or SegNet's indices?

    python -m jaxseg.sweep --config experiments/ablations/skips.py
    python -m jaxseg.sweep --config experiments/ablations/skips.py:folder --config.data.dir=MY_FOLDER

One U-Net. Concatenation needs more parameters. The variants without skips and with addition have wider coarse levels,
and so as many parameters, with a seventh fewer operations. The indices also replace the transposed convolution, by
unpooling and a 1x1 convolution: 7 % fewer parameters and a fifth fewer operations.

Found on shapes: 5 seeds, after 800 steps: without skips 39.11 ± 3.56 points of mIoU. Concatenation gives 66.99 ± 7.69;
the difference has the interval [+17.71, +38.05]. Addition gives 63.81 ± 5.87, with [+17.96, +31.44]. The indices of the
maxima alone, 32.76 ± 10.74, are not separable from no skips. The whole table is
`benchmarks/results/ablations/skips/table.md`.

Found on nuclei: 5 seeds, images of 64x64 pixels, 300 steps: without skips 54.97 ± 10.01 points of mIoU. Concatenation
gives 84.03 ± 1.14; the difference has the interval [+17.52, +40.59]. Addition gives as much, 83.72 ± 0.70, with
[+16.43, +41.07]. The indices, 69.33 ± 2.97, are better than no skips here, by [+3.44, +25.28], and 14.7 points below
concatenation, from 10.8 to 18.5 (95 % interval from `results.jsonl`). The whole table is
`benchmarks/results/ablations/skips-nuclei/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(arg, "unet", {"widths": (8, 16, 34, 68), "dropout": 0.0}, folder={})


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {name: {"model__args__skip": name} for name in ("none", "add", "indices")}
    variants["concat"] = {"model__args__skip": "concat", "model__args__widths": (8, 16, 32, 64)}
    return Sweep(variants, baseline="none")

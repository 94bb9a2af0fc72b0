"""Which activation function trains a small network best in a short run?

    python -m jaxseg.sweep --config experiments/ablations/activation.py
    python -m jaxseg.sweep --config experiments/ablations/activation.py:folder --config.data.dir=MY_FOLDER

One U-Net with batch norm, 400 steps of 8 images. Each 3x3 convolution is followed by a norm and the activation. All
start from He et al.'s initialisation, which is made for ReLU; before a batch norm the scale of a kernel changes no
output.

Found on shapes: 5 seeds, after 400 steps, when all scores still rise: ReLU gives 34.25 ± 9.97 points of mIoU. GELU is
higher, 40.81 ± 10.02; the difference has the interval [+1.39, +11.74]. SiLU (37.88 ± 8.08) is not separable from ReLU.
Tanh and sigmoid are lower, with the intervals [-29.45, -3.01] and [-32.72, -12.34]. The whole table is
`benchmarks/results/ablations/activation/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (8, 16, 32, 64), "dropout": 0.0},
        folder={"steps": 300, "eval__every": 100, "checkpoint__every": 300},
        steps=400,
        eval__every=100,
        checkpoint__every=400,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {name: {"model__args__act": name} for name in ("relu", "gelu", "silu", "tanh", "sigmoid")}
    return Sweep(variants, baseline="relu")

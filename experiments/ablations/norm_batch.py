"""Which norm is best at which batch size?

    python -m jaxseg.sweep --config experiments/ablations/norm_batch.py

One U-Net with batch, group (8 groups of 2 to 4 channels), instance and layer norm, each with batches of 2, 8 and 32
images. All train for the same number of steps; the learning rate is proportional to the square root of the batch size.
Each norm is compared with batch norm at the same batch size, because a larger batch sees more images.

Found on shapes: 5 seeds, after 400 steps: with 2 images batch norm, 14.42 ± 1.45 points of mIoU, is lower than group
norm (19.98 ± 1.14; the difference has the interval [+2.68, +8.45]) and instance norm (22.79 ± 0.80, [+6.30, +10.43]),
though all are far from the end of their training. With 8 images batch norm is the best, 67.85 ± 4.55 against 37.23 ±
2.58 with instance norm, and with 32 images too, 88.22 ± 0.47 against 66.76 ± 6.79. Layer norm, which normalises each
pixel alone, has the lowest mean at each batch size. The whole table is
`benchmarks/results/ablations/norm_batch/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "unet",
        {"widths": (16, 24, 32), "dropout": 0.0},
        steps=400,
        eval__every=100,
        checkpoint__every=200,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {}
    baselines = {}
    for batch in (2, 8, 32):
        for norm in ("batch", "group", "instance", "layer"):
            if norm != "batch":
                baselines[f"{norm}-{batch}"] = f"batch-{batch}"
            variants[f"{norm}-{batch}"] = {
                "model__args__norm": norm,
                "batch_size": batch,
                "optimizer__learning_rate": 1e-2 * (batch / 8) ** 0.5,
            }
    return Sweep(variants, baselines)

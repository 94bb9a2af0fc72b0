"""Which norm is best at which batch size?

    python -m jaxseg.sweep --config experiments/ablations/norm_batch.py

One U-Net; batch, group, instance and layer norm, each with batches of 2, 8 and 32. All see the same number of images;
the learning rate goes with the square root of the batch.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep

IMAGES = 3200


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    config = for_ablation(default_config())
    update(
        config,
        model__name="unet",
        model__args={"widths": (8, 16, 32), "dropout": 0.0},
        data__size=(32, 32),
    )
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {}
    for norm in ("batch", "group", "instance", "layer"):
        for batch in (2, 8, 32):
            steps = IMAGES // batch
            variants[f"{norm}-{batch}"] = {
                "model__args__norm": norm,
                "batch_size": batch,
                "steps": steps,
                "eval__every": steps // 4,
                "checkpoint__every": steps // 2,
                "log__every": steps // 20,
                "schedule__warmup": steps // 10,
                "optimizer__learning_rate": 3e-3 * (batch / 8) ** 0.5,
            }
    return Sweep(variants, baseline="batch-8")

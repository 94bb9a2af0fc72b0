"""Which norm is best at which batch size?

    python -m jaxseg.sweep --config experiments/ablations/norm_batch.py

One U-Net; batch, group (8 groups of 2 to 4 channels), instance and layer norm, each with batches of 2, 8 and 32. All
take the same number of steps; the learning rate goes with the square root of the batch. Each norm is compared with
batch norm at its own batch size: a larger batch sees more images.

Found on shapes: not yet measured.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(config, model__name="unet", model__args={"widths": (16, 24, 32), "dropout": 0.0}, steps=400)
    update(config, eval__every=100, checkpoint__every=200)
    return config


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

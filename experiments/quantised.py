"""A U-Net that trains with kernels and activations of 8 bits (Jacob et al. 2018; Krishnamoorthi 2018).

    python -m jaxseg.train --config experiments/quantised.py --workdir runs/quantised
    python -m jaxseg.quantise --workdir runs/quantised --out runs/quantised-int8

The second command writes the network in whole numbers, with the ranges that the training learned. A network that was
trained in float32 goes on from its run: `--config.model.weights=WORKDIR`, with a tenth of the learning rate and a fifth
of the steps. docs/quantised.md has the measured table.

Shapes validation mIoU: .820 (500 steps of 32x32 pixels from random parameters, one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "unet",
        shapes={"widths": (16, 32, 64)},
        full={"widths": (64, 128, 256, 512, 1024)},
        shapes_keys={
            "data__size": (32, 32),
            "data__shapes_train": 2048,
            "data__shapes_val": 256,
            "steps": 500,
            "batch_size": 16,
            "eval__every": 250,
            "checkpoint__every": 250,
            "optimizer__learning_rate": 1e-2,
        },
        quantise__weights=8,
        quantise__activations=8,
    )

"""A U-Net of which half of the weights become 0 while it trains (Zhu and Gupta 2017, section 3).

    python -m jaxseg.train --config experiments/pruning.py
    python -m jaxseg.shrink --workdir runs/pruning --out runs/smaller --channels .5

The first command prunes single weights by their magnitude, in the first half of the steps (`prune.sparsity`). The
second removes whole channels of any trained U-Net; docs/smaller.md says how to fine-tune what it writes.

Shapes validation mIoU: .342 (mean of seeds 0, 1 and 2 after 600 steps of 32x32 pixels: .376, .321, .328; the same
network without pruning has .474 in experiments/distillation.py, and with `prune.sparsity=.9` .206, .122 and .103, the
last of which is background alone).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32)},
        full={"widths": (16, 32, 64, 128)},
        shapes_keys={
            "data__size": (32, 32),
            "data__shapes_train": 2048,
            "steps": 600,
            "batch_size": 8,
            "eval__every": 300,
            "checkpoint__every": 300,
            "optimizer__learning_rate": 1e-2,
        },
        prune__sparsity=0.5,
    )

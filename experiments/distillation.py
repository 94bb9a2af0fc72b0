"""A small U-Net that learns from a larger one (Hinton et al. 2015; Shu et al. 2021; Romero et al. 2015).

    python -m jaxseg.train --config experiments/distillation.py:shapes --workdir runs/teacher \
        --config.model.args.widths=16,32,64
    python -m jaxseg.train --config experiments/distillation.py --config.distill.teacher=runs/teacher

The first command trains the teacher, the second the student; `distill.kind` chooses what the student compares. Without
`distill.teacher` the student learns from the labels alone. docs/smaller.md has the measured table.

Shapes validation mIoU: .474 (the student from labels alone, mean of 3 seeds after 600 steps of 32x32 pixels; with
`channel` .501, `pixel` .445, `feature` .429, not separable by 3 seeds; the teacher .710, one seed).
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
    )

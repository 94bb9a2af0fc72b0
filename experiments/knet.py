"""K-Net (Zhang et al. 2021) over UPerNet: the classifier's kernels are updated by the features that their maps gather.

    python -m jaxseg.train --config experiments/knet.py
    python -m jaxseg.train --config experiments/knet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/knet.py:folder --config.data.dir=MY_FOLDER

The maps of the decode head and of each round weigh like the logits, the auxiliary head .4, as in the authors' code.

Shapes validation mIoU: .752 (one core, ended and resumed; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "knet",
        shapes={
            "width": 64,
            "finest": 1,
            "num_heads": 4,
            "hidden": 128,
            "aux_width": 32,
            "encoder": "residual",
            "encoder_args": {"widths": (16, 32, 64, 128)},
        },
        full={"encoder": "resnet50"},
        shapes_keys={"optimizer__learning_rate": 1e-3},
        loss__aux_weights=(1.0, 1.0, 1.0, 0.4),
        # As in the authors' code, configs/seg/_base_/schedules/schedule_adamw_80k.py of github.com/ZwwWayne/K-Net. The
        # warm-up and the decay of the rate are not theirs: 1000 of 80,000 steps, and a tenth after 60,000 and 72,000.
        optimizer__learning_rate=1e-4,
        optimizer__weight_decay=5e-4,
        optimizer__clip=1.0,
    )

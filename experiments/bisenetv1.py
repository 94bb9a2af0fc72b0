"""BiSeNet (Yu et al. 2018): a spatial path for details beside a context path over a ResNet, and a gated fusion.

    python -m jaxseg.train --config experiments/bisenetv1.py
    python -m jaxseg.train --config experiments/bisenetv1.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/bisenetv1.py:folder --config.data.dir=MY_FOLDER

The auxiliary heads of the context path weigh like the logits, as in the paper.

Shapes validation mIoU: .662 (1.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "bisenetv1",
        shapes={
            "spatial_width": 16,
            "context_width": 32,
            "width": 64,
            "head_width": 32,
            "aux_width": 16,
            "encoder": "resnet18",
            "encoder_args": {"widths": (16, 16, 32, 64, 128), "depths": (1, 1, 1, 1)},
        },
        full={"encoder": "resnet18"},
        loss__aux_weight=1.0,
    )

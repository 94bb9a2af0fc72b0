"""STDC-Seg (Fan et al. 2021): one path of dense short convolutions, whose fine features learn where details are.

    python -m jaxseg.train --config experiments/stdc.py
    python -m jaxseg.train --config experiments/stdc.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/stdc.py:folder --config.data.dir=MY_FOLDER

The loss has the detail term of the paper, and the auxiliary heads weigh like the logits. The variants camvid, folder
and voc have STDC1-Seg; `--config.model.args.encoder=stdc2` is STDC2-Seg.

Shapes validation mIoU: .547 (1.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "stdc",
        shapes={
            "context_width": 32,
            "width": 64,
            "detail_width": 16,
            "aux_width": 16,
            "encoder": "stdc1",
            "encoder_args": {"widths": (16, 32, 64, 128, 256), "depths": (2, 1, 1)},
        },
        full={"encoder": "stdc1"},
        loss__terms="cross_entropy + dice + detail",
        loss__aux_weight=1.0,
    )

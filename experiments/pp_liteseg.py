"""PP-LiteSeg (Peng et al. 2022): STDC, summed pyramid pooling and a narrow decoder that fuses by attention.

    python -m jaxseg.train --config experiments/pp_liteseg.py
    python -m jaxseg.train --config experiments/pp_liteseg.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/pp_liteseg.py:folder --config.data.dir=MY_FOLDER

The auxiliary heads weigh like the logits, as in the authors' code. The variants camvid, folder and voc have
PP-LiteSeg-T; docs/realtime.md has the fields of PP-LiteSeg-B.

Shapes validation mIoU: .560 (2.0 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "pp_liteseg",
        shapes={
            "widths": (16, 32, 64),
            "context_width": 64,
            "head_width": 16,
            "aux_width": 16,
            "encoder": "stdc1",
            "encoder_args": {"widths": (16, 32, 64, 128, 256), "depths": (2, 1, 1)},
        },
        full={"encoder": "stdc1"},
        loss__aux_weight=1.0,
    )

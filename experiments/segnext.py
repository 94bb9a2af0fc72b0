"""SegNeXt (Guo et al. 2022): attention made of convolutions, and a matrix factorisation as the context.

    python -m jaxseg.train --config experiments/segnext.py
    python -m jaxseg.train --config experiments/segnext.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/segnext.py:folder --config.data.dir=MY_FOLDER

The variants camvid, folder and voc have SegNeXt-T. The other sizes: `encoder=mscan_small`; `mscan_base` with
`width=512` and `rank=64`; `mscan_large` with `width=1024` and `rank=64`, all in `model.args`.

Shapes validation mIoU: .811 (7.0 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "segnext",
        shapes={
            "width": 64,
            "finest": 4,
            "encoder": "mscan_tiny",
            "encoder_args": {"widths": (32, 64), "depths": (2, 2), "mlp_ratios": (4, 4)},
        },
    )

"""EncNet (Zhang et al. 2018): gates channels by an encoding of the context, and predicts which classes there are.

    python -m jaxseg.train --config experiments/encnet.py
    python -m jaxseg.train --config experiments/encnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/encnet.py:folder --config.data.dir=MY_FOLDER

camvid and voc train on crops and score larger images, so there the encoding is a mean over pixels, not the paper's sum.

Shapes validation mIoU: .915 (11.4 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    if variant == "shapes":
        small = {"encoder": "residual", "encoder_args": {"widths": (24, 48, 96), "blocks": 2}}
        args = small | {"width": 64, "codewords": 16, "dropout": 0.0}
    else:
        args = {"aggregate": "sum" if variant == "folder" else "mean"}
    update(
        config,
        model__name="encnet",
        model__args=args,
        loss__terms="cross_entropy + dice + 0.2 * semantic_encoding",
        loss__aux_weight=0.2,
    )
    return config

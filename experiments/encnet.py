"""EncNet (Zhang et al. 2018): an encoding of the context gates the channels and predicts which classes are present.

    python -m jaxseg.train --config experiments/encnet.py
    python -m jaxseg.train --config experiments/encnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/encnet.py:folder --config.data.dir=MY_FOLDER

The variants camvid and voc train on crops and score larger images. Their encoding is a mean over the pixels, where the
paper has a sum, which would grow with the image.

Shapes validation mIoU: .915 (11.4 minutes on one core, with other programs running; one seed).
It is from before the encoder had norms behind its levels.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "encnet",
        shapes={
            "encoder": "residual",
            "encoder_args": {"widths": (24, 48, 96), "blocks": 2},
            "width": 64,
            "codewords": 16,
            "dropout": 0.0,
        },
        full={"aggregate": "sum" if arg == "folder" else "mean"},
        loss__terms="cross_entropy + dice + 0.2 * semantic_encoding",
        loss__aux_weight=0.2,
    )

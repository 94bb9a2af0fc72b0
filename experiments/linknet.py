"""LinkNet (Chaurasia and Culurciello 2017): a light decoder whose skips are added.

    python -m jaxseg.train --config experiments/linknet.py
    python -m jaxseg.train --config experiments/linknet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/linknet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .863 (14.9 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "linknet",
        shapes={"width": 32, "finest": 1, "encoder": "plain", "encoder_args": {"widths": (32, 64, 128)}},
        full={"encoder": "resnet18"},
    )

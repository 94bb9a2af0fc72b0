"""OCRNet (Yuan, Chen and Wang 2020) over HRNet-W48: pixels attend to the objects of a first guess.

    python -m jaxseg.train --config experiments/ocrnet.py
    python -m jaxseg.train --config experiments/ocrnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/ocrnet.py:folder --config.data.dir=MY_FOLDER

The auxiliary loss on the first guess has the paper's weight of .4. The shapes variant has a narrow HRNet of three
branches from half the resolution down.

Shapes validation mIoU: .898 (10.2 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    small = {
        "encoder": "hrnet_w18",
        "encoder_args": {
            "width": 12, "stem": 12, "stem_stride": 2, "bottlenecks": 1, "modules": (1, 2), "blocks": 2,
        },
        "width": 64,
        "key_width": 32,
    }  # fmt: skip
    update(config, model__name="ocrnet", model__args=small if variant == "shapes" else {})
    return config

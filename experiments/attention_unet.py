"""Attention U-Net (Oktay et al. 2018): a U-Net whose skips are gated by the coarser decoder level.

    python -m jaxseg.train --config experiments/attention_unet.py
    python -m jaxseg.train --config experiments/attention_unet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/attention_unet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .950 (7.8 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    widths = (16, 32, 64, 128) if variant == "shapes" else (64, 128, 256, 512, 1024)
    update(config, model__name="attention_unet", model__args={"widths": widths})
    return config

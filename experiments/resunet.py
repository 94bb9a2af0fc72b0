"""ResUNet (Zhang, Liu and Wang 2018), the flagship: a U-Net of pre-activation residual blocks.

    python -m jaxseg.train --config experiments/resunet.py
    python -m jaxseg.train --config experiments/resunet.py:camvid --config.data.dir=PATH --workdir runs/camvid
    python -m jaxseg.train --config experiments/resunet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .914 (4.0 minutes on 2 shared CPU cores, one seed). Without its shortcuts
(--config.model.args.shortcut=none) .939: at this depth they are not needed. CamVid: README.md, section Results.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    widths = (16, 32, 64, 128) if variant == "shapes" else (64, 128, 256, 512)
    update(config, model__name="resunet", model__args={"widths": widths, "norm": "batch"})
    return config

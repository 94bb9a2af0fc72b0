"""U^2-Net (Qin et al. 2020): a U-Net of small U-Nets, with a score map of each level and one that is fused of them.

    python -m jaxseg.train --config experiments/u2net.py
    python -m jaxseg.train --config experiments/u2net.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/u2net.py:folder --config.data.dir=MY_FOLDER

The variants camvid, folder and voc have the full network. `--config.model.args.widths=64,64,64,64,64,64` with
`--config.model.args.mids=16,16,16,16,16,16` is the small one. All score maps have the weight of the fused one.

Shapes validation mIoU: .927 (13.3 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    return recipe(
        arg,
        "u2net",
        shapes={"widths": (16, 24, 32, 32), "mids": (8, 8, 12, 16), "finest_mid": 8, "heights": (4, 3)},
        full={"widths": (64, 128, 256, 512, 512, 512), "mids": (32, 32, 64, 128, 256, 256)},
        loss__aux_weight=1.0,
    )

"""PSPNet (Zhao et al. 2017): pyramid pooling over the features of a dilated ResNet, and an auxiliary loss.

    python -m jaxseg.train --config experiments/pspnet.py
    python -m jaxseg.train --config experiments/pspnet.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/pspnet.py:folder --config.data.dir=MY_FOLDER

Shapes validation mIoU: .804 (13.1 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    encoder = {"encoder": "residual", "encoder_args": {"widths": (16, 48), "blocks": 3}}
    small = {"width": 64, "aux_width": 32} | encoder
    full = {"encoder": "resnet50", "encoder_args": {"output_stride": 8}}
    args = small if variant == "shapes" else full
    update(config, model__name="pspnet", model__args=args)
    return config

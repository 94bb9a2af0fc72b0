"""Adversarial training (Luc et al. 2016, Hung et al. 2018) of ResUNet: a discriminator of label maps beside its loss.

    python -m jaxseg.train --config experiments/adversarial.py
    python -m jaxseg.train --config experiments/adversarial.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/adversarial.py:folder --config.data.dir=MY_FOLDER

Images whose masks are all 255 count as unlabelled. To learn from them too, as Hung et al. do, give
--config.adversarial.unlabelled_weight=0.001 --config.adversarial.semi_weight=0.1; this begins after a quarter of the
steps, as theirs, or after those of adversarial.unlabelled_from.

The same network without the discriminator reaches .914 and .917 at the seeds 0 and 1, this .915 and .916.

Shapes validation mIoU: .915 (8.7 minutes on one core, beside other programs; one seed).
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import VARIANTS, for_data


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    small = variant == "shapes"
    update(
        config,
        model__name="resunet",
        model__args={"widths": (16, 32, 64, 128) if small else (64, 128, 256, 512), "norm": "batch"},
        adversarial__weight=0.01,
        adversarial__unlabelled_from=config.steps // 4,
        adversarial__widths=(16, 32, 64) if small else (64, 128, 256, 512),
    )
    return config

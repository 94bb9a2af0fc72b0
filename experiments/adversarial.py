"""Adversarial training (Luc et al. 2016, Hung et al. 2018) of ResUNet: a discriminator of label maps adds to its loss.

    python -m jaxseg.train --config experiments/adversarial.py
    python -m jaxseg.train --config experiments/adversarial.py:camvid --config.data.dir=PATH
    python -m jaxseg.train --config experiments/adversarial.py:folder --config.data.dir=MY_FOLDER

Images whose masks are 255 everywhere count as unlabelled, and so do those of a folder without masks that
--config.data.unlabelled=FOLDER names. To learn from them too, as Hung et al. do, give
--config.adversarial.unlabelled_weight=0.001 --config.adversarial.semi_weight=0.1. They teach after a quarter of the
steps, as in the paper; adversarial.unlabelled_from changes that.

Shapes validation mIoU: .915 (8.7 minutes on one core, with other programs running) with seed 0 and .916 with seed 1;
the same network without the discriminator reached .914 and .917 then. Since the projections of its units start with
gain 1 it reaches .927 and .928, and this experiment was not run again.
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import recipe


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    config = recipe(
        arg,
        "resunet",
        shapes={"widths": (16, 32, 64, 128), "norm": "batch"},
        full={"widths": (64, 128, 256, 512), "norm": "batch"},
        shapes_keys={"adversarial__widths": (16, 32, 64)},
        adversarial__weight=0.01,
        adversarial__widths=(64, 128, 256, 512),
    )
    update(config, adversarial__unlabelled_from=config.steps // 4)
    return config

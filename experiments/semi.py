"""Few labels and many images: a U-Net learns from images without labels too (FixMatch, Sohn et al. 2020).

First with the labels alone, then from these weights with the other images:

    python -m jaxseg.train --config experiments/semi.py --workdir runs/labels --config.semi.method= \
        --config.data.labelled_rows=0 --config.steps=1000 --config.optimizer.learning_rate=0.01
    python -m jaxseg.train --config experiments/semi.py --config.model.weights=runs/labels

    python -m jaxseg.train --config experiments/semi.py:folder --config.data.dir=MY_FOLDER --config.data.unlabelled=MORE
    python -m jaxseg.train --config experiments/semi.py:folder --config.data.dir=MY_FOLDER --config.data.labelled=0.05
    python -m jaxseg.train --config experiments/semi.py:camvid --config.data.dir=PATH

Of the shapes, 1/64 of 4096 images keep their labels, and of camvid and voc 1/8. A folder has images of its own without
labels, which data.unlabelled names, or hides the labels of all but a share. docs/semi.md says when it pays. This
compares it with labels alone, on your own images:

    python -m jaxseg.sweep --config experiments/semi.py:folder --config.data.dir=MY_FOLDER --config.data.labelled=0.05

Shapes validation mIoU: .778 (seed 0 of benchmarks/semi.py, which trains these two configurations; .675 after the first
command, and .713 where its labels alone teach for 1200 steps more).
"""

from jaxseg.config import ConfigDict, update
from jaxseg.config.recipes import recipe
from jaxseg.sweep import Sweep

LABELLED = {"shapes": "1/64", "camvid": "1/8", "voc": "1/8", "folder": ""}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    config = recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32, 64), "dropout": 0.0},
        full={"widths": (64, 128, 256, 512)},
        ema__decay=0.999,
        semi__method="fixmatch",
        semi__weight=3.0,
        semi__threshold=0.95,
        semi__cutmix=0.5,
    )
    update(config, data__labelled=LABELLED[arg or "shapes"], semi__ramp_up=config.steps // 4)
    if config.data.source == "shapes":
        update(config, data__size=(32, 32), data__shapes_train=4096, batch_size=16, steps=1200)
        update(config, eval__every=1200, checkpoint__every=1200, augment__zoom=(0.8, 1.25))
        # CutMix cuts shapes of so few pixels beyond recognition. The weights to start from make a ramp needless.
        update(config, ema__decay=0.99, semi__cutmix=0.0, semi__ramp_up=1, optimizer__learning_rate=5e-3)
    update(config, data__labelled_rows=config.batch_size // 2)
    return config


def sweep() -> Sweep:
    """Returns the labels alone, in whole batches, and with the other images."""
    return Sweep({"labels": {"semi__method": "", "data__labelled_rows": 0}, "semi": {}}, baseline="labels")

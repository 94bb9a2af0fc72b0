"""Which learning rate, decay, warm-up and loss suit a short U-Net? A search over four keys, in 20 trials.

    python -m jaxseg.sweep --config experiments/search.py
    python -m jaxseg.train --config experiments/search.py
    python -m jaxseg.train --config experiments/search.py:folder --config.data.dir=MY_FOLDER

The first command makes the search, which needs Optuna (`pip install -e '.[search]'`); the second trains the
experiment as it is, which is its first trial.

Shapes validation mIoU: .149 (400 steps, one seed; the best trial of the search had .652, chosen by this score).
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import recipe
from jaxseg.sweep import Choice, Integer, LogUniform, Search


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration of one of the variants shapes (default), camvid, folder, voc."""
    short = {"data__size": (32, 32), "data__shapes_train": 2048, "steps": 400, "eval__every": 100}
    short |= {"checkpoint__every": 400, "log__every": 100, "log__images": 0, "log__tensorboard": False}
    return recipe(
        arg,
        "unet",
        shapes={"widths": (8, 16, 32), "dropout": 0.0},
        full={"widths": (64, 128, 256, 512, 1024)},
        shapes_keys=short,
    )


def search() -> Search:
    """Returns the spaces, and how they are searched."""
    spaces = {
        "optimizer__learning_rate": LogUniform(3e-4, 1e-1),
        "optimizer__weight_decay": LogUniform(1e-5, 1e-1),
        "schedule__warmup": Integer(0, 80),
        "loss__terms": Choice(("cross_entropy + dice", "cross_entropy", "dice", "lovasz", "cross_entropy + lovasz")),
    }
    return Search(spaces, trials=20, sampler="tpe", pruner="median", prune_from=200)

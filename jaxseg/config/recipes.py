"""What an experiment needs to know about a data set: sizes, augmentation, length of the run.

An experiment says which network it is about; `for_data` says how that data set is usually trained. Each value can still
be changed after it, in the experiment or on the command line.
"""

from jaxseg.config.values import ConfigDict, update

VARIANTS = ("shapes", "camvid", "folder", "voc")


def for_data(config: ConfigDict, variant: str) -> ConfigDict:
    """Sets the keys that belong to a data set; returns the same `config`.

    Args:
        config: a configuration to change.
        variant: one of `VARIANTS`.
    """
    {"shapes": _shapes, "camvid": _camvid, "folder": _folder, "voc": _voc}[variant](config)
    return config


def for_ablation(config: ConfigDict) -> ConfigDict:
    """Sets the keys of short runs on the shapes data, of which an ablation takes dozens; returns the same `config`.

    `benchmarks/results/ablations/*/timing.md` has the time of each.
    """
    _shapes(config)
    update(
        config,
        data__size=(32, 32),
        data__shapes_train=2048,
        optimizer__learning_rate=1e-2,
        steps=800,
        eval__every=200,
        checkpoint__every=400,
        log__every=40,
        log__images=0,
        log__tensorboard=False,
    )
    return config


def _shapes(config: ConfigDict) -> None:
    """Built-in, 64x64: minutes on two CPU cores."""
    update(
        config,
        data__source="shapes",
        data__size=(64, 64),
        data__shapes_train=8192,
        steps=1500,
        batch_size=8,
        eval__every=500,
        checkpoint__every=500,
        log__every=100,
        optimizer__learning_rate=3e-3,
        loss__terms="cross_entropy + dice",
        schedule__name="cosine",
        schedule__warmup=40,
    )


def _camvid(config: ConfigDict) -> None:
    """360x480 road scenes, 11 classes; needs a GPU for the whole of it."""
    update(
        config,
        data__source="camvid",
        data__size=(360, 480),
        data__fit="resize",
        steps=20_000,
        batch_size=8,
        eval__every=1000,
        eval__batch_size=8,
        checkpoint__every=1000,
        log__every=50,
        optimizer__learning_rate=1e-3,
        optimizer__weight_decay=1e-2,
        schedule__name="poly",
        schedule__warmup=200,
        loss__terms="cross_entropy + dice",
        augment__zoom=(0.75, 1.5),
        augment__rotate=5.0,
        augment__crop=(320, 320),
        augment__brightness=0.2,
        augment__contrast=0.2,
        augment__saturation=0.2,
    )


def _folder(config: ConfigDict) -> None:
    """Anybody's images and masks, resized to 256x256."""
    update(
        config,
        data__source="folder",
        data__size=(256, 256),
        data__fit="resize",
        steps=5000,
        batch_size=8,
        eval__every=250,
        eval__batch_size=8,
        checkpoint__every=250,
        optimizer__learning_rate=1e-3,
        schedule__warmup=100,
        loss__terms="cross_entropy + dice",
        augment__zoom=(0.8, 1.25),
        augment__shear=0.1,
        augment__rotate=10.0,
        augment__brightness=0.2,
        augment__contrast=0.2,
    )


def _voc(config: ConfigDict) -> None:
    """Pascal VOC 2012, 21 classes, crops of 320x320 from images at native size; needs a GPU."""
    update(
        config,
        data__source="voc2012",
        data__size=(512, 512),
        data__fit="crop",
        steps=30_000,
        batch_size=16,
        eval__every=1000,
        eval__batch_size=8,
        eval__multiple=64,
        checkpoint__every=1000,
        log__every=50,
        optimizer__learning_rate=1e-3,
        optimizer__weight_decay=1e-2,
        schedule__warmup=500,
        loss__terms="cross_entropy + dice",
        augment__zoom=(0.5, 2.0),
        augment__crop=(320, 320),
        augment__crop_max_share=0.75,
        augment__brightness=0.3,
        augment__contrast=0.3,
        augment__saturation=0.3,
    )

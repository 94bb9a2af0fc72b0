"""Recipes: the sizes, augmentation and schedule with which a data set is usually trained.

An experiment names a network and calls `recipe`, or `ablation_recipe` for a short run. Each value can be changed
afterwards, in the experiment or on the command line.
"""

from collections.abc import Mapping
from typing import Any

from jaxseg.config.values import ConfigDict, default_config, parse_arg, update

VARIANTS = ("shapes", "camvid", "folder", "voc")


def recipe(
    arg: str | None,
    network: str,
    *,
    shapes: Mapping[str, Any] | None = None,
    full: Mapping[str, Any] | None = None,
    shapes_keys: Mapping[str, Any] | None = None,
    **keys: Any,
) -> ConfigDict:
    """Returns the configuration of an experiment: one network, on the data set that the variant names.

    Args:
        arg: the variant, one of `VARIANTS`, as it follows the colon in `--config experiments/NAME.py:VARIANT`;
            None is the first, shapes.
        network: `model.name`.
        shapes: `model.args` for the 64x64 images of the shapes data.
        full: `model.args` for the other variants.
        shapes_keys: keys only for the shapes data, with `__` for the dot. They replace those in `keys`.
        keys: keys for all variants, with `__` for the dot: `optimizer__learning_rate=1e-4`.

    Raises:
        ConfigError: if there is no such variant, key or value.
    """
    variant = parse_arg(arg, VARIANTS)
    config = for_data(default_config(), variant)
    small = variant == "shapes"
    update(config, model__name=network, model__args=dict((shapes if small else full) or {}), **keys)
    if small:
        update(config, **(shapes_keys or {}))
    return config


def folder_config(directory: str) -> ConfigDict:
    """Returns the configuration of a folder of images and masks by the recipe `folder`, with the default network."""
    config = for_data(default_config(), "folder")
    update(config, data__dir=directory)
    return config


def ablation_recipe(
    arg: str | None,
    network: str,
    args: Mapping[str, Any],
    *,
    folder: Mapping[str, Any] | None = None,
    **keys: Any,
) -> ConfigDict:
    """Returns the configuration that the variants of an ablation change: a short run on the shapes or on a folder.

    Args:
        arg: "shapes" or None; or "folder", images and masks of your own, small ones or crops of them.
        network: `model.name`.
        args: `model.args`.
        folder: keys of the folder alone, with `__` for the dot, which replace those in `keys`. None: the ablation has
            no variant "folder".
        keys: further keys, with `__` for the dot.

    Raises:
        ConfigError: if there is no such variant, key or value.
    """
    variant = parse_arg(arg, ("shapes",) if folder is None else ("shapes", "folder"))
    config = for_ablation(default_config())
    if variant == "folder":
        _short_folder(config)
    update(config, model__name=network, model__args=dict(args), **keys)
    if variant == "folder":
        update(config, **(folder or {}))
    return config


def for_data(config: ConfigDict, variant: str) -> ConfigDict:
    """Sets the keys that belong to a data set; returns the same `config`.

    Args:
        config: a configuration to change.
        variant: one of `VARIANTS`.
    """
    {"shapes": _shapes, "camvid": _camvid, "folder": _folder, "voc": _voc}[variant](config)
    return config


def for_ablation(config: ConfigDict) -> ConfigDict:
    """Sets the keys of a short run on the shapes data; returns the same `config`.

    An ablation trains dozens of such runs; `benchmarks/results/ablations/*/timing.md` has the time of each.
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
    """The built-in images of 64x64 pixels: minutes on two CPU cores."""
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
    """Road scenes of 360x480 pixels, 11 classes; the whole run needs a GPU."""
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
    """A folder of your own images and masks, resized to 256x256."""
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


def _short_folder(config: ConfigDict) -> None:
    """The images of a folder at 64x64, in crops of 32x32 as large as the images of the other ablations, mirrored."""
    _folder(config)
    update(
        config,
        data__size=(64, 64),
        optimizer__learning_rate=1e-2,
        schedule__warmup=40,
        steps=300,
        eval__every=100,
        checkpoint__every=300,
        augment__crop=(32, 32),
        augment__zoom=(1.0, 1.0),
        augment__shear=0.0,
        augment__rotate=0.0,
        augment__brightness=0.0,
        augment__contrast=0.0,
    )


def _voc(config: ConfigDict) -> None:
    """Pascal VOC 2012, 21 classes, in crops of 320x320 from images of their native size; needs a GPU."""
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

"""The configuration: every key with its default and meaning, experiment files, overrides and validation.

A configuration is an `ml_collections.ConfigDict`. An experiment file defines `get_config(arg) -> ConfigDict`, which
starts from `default_config()` and changes what the experiment is about. Wrong keys and values raise `ConfigError`, one
sentence that names the nearest right one, before anything compiles.
"""

import math
from collections.abc import Sequence
from typing import Any

import ml_collections

from jaxseg.config.schema import CHOICES, FREE_FORM, FREE_KEYS, KEYS, RENAMED
from jaxseg.errors import ConfigError, nearest

ConfigDict = ml_collections.ConfigDict

# What each element of a tuple is; a colour is (red, green, blue).
_COLOR = tuple
ELEMENTS: dict[str, type] = {
    "data.size": int, "data.mean": float, "data.std": float, "data.classes": str, "data.palette": _COLOR,
    "augment.zoom": float, "augment.crop": int, "loss.aux_weights": float, "schedule.boundaries": int,
    "model.weights_skip": str, "adversarial.widths": int,
}  # fmt: skip
# Allowed from .. to, both included: JAX takes 32 bits of a seed, a stored mask has 8 or 16 bits.
_RANGES = {"seed": (0, 2**32 - 1), "data.ignore": (-1, 65535)}
_POSITIVE = ("steps", "batch_size", "accumulate", "data.channels", "data.shapes_train", "data.shapes_val",
             "eval.every", "eval.batch_size", "eval.multiple", "checkpoint.every", "checkpoint.keep",
             "log.every")  # fmt: skip
_UNIT = ("augment.flip_horizontal", "augment.flip_vertical", "augment.crop_max_share", "adversarial.semi_threshold",
         "adversarial.truth_scaling")  # fmt: skip
_NOT_NEGATIVE = ("optimizer.clip", "optimizer.encoder_rate", "optimizer.weight_decay", "loss.aux_weight", "log.images",
                 "data.workers", "data.prefetch", "augment.shear", "augment.rotate", "augment.brightness",
                 "augment.contrast", "augment.saturation", "adversarial.weight", "adversarial.unlabelled_weight",
                 "adversarial.semi_weight", "adversarial.unlabelled_from")  # fmt: skip


def default_config() -> ConfigDict:
    """Returns a fresh configuration with every key at its default."""
    config = ConfigDict()
    for key, (default, _) in KEYS.items():
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[leaf] = ConfigDict(default) if isinstance(default, dict) else default
    config.lock()
    for key in FREE_FORM:  # an experiment may set config.model.args.widths
        section, leaf = key.split(".")
        config[section][leaf].unlock()
    return config


def parse_arg(arg: str | None, choices: Sequence[str]) -> str:
    """Returns the variant that follows the colon of `--config FILE:ARG`; the first of `choices` when there is none."""
    if not arg:
        return choices[0]
    if arg not in choices:
        raise ConfigError(f"The experiment has no variant {arg!r}.{nearest(arg, choices)}")
    return arg


def update(config: ConfigDict, **values: Any) -> None:
    """Sets dotted keys, spelled with `__` for the dot: `update(config, data__size=(64, 64))`."""
    for key, value in values.items():
        set_key(config, key.replace("__", "."), value)


def set_key(config: ConfigDict, key: str, value: Any) -> None:
    """Sets one dotted key after checking its name and type.

    Raises:
        ConfigError: for an unknown key (naming the nearest) or a value of another type than the default's.
    """
    free = next((parent for parent in FREE_FORM if key == parent or key.startswith(parent + ".")), None)
    *parents, leaf = key.split(".")
    if (free is None and key not in KEYS) or not all((*parents, leaf)):
        raise ConfigError(f"There is no config key {key!r}.{nearest(key, KEYS)}")
    node = config
    for depth, parent in enumerate(parents):
        if parent not in node:
            with node.unlocked():
                node[parent] = ConfigDict()
        node = node[parent]
        if not isinstance(node, ConfigDict):
            above = ".".join(parents[: depth + 1])
            raise ConfigError(f"{above} is {node!r}, which holds no arguments, so {key} cannot be set.")
    if free is None:
        value = _coerce(key, value, KEYS[key][0])
    else:
        _check_plain(key, value)
        if key == free and not isinstance(value, dict | ConfigDict):
            raise ConfigError(f"{key} must be a dictionary of arguments, got {value!r}.")
        value = ConfigDict(dict(value)) if isinstance(value, dict | ConfigDict) else value
    with node.unlocked(), node.ignore_type():
        node[leaf] = value


def _coerce(key: str, value: Any, default: Any) -> Any:
    """Returns `value` in the type of `default`, or raises."""
    kind = type(default)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_element(key, v, value) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key} must be {_kind(kind)} like {default!r}, got {value!r}.")
    return value


def _element(key: str, value: Any, whole: Sequence[Any]) -> Any:
    """Returns one element of the tuple `whole` in the type that ELEMENTS asks for, or raises."""
    kind = ELEMENTS[key]
    if kind is _COLOR:
        if isinstance(value, list | tuple) and len(value) == 3 and all(type(v) is int and 0 <= v < 256 for v in value):
            return tuple(value)
        expected = "colours (red, green, blue) of whole numbers from 0 to 255"
    else:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is kind:
            return value
        expected = {int: "whole numbers", float: "numbers", str: "text"}[kind]
    raise ConfigError(f"{key} must be {expected}, got {value!r} in {tuple(whole)!r}.")


def _check_plain(key: str, value: Any) -> None:
    """Raises where an argument is something that config.json cannot hold."""
    if isinstance(value, dict | ConfigDict):
        for name in value:
            _check_plain(f"{key}.{name}", value[name])
    elif isinstance(value, list | tuple):
        for element in value:
            _check_plain(key, element)
    elif not (value is None or type(value) in (bool, int, float, str)):
        raise ConfigError(
            f"{key} is of type {type(value).__name__}; a config holds only names, numbers, True, False, None and "
            "tuples or dictionaries of these."
        )


def _kind(kind: type) -> str:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "a tuple"}
    return names[kind]


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns {dotted key: value} with every leaf, free-form arguments included."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, dict | ConfigDict) and (len(node) or prefix.rstrip(".") not in FREE_FORM):
            for name in node:
                walk(f"{prefix}{name}.", node[name])
        else:
            flat[prefix.rstrip(".")] = {} if isinstance(node, dict | ConfigDict) else node

    walk("", config)
    return flat


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration as nested plain dictionaries that JSON can hold."""
    return config.to_dict()


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """Returns the configuration that `to_dict` wrote, after JSON has turned its tuples into lists.

    A key that it lacks is younger than it and has its default, which means what was done before there was the key; one
    that has another name by now (`keys.RENAMED`) is read under that.

    Raises:
        ConfigError: if it has keys that this version does not know, or none at all.
    """
    config = default_config()
    if not values:
        raise ConfigError("The stored configuration is empty.")
    for key, value in flatten(ConfigDict(values)).items():
        set_key(config, RENAMED[key] if key in RENAMED else key, _tuples(value))
    return config


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns "key: old -> new" for each key that differs and matters to the numbers of a run."""
    a, b = flatten(old), flatten(new)
    keys = [key for key in sorted(a.keys() | b.keys()) if not key.startswith(FREE_KEYS)]
    return [f"{k}: {a[k] if k in a else 'unset'} -> {b[k] if k in b else 'unset'}"
            for k in keys if (k in a) != (k in b) or _tuples(a[k]) != _tuples(b[k])]  # fmt: skip


def validate(config: ConfigDict) -> None:
    """Checks every value that can be checked without data, model or device.

    Raises:
        ConfigError: naming the key, what was given and what was expected.
    """
    flat = flatten(config)
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            raise ConfigError(
                f"{key} is {flat[key]!r}; it must be one of {', '.join(choices)}.{nearest(flat[key], choices)}"
            )
    for key, (low, high) in _RANGES.items():
        if not low <= flat[key] <= high:
            raise ConfigError(f"{key} must lie in {low} to {high}, got {flat[key]}.")
    for key in _POSITIVE:
        if flat[key] < 1:
            raise ConfigError(f"{key} must be at least 1, got {flat[key]}.")
    for key in _UNIT:
        if not 0.0 <= flat[key] <= 1.0:
            raise ConfigError(f"{key} must lie in [0, 1], got {flat[key]}.")
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} must be finite, got {value}.")
    _validate_shapes(config)
    if not all(math.isfinite(weight) and weight >= 0 for weight in config.loss.aux_weights):
        raise ConfigError(f"loss.aux_weights must be finite and at least 0, got {config.loss.aux_weights!r}.")
    if config.batch_size % config.accumulate:
        raise ConfigError(f"batch_size {config.batch_size} is not divisible by accumulate {config.accumulate}.")
    if not 0.0 <= config.loss.label_smoothing < 1.0:
        raise ConfigError(f"loss.label_smoothing must lie in [0, 1), got {config.loss.label_smoothing}.")
    if not 0.0 <= config.ema.decay < 1.0:
        raise ConfigError(f"ema.decay must lie in [0, 1), got {config.ema.decay}.")
    if not 0.0 < config.data.val_fraction < 1.0:
        raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {config.data.val_fraction}.")
    for key in _NOT_NEGATIVE:
        if flat[key] < 0:
            raise ConfigError(f"{key} must not be negative, got {flat[key]}.")
    if config.optimizer.learning_rate <= 0:
        raise ConfigError(f"optimizer.learning_rate must be positive, got {config.optimizer.learning_rate}.")
    _validate_adversarial(config)
    if not 0 <= config.schedule.warmup < config.steps:
        raise ConfigError(
            f"schedule.warmup is {config.schedule.warmup}, which must lie below steps={config.steps}; give "
            f"--config.schedule.warmup={config.steps // 10}, for instance."
        )
    if config.model.num_classes < 0:
        raise ConfigError(f"model.num_classes must be 0 (from the data) or more, got {config.model.num_classes}.")


def _validate_adversarial(config: ConfigDict) -> None:
    c = config.adversarial
    if c.learning_rate <= 0:
        raise ConfigError(f"adversarial.learning_rate must be positive, got {c.learning_rate}.")
    if not c.widths or min(c.widths) < 1:
        raise ConfigError(f"adversarial.widths must be one or more whole numbers above 0, got {c.widths!r}.")
    for key, value in c.items():
        if not c.weight and value != KEYS[f"adversarial.{key}"][0]:
            raise ConfigError(f"adversarial.{key} needs a discriminator: set adversarial.weight above 0.")


def _validate_shapes(config: ConfigDict) -> None:
    for key, sizes in (("data.size", config.data.size), ("augment.crop", config.augment.crop)):
        optional = key == "augment.crop" and len(sizes) == 0
        if not optional and (len(sizes) != 2 or not all(s > 0 for s in sizes)):
            raise ConfigError(f"{key} must be (height, width) in whole pixels, got {sizes!r}.")
    for given, size in zip(config.augment.crop, config.data.size):
        if given > size:
            raise ConfigError(f"augment.crop {config.augment.crop} is larger than data.size {config.data.size}.")
    low, high = config.augment.zoom if len(config.augment.zoom) == 2 else (0.0, 0.0)
    if not 0 < low <= high:
        raise ConfigError(f"augment.zoom must be (low, high) with 0 < low <= high, got {config.augment.zoom!r}.")
    if config.data.channels not in (1, 3, 4):
        raise ConfigError(f"data.channels must be 1, 3 or 4, got {config.data.channels}.")
    for key, values in (("data.mean", config.data.mean), ("data.std", config.data.std)):
        if not all(map(math.isfinite, values)):
            raise ConfigError(f"{key} must be finite, got {values!r}.")
        if len(values) not in (1, config.data.channels):
            raise ConfigError(
                f"{key} has {len(values)} numbers; with data.channels={config.data.channels} give "
                f"--config.{key}=NUMBER, or {config.data.channels} numbers."
            )
    if any(s <= 0 for s in config.data.std):
        raise ConfigError(f"data.std must be positive, got {config.data.std!r}.")

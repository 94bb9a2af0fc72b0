"""Sets and checks the values of a configuration, and reads and writes them as plain dictionaries.

A configuration is a `ConfigDict`. An experiment file defines `get_config(arg) -> ConfigDict`, which starts from
`default_config()` and changes the keys that the experiment needs. Wrong keys and values raise `ConfigError` before
anything compiles; its message is one sentence that names the nearest valid key or value.
"""

import ast
import functools
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from jaxseg.arguments import as_tuples, check_value
from jaxseg.config.config_dict import GROUPS, AnyConfigDict, ConfigDict
from jaxseg.config.rules import (
    require_valid_adversarial,
    require_valid_annotations,
    require_valid_batches,
    require_valid_images,
    require_valid_mixing,
    require_valid_normalisation,
    require_valid_pruning,
    require_valid_semi,
    require_valid_unlabelled,
    require_valid_warmup,
)
from jaxseg.config.schema import FORMAT, FORMER_ENCODER_FIELDS, FREE_FORM, FREE_KEYS, KEYS, RENAMED
from jaxseg.errors import ArgumentError, ConfigError, nearest, raise_together

# What other libraries call a part of a key -> its name here, for the advice after an unknown key.
_ABBREVIATIONS = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size"}

WITHHELD = "withheld"
"""The `data.val_group` of a published network whose groups are not published, see `jaxseg.publish.places`."""


def default_config() -> ConfigDict:
    """Returns a new configuration with every key at its default."""
    config = ConfigDict()
    for name, key in KEYS.items():
        *parents, leaf = name.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[leaf] = key.default
    config.lock()
    for name in FREE_FORM:  # an experiment may set config.model.args.widths
        section, leaf = name.split(".")
        config[section][leaf].unlock()
    return config


def parse_arg(arg: str | None, choices: Sequence[str]) -> str:
    """Returns the variant after the colon of `--config FILE:ARG`; without one, the first of `choices`."""
    if not arg:
        return choices[0]
    if arg not in choices:
        raise ConfigError(f"The experiment has no variant {arg!r}.{nearest(arg, choices)}")
    return arg


def parse_value(key: str, text: str) -> Any:
    """Parses the text after `--config.KEY=` as the type of that key."""
    kind = KEYS[key].type if key in KEYS else None
    if kind is str:
        return text
    if kind in (bool, None) and text.lower() in ("true", "false"):  # None: an argument of a network, an XLA option
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except Exception:  # text that is no literal; nested deeply enough, it raises other classes than ValueError
        value = text
    if kind == tuple[str, ...]:  # class names may look like numbers
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        value = text.strip("()[]")
    is_tuple = typing.get_origin(kind) is tuple
    if is_tuple and isinstance(value, str) and value:
        return tuple(part.strip() for part in value.removesuffix(",").split(","))
    if is_tuple and not isinstance(value, list | tuple):
        return () if value == "" else (value,)
    return value


def update(config: ConfigDict, **values: Any) -> None:
    """Sets dotted keys, written with `__` instead of the dot: `update(config, data__size=(64, 64))`.

    `steps` replaces the epochs of `config`, as on the command line.

    Raises:
        ConfigError: as `set_key` does, or if both `steps` and `epochs` are given.
    """
    given = [(key.replace("__", "."), value) for key, value in values.items()]
    choose_length(config, given)
    for key, value in given:
        set_key(config, key, value)


def set_key(config: AnyConfigDict, key: str, value: Any) -> None:
    """Sets one dotted key after checking its name and the type of the value.

    Raises:
        ConfigError: for an unknown key (naming the nearest) or a value whose type differs from the default's.
    """
    free = next((parent for parent in FREE_FORM if key == parent or key.startswith(parent + ".")), None)
    *parents, leaf = key.split(".")
    if (free is None and key not in KEYS) or not all((*parents, leaf)):
        raise unknown_key(key)
    node = config
    for depth, parent in enumerate(parents):
        if parent not in node:
            with node.unlocked():
                node[parent] = ConfigDict()
        node = node[parent]
        if not isinstance(node, AnyConfigDict):
            above = ".".join(parents[: depth + 1])
            raise ConfigError(f"{above} is {node!r}, which holds no arguments, so {key} cannot be set.")
    if free is None:
        value = _checked(key, value, type_only=True)
    else:
        _check_plain(key, value)
        if key == free and not isinstance(value, GROUPS):
            raise ConfigError(f"{key} must be a dictionary of arguments, got {value!r}.")
        value = ConfigDict(dict(value)) if isinstance(value, GROUPS) else value
    with node.unlocked():
        store = functools.partial(AnyConfigDict.__setitem__, node, leaf, value)  # that of `ConfigDict` changes epochs
        try:
            store()
        except TypeError:  # of another type than the value so far, which `_checked` has found to be a type of the key
            with node.ignore_type():  # slow: it looks at every element of every value of the group
                store()


def unknown_key(key: str) -> ConfigError:
    """Returns the error for a key that is not in the schema; it names the nearest."""
    *parents, leaf = key.split(".")
    usual = ".".join((*parents, _ABBREVIATIONS[leaf])) if leaf in _ABBREVIATIONS else key
    hint = " Arguments of the network are set as model.args.NAME." if parents == ["model"] else ""
    return ConfigError(f"There is no config key {key!r}.{nearest(usual, KEYS)}{hint}")


def choose_length(config: AnyConfigDict, given: Iterable[tuple[str, Any]]) -> None:
    """Sets the `epochs` of `config` to 0 if the changes `given`, which are made next, have `steps`.

    Raises:
        ConfigError: if they have both.
    """
    above_zero = {key for key, value in given if value}  # epochs=0 is none
    if {"steps", "epochs"} <= above_zero:
        raise ConfigError("steps and epochs are both given, and each is the length of the run; give one of them.")
    if "steps" in above_zero:
        set_key(config, "epochs", 0.0)


def _checked(key: str, value: Any, *, type_only: bool = False) -> Any:
    """Returns `value` in the type that the schema gives for `key`, or raises ConfigError."""
    try:
        return check_value(key, value, KEYS[key].hint, type_only=type_only)
    except ArgumentError as error:
        raise ConfigError(str(error)) from None


def _check_plain(key: str, value: Any) -> None:
    """Raises if an argument cannot be stored in config.json."""
    if isinstance(value, GROUPS):
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


def flatten(config: AnyConfigDict | dict[str, Any]) -> dict[str, Any]:
    """Returns {dotted key: value} with every leaf, including free-form arguments."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, GROUPS) and (len(node) or prefix.rstrip(".") not in FREE_FORM):
            for name in node:
                walk(f"{prefix}{name}.", node[name])
        else:
            flat[prefix.rstrip(".")] = {} if isinstance(node, GROUPS) else node

    walk("", config)
    return flat


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration as nested plain dictionaries that can be written as JSON."""
    return {"format": FORMAT, **config.to_dict()}


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """Returns the configuration from the dictionaries of `to_dict`, in which JSON has turned tuples into lists.

    A key that the stored configuration does not have yet gets its default, which keeps the behaviour from before the
    key existed; a key that has been renamed (`schema.RENAMED`) is read under its new name. What an earlier version did
    without a key, and this one does otherwise, is written out, so that the stored run stays what it was.

    Raises:
        ConfigError: if `values` has unknown keys or no keys, or a newer version of jaxseg wrote them.
    """
    config = default_config()
    if not values:
        raise ConfigError("The stored configuration is empty.")
    form = values["format"] if "format" in values else 1
    if not isinstance(form, int) or form > FORMAT:
        raise ConfigError(f"The stored configuration has the form {form!r}; this jaxseg reads the forms 1 to {FORMAT}.")
    keys = {name: value for name, value in values.items() if name != "format"}
    for key, value in flatten(keys).items():
        set_key(config, RENAMED[key] if key in RENAMED else key, as_tuples(value))
    for key, value in former_encoder_fields(config, form).items():
        set_key(config, key, value)
    if form < 2:
        _write_out_momentum(config)
    if form < 3 and config.data.source == "folder":
        set_key(config, "data.division", "former")
    if form < 4 and held_out_group(config) is not None:
        set_key(config, "data.val_group", "names")
    return config


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a configuration with other values of some keys; references between keys become values.

    Raises:
        ConfigError: for an unknown key, or a value of the wrong type.
    """
    config = from_dict(to_dict(config))
    for key, value in values.items():
        set_key(config, key, value)
    return config


def former_encoder_fields(config: ConfigDict, form: int = 1) -> dict[str, Any]:
    """Returns {key: value} of what an encoder by name had up to a stored form, where `config` does not give it."""
    args, former = config.model.args, {}
    encoder = args["encoder"] if "encoder" in args else None
    given = args["encoder_args"] if "encoder_args" in args else {}
    for last, networks, names, fields in FORMER_ENCODER_FIELDS:
        if form <= last and isinstance(encoder, str) and fnmatchcase(encoder, names):
            former |= fields if networks is None or config.model.name in networks else {}
    return {f"model.args.encoder_args.{field}": value for field, value in former.items() if field not in given}


def _write_out_momentum(config: ConfigDict) -> None:
    """Gives rmsprop the momentum of `optimizer.momentum`, which it had in stored configurations of form 1."""
    optimizer = config.optimizer
    if optimizer.name == "rmsprop":
        if optimizer.momentum:
            set_key(config, "optimizer.args.momentum", optimizer.momentum)
        set_key(config, "optimizer.momentum", KEYS["optimizer.momentum"].default)


def held_out_group(config: ConfigDict) -> str | None:
    """Returns what `data.val_fraction` keeps whole on one side, as `data.group` gives it; None: every image by itself.

    It is the same for every folder, also for one with splits, where nothing is held out. `WITHHELD` is returned as it
    is.
    """
    data = config.data
    if data.source != "folder" or data.division == "former" or data.val_group == "names":
        return None
    return (data.group if data.val_group == "group" else data.val_group) or None


def as_val_group(held_out: str | None) -> str:
    """Returns the `data.val_group` that holds out whatever `data.group` becomes, of a value of `held_out_group`."""
    if held_out is None:
        return "names"
    return f"(?:{held_out})" if held_out in ("names", "group") else held_out  # as a pattern these words are others


def differences(old: ConfigDict, new: ConfigDict, *, divided: bool = True) -> list[str]:
    """Returns "key: old -> new" for each key that differs and affects the numbers of a run.

    `divided`: `data.val_fraction` divides the folder. Otherwise no group is held out, and none is compared.
    """
    a, b = flatten(old), flatten(new)
    free = tuple(key for key in free_keys(old) if key in free_keys(new))
    keys = [key for key in sorted(a.keys() | b.keys()) if key != "data.val_group" and not key.startswith(free)]
    before, after = held_out_group(old), held_out_group(new)
    if divided and before != after:
        by_group = old.data.val_group == new.data.val_group == "group"
        keys = sorted({*keys, "data.group" if by_group else "data.val_group"})
        a["data.val_group"], b["data.val_group"] = as_val_group(before), as_val_group(after)
    return [
        f"{k}: {a[k] if k in a else 'unset'} -> {b[k] if k in b else 'unset'}"
        for k in keys
        if (k in a) != (k in b) or as_tuples(a[k]) != as_tuples(b[k])
    ]


def free_keys(config: ConfigDict) -> tuple[str, ...]:
    """Returns the keys that have no effect on the numbers of a run: `FREE_KEYS`.

    Where `data.fold` has no file of folds, `data.group` is none of them, since it decides what a run trains on. Where
    `data.val_group` is withheld, it can be given.
    """
    by_group = config.data.fold and not config.data.fold_file
    given = ("data.val_group",) if config.data.val_group == WITHHELD else ()
    return (*(key for key in FREE_KEYS if not (by_group and key == "data.group")), *given)


def validate(config: ConfigDict, *, trained: bool = False) -> None:
    """Checks every value that can be checked without data, model or device.

    `trained`: the configuration is, or may be, that of a run in a workdir, which keeps a normalisation that a new run
    may not have. Its warm-up is not compared with its steps here: `jaxseg.run.check` does that, beside the checks of
    names that need more than the configuration.

    Raises:
        ConfigError: naming the key, the given value and what is expected; a line for each that is wrong by itself, or
            if none is, a line for each pair of keys that do not agree.
    """
    raise_together(*(functools.partial(_validate_value, key, value) for key, value in flatten(config).items()))
    rules = [require_valid_batches, require_valid_images, require_valid_adversarial, require_valid_unlabelled]
    rules += [require_valid_semi, require_valid_mixing, require_valid_annotations, require_valid_pruning]
    if not trained:
        rules += [require_valid_normalisation, require_valid_warmup]
    raise_together(*(functools.partial(rule, config) for rule in rules))


def _validate_value(key: str, value: Any) -> None:
    if key in KEYS and key not in FREE_FORM:
        _checked(key, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} must be finite, got {value}.")


def literal(value: Any) -> str:
    """Returns a value of a configuration as Python, with double quotes where it has none itself."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    shown = repr(value)
    return f'"{shown[1:-1]}"' if isinstance(value, str) and shown[0] == "'" and '"' not in shown else shown

"""What a search looks for: the spaces of the keys, how values are chosen, and which runs are stopped early."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple

from jaxseg.arguments import Count, Where, WholeNotNegative, as_tuples, check_value, within
from jaxseg.config import (
    FREE_KEYS,
    KEYS,
    ConfigDict,
    command,
    from_dict,
    set_key,
    to_dict,
    validate,
)
from jaxseg.data.folders import differences_of_runs
from jaxseg.data.sources import training_source
from jaxseg.errors import ArgumentError, ConfigError, some
from jaxseg.files import read_json
from jaxseg.pictures import marks
from jaxseg.run.check import check
from jaxseg.run.data import with_steps_of_epochs
from jaxseg.run.workdir import write_or_refuse
from jaxseg.sweep.outputs import PLAN_FILE
from jaxseg.sweep.plan import locked
from jaxseg.sweep.search.spaces import SPACES, Choice, Space, as_json, drawn, ends, from_json, label, to_try

SEARCH_FILE = "search.json"
OUTPUTS = ("trials.md", "trials.json", "best.py", "study.journal")
PICTURE = "search.png"
_NUMBERS = ("seed", "startup", "prune_from")
_LENGTHS = ("steps", "epochs", "eval.every")

Sampler = Literal["random", "tpe"]
Pruner = Literal["none", "median", "hyperband"]
_Spaces = Annotated[
    Mapping[str, Any], Where(lambda v: len(v) > 0, instead="{key: space of its values}, with one key or more")
]


@dataclass(frozen=True)
class Search:
    """What `search()` of an experiment file returns.

    Attributes:
        spaces: {key: the values that it may have}, with `__` or a dot between the parts of a key:
            {"optimizer__learning_rate": LogUniform(1e-4, 1e-1)}.
        trials: how many trainings there are. The first is the experiment as it is.
        sampler: "random", or "tpe" for the tree-structured Parzen estimator of Optuna, which proposes values by the
            scores of the trials before (Bergstra et al. 2011).
        pruner: "none", or which rule stops trials that fall behind at an evaluation: "median" or "hyperband"; see
            `jaxseg.sweep.search.pruning`.
        seed: of the drawn values. The key `seed` of the trainings stays that of the experiment.
        startup: trials with drawn values before the first that TPE proposes, and trials that must have ended before the
            median stops another.
        prune_from: the step before which no trial is stopped: the first scores of a training say little.

    Raises:
        ArgumentError: if one of these is of another form.
    """

    spaces: Mapping[str, Space]
    trials: int = 20
    sampler: Sampler = "random"
    pruner: Pruner = "none"
    seed: int = 0
    startup: int = 5
    prune_from: int = 0

    def __post_init__(self) -> None:
        for key, space in check_value("spaces", self.spaces, _Spaces).items():
            if not isinstance(key, str) or not isinstance(space, SPACES):
                kinds = ", ".join(kind.__name__ for kind in SPACES)
                raise ArgumentError(f"The space of {key} must be one of {kinds}, got {space!r}.")
        check_value("trials", self.trials, Count)
        check_value("sampler", self.sampler, Sampler)
        check_value("pruner", self.pruner, Pruner)
        check_value("seed", self.seed, Annotated[int, within(0, 2**32 - 1)])
        check_value("startup", self.startup, Count)
        check_value("prune_from", self.prune_from, WholeNotNegative)


class Study(NamedTuple):
    """A search as the user asked for it; `search.json` holds it.

    Attributes:
        experiment: FILE[:ARG].
        overrides: `--config.KEY=VALUE` arguments, which hold for all trials.
        spaces: {dotted key: its space}, sorted by key.
        trials, sampler, pruner, seed, startup, prune_from: as in `Search`.
        split: the split whose mIoU is searched.
        start: the configuration of the experiment with the overrides, from which trials differ.
    """

    experiment: str
    overrides: tuple[str, ...]
    spaces: dict[str, Space]
    trials: int
    sampler: Sampler
    pruner: Pruner
    seed: int
    startup: int
    prune_from: int
    split: str
    start: dict[str, Any]

    def config(self, values: Mapping[str, Any]) -> ConfigDict:
        """Returns the valid configuration of the trial with these values of the searched keys; of {}, the start.

        Raises:
            ConfigError: if values cannot be set, or not together.
        """
        config = _stored(json.dumps(self.start)).copy_and_resolve_references()
        command.apply_overrides(config, list(values.items()))
        validate(config)
        return with_steps_of_epochs(config, len(training_source(config)) if config.epochs else 0)

    def value(self, values: Mapping[str, Any], key: str) -> Any:
        """Returns the value of a searched key in the trial with `values`; None if it is left to the network."""
        if key in values:
            return values[key]
        node: Any = self.start
        for part in key.split("."):
            if part not in node:
                return None
            node = node[part]
        return as_tuples(node)


@functools.lru_cache(maxsize=4)
def _stored(start: str) -> ConfigDict:
    """Returns the configuration that JSON holds; it is not to be changed."""
    return from_dict(json.loads(start))


def asks_for_search(module: ModuleType, asked: bool, experiment: str) -> bool:
    """Returns whether the search of an experiment file is meant: `asked` for, or the file has no `sweep()`.

    Raises:
        ConfigError: if it is asked for and the file has none.
    """
    if asked and not hasattr(module, "search"):
        raise ConfigError(f"{experiment} defines no search(); a search has one beside get_config(arg).")
    return asked or (hasattr(module, "search") and not hasattr(module, "sweep"))


def load_study(experiment: str, overrides: Sequence[str], trials: int | None, split: str) -> Study:
    """Returns the search of an experiment file, with every space checked by the schema of the keys.

    Args:
        experiment: FILE[:ARG].
        overrides: `--config.KEY=VALUE` arguments for all trials.
        trials: their number in place of the file's, or None.
        split: the split whose mIoU is searched.

    Raises:
        ConfigError: if the file has no search, a configuration is wrong, or a space can leave the range of its key.
    """
    module, config = command.load_file(experiment)
    with command.blaming(experiment.partition(":")[0]):
        search = module.search()
    if not isinstance(search, Search):
        raise ConfigError(f"search() in {experiment} must return a jaxseg.sweep.Search, got {type(search).__name__}.")
    command.parse_overrides(config, overrides)
    validate(config)
    spaces = {key.replace("__", "."): space for key, space in search.spaces.items()}
    study = Study(
        experiment,
        tuple(overrides),
        dict(sorted(spaces.items())),
        trials or search.trials,
        search.sampler,
        search.pruner,
        search.seed,
        search.startup,
        search.prune_from,
        split,
        to_dict(config),
    )
    for key in study.spaces:
        _check_space(study, key)
    for number in range(1, study.trials if study.sampler == "random" else min(study.trials, study.startup)):
        values = drawn(study.spaces, study.seed, number)
        try:
            study.config(values)
        except ConfigError as error:
            pairs = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
            raise ConfigError(f"The spaces in {study.experiment} can give {pairs}: {error}") from error
    return study


def _check_space(study: Study, key: str) -> None:
    """Raises ConfigError if a key cannot be searched, or its space holds a value that the key cannot have."""
    named = f"The space of {key} in {study.experiment}"
    if key == "seed":
        raise ConfigError(f"{named}: a seed is not searched, for the best of many is luck.")
    if key.startswith(FREE_KEYS):
        raise ConfigError(f"{named}: the key changes no number of a run, so there is nothing to search.")
    if study.pruner != "none" and key in _LENGTHS:
        raise ConfigError(
            f"{named}: the pruner {study.pruner} compares trials at equal steps, so that all have one {key}."
        )
    if any(word.removeprefix("--config.").partition("=")[0] == key for word in study.overrides):
        raise ConfigError(f"{named}: --config.{key} sets the key that is searched; leave it out.")
    for value in to_try(study.spaces[key]):
        try:
            study.config({key: value})
        except ConfigError as error:
            raise ConfigError(f"{named} can give {value!r}: {error}") from error


def check_parts(study: Study) -> None:
    """Builds the parts of the start, and of what `check` alone knows: each choice, and the ends of each argument.

    Raises:
        ConfigError: naming the value that cannot be built.
    """
    check(study.config({}))
    for key, value in _built(study.spaces):
        try:
            check(study.config({key: value}), before_training=True)  # a trace takes seconds
        except ConfigError as error:
            raise ConfigError(f"The space of {key} in {study.experiment} can give {value!r}: {error}") from error


def _built(spaces: Mapping[str, Space]) -> Iterator[tuple[str, Any]]:
    """Yields the values whose meaning is not in the schema of the keys."""
    for key, space in spaces.items():
        if key not in KEYS or (isinstance(space, Choice) and KEYS[key].type in (str, dict)):
            yield from ((key, value) for value in ends(space))


def write_study(study: Study, workdir: Path) -> None:
    """Writes `search.json`.

    Raises:
        ConfigError: as `refuse_others` does, or if it cannot be written.
    """
    with locked(workdir):
        refuse_others(study, workdir)
        spaces = {key: as_json(space) for key, space in study.spaces.items()}
        write_or_refuse(workdir / SEARCH_FILE, {**study._asdict(), "spaces": spaces})


def refuse_others(study: Study, workdir: Path) -> None:
    """Checks that `workdir` can hold the search; changes nothing. The number of trials may differ from before.

    Raises:
        ConfigError: if `workdir` holds a sweep, another search, or a file of someone else that this would replace.
    """
    instead = "give another --workdir"
    if (workdir / PLAN_FILE).exists():
        raise ConfigError(f"{workdir} holds a sweep; {instead} for the search.")
    marks.require_own_figure(workdir / PICTURE, instead)
    if not (workdir / SEARCH_FILE).exists():
        for name in OUTPUTS:
            if (workdir / name).exists():
                raise marks.refusal(workdir / name, instead)
        return
    before = read_study(workdir)
    names = [Path(each.experiment.partition(":")[0]).name for each in (before, study)]
    if names[0] != names[1]:
        raise ConfigError(f"{workdir} holds the search of {before.experiment}; {instead}.")
    fields = ("sampler", "pruner", *_NUMBERS, "split")
    differing = [
        f"{name}: {getattr(before, name)} -> {getattr(study, name)}"
        for name in fields
        if getattr(before, name) != getattr(study, name)
    ]
    keys = sorted(before.spaces.keys() | study.spaces.keys())
    both = [[each.spaces[key] if key in each.spaces else None for each in (before, study)] for key in keys]
    differing += [f"space of {key}: {old} -> {new}" for key, (old, new) in zip(keys, both) if old != new]
    differing += differences_of_runs(from_dict(before.start), from_dict(study.start))
    if differing:
        raise ConfigError(f"{workdir} holds another search; {instead}. What differs: {some(differing, 6)}.")


def read_study(workdir: Path) -> Study:
    """Returns the search in `workdir`.

    Raises:
        ConfigError: if there is none.
    """
    file = workdir / SEARCH_FILE
    try:
        values = read_json(file)
        spaces = {key: from_json(as_tuples_of(space)) for key, space in values["spaces"].items()}
        Search(spaces, **{name: values[name] for name in ("trials", "sampler", "pruner", *_NUMBERS)})  # checks them
        texts = (values["experiment"], values["split"], *values["overrides"])
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("its experiment, split and overrides are no texts")
        from_dict(values["start"])
        return Study(**{**values, "spaces": spaces, "overrides": tuple(values["overrides"])})
    except FileNotFoundError as error:
        raise ConfigError(f"{workdir} holds no search: there is no {SEARCH_FILE} in it.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} is not a search that jaxseg wrote: {error!r}.") from error


def as_tuples_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values that JSON has stored, with tuples in place of lists."""
    return {name: as_tuples(value) for name, value in values.items()}


def shown(value: Any) -> str:
    """Returns a value as a reader sees it: a number with four digits, text as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else label(value) if value is not None else "of the network"


def with_own_copies(config: ConfigDict, name: str) -> ConfigDict:
    """Returns the configuration of a trial, whose copies have a folder of their own in that of the search."""
    if config.checkpoint.copy_to:
        set_key(config, "checkpoint.copy_to", f"{config.checkpoint.copy_to.rstrip('/')}/{name}")
    return config

"""Plans a sweep: a run for each variant and seed, and the workdir of each."""

import contextlib
import hashlib
import inspect
import json
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg import files
from jaxseg.config import (
    ConfigDict,
    command,
    flatten,
    free_keys,
    from_dict,
    set_key,
    to_dict,
    update,
    validate,
)
from jaxseg.data.folders import differences_of_runs
from jaxseg.data.sources import training_source
from jaxseg.errors import ConfigError, nearest
from jaxseg.files import read_json
from jaxseg.run.data import with_steps_of_epochs
from jaxseg.run.workdir import CONFIG_FILE, holds_checkpoint, read_config, write_json
from jaxseg.sweep.outputs import PLAN_FILE, require_own_report
from jaxseg.sweep.records import WHICH
from jaxseg.sweep.variants import Sweep, check_seeds


class PlannedRun(NamedTuple):
    """One training of a sweep; `start` is the name of the run from whose weights it starts, or empty."""

    variant: str
    seed: int
    workdir: Path
    config: ConfigDict
    start: str = ""

    @property
    def name(self) -> str:
        return f"{self.variant} seed {self.seed}"


class Plan(NamedTuple):
    """A sweep as the user asked for it; `sweep.json` holds it.

    Attributes:
        experiment: FILE[:ARG] of the ablation.
        overrides: `--config.KEY=VALUE` arguments, which apply to all variants and come last.
        variants: {name: {dotted key: value}}.
        baseline: name of the variant that the others are compared with, or {variant: name}.
        own_seeds: the seeds in the file.
        seeds: the seeds that the user asked for, with those of earlier calls that have folders.
        split: the split that the runs are scored on.
        configs: {variant: values of its configuration, without regard to the seed}; None in the file of an earlier
            version. Where a variant starts from another, its `model.weights` is that variant's name.
        starts: {variant: the variant from whose weights it starts}; None in the file of an earlier version.
    """

    experiment: str
    overrides: tuple[str, ...]
    variants: dict[str, dict[str, Any]]
    baseline: str | dict[str, str]
    own_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    split: str
    configs: Mapping[str, Mapping[str, Any]] | None = None
    starts: Mapping[str, str] | None = None

    @property
    def baselines(self) -> dict[str, str]:
        """{compared variant: its baseline}."""
        if isinstance(self.baseline, str):
            return {name: self.baseline for name in self.variants if name != self.baseline}
        return self.baseline

    def baseline_of(self, variant: str) -> str:
        """Returns the baseline of a variant; the variant itself if it has none."""
        return self.baselines[variant] if variant in self.baselines else variant

    def is_baseline(self, variant: str) -> bool:
        """Whether others are compared with this variant."""
        return variant == self.baseline or variant in self.baselines.values()

    def start_of(self, variant: str) -> str:
        """Returns the variant from whose weights a variant starts; empty if there is none."""
        return self.starts[variant] if self.starts and variant in self.starts else ""

    def command(self, workdir: Path) -> str:
        """Returns the command that trains these runs in `workdir`, a path from the current folder if it lies there."""
        workdir = workdir.relative_to(Path.cwd()) if workdir.is_relative_to(Path.cwd()) else workdir
        seeds = [] if self.seeds == self.own_seeds else [f"--seeds={','.join(map(str, self.seeds))}"]
        split = [] if self.split == "val" else [f"--split={self.split}"]
        words = [self.experiment, "--workdir", str(workdir), *split, *seeds, *self.overrides]
        return f"python -m jaxseg.sweep --config {shlex.join(words)}"

    def config(self, variant: str, seed: int) -> ConfigDict:
        """Returns the valid configuration of one run, with the name of the variant it starts from as its weights.

        Raises:
            ConfigError: for a wrong key or value, naming the variant.
        """
        config = command.load_experiment(self.experiment)
        try:
            update(config, **self.variants[variant])
            command.parse_overrides(config, self.overrides)
            update(config, seed=seed)
            if start := self.start_of(variant):
                self._refuse_own_weights(config, variant)
                set_key(config, "model.weights", start)
                set_key(config, "model.weights_checkpoint", WHICH)  # that which is scored
                set_key(config, "model.encoder_weights", "")  # the start has an encoder
            validate(config, trained=True)  # `train` validates what it starts
            config = self._with_steps(config, variant)
        except ConfigError as error:
            raise ConfigError(f"Variant {variant!r} of {self.experiment}: {error}") from error
        return config

    def _refuse_own_weights(self, config: ConfigDict, variant: str) -> None:
        if config.model.weights:
            raise ConfigError(
                f"it starts from {self.start_of(variant)!r}, so model.weights={config.model.weights} cannot be given."
            )

    def _with_steps(self, config: ConfigDict, variant: str) -> ConfigDict:
        """Returns the configuration with the steps of its epochs, as they are planned for all seeds of the variant."""
        if config.epochs and self.configs is not None and variant in self.configs:
            set_key(config, "steps", self.configs[variant]["steps"])
            return config
        images = len(training_source(config)) if config.epochs else 0
        return with_steps_of_epochs(config, images)


def load_plan(experiment: str, overrides: Sequence[str], seeds: Sequence[int] | None, split: str) -> Plan:
    """Returns the plan of the ablation file, with every variant's configuration checked.

    Args:
        experiment: FILE[:ARG].
        overrides: `--config.KEY=VALUE` arguments for all variants.
        seeds: seeds in place of those in the file, or None.
        split: the split to score.

    Raises:
        ArgumentError: for invalid seeds.
        ConfigError: if the file is not an ablation, a configuration is wrong, or two variants are the same.
    """
    module, _ = command.load_file(experiment)
    if not hasattr(module, "sweep"):
        raise ConfigError(f"{experiment} defines no sweep() and no search(), one of which follows get_config(arg).")
    with command.blaming(experiment.partition(":")[0]):
        sweep = module.sweep(*_arguments(module.sweep, experiment))
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"sweep() in {experiment} must return a jaxseg.sweep.Sweep, got {type(sweep).__name__}.")
    if any(word.partition("=")[0] == "--config.seed" for word in overrides):
        raise ConfigError("A sweep sets the seed of each run; give --seeds in place of --config.seed.")
    chosen = check_seeds(sweep.seeds if seeds is None else seeds)
    variants = {
        name: {key.replace("__", "."): value for key, value in changes.items()}
        for name, changes in sweep.variants.items()
    }
    baseline = sweep.baseline if isinstance(sweep.baseline, str) else dict(sweep.baseline)
    plan = Plan(experiment, tuple(overrides), variants, baseline, tuple(sweep.seeds), chosen, split)
    plan = plan._replace(starts=dict(sweep.starts))
    configs = {name: plan.config(name, chosen[0]) for name in variants}
    seen: dict[str, str] = {}
    for name, config in configs.items():
        key = digest(config)
        if key in seen:
            given = f" with {' '.join(overrides)}" if overrides else ""
            raise ConfigError(
                f"The variants {seen[key]!r} and {name!r} of {experiment} are the same configuration{given}."
            )
        seen[key] = name
    return plan._replace(configs={name: to_dict(config) for name, config in configs.items()})


def _arguments(sweep: Callable[..., Any], experiment: str) -> tuple[str | None, ...]:
    """Returns what `sweep` of FILE[:ARG] is called with: ARG, or nothing if it takes no argument."""
    return (experiment.partition(":")[2] or None,) if inspect.signature(sweep).parameters else ()


def digest(config: ConfigDict) -> str:
    """Returns the SHA-256 of all keys that change the numbers of a run, without the seed."""
    free = free_keys(config)
    flat = {key: value for key, value in flatten(config).items() if key != "seed" and not key.startswith(free)}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def folder(workdir: Path, variant: str, seed: int) -> Path:
    """Returns the workdir of a run of the sweep in `workdir`."""
    return workdir / variant / f"seed-{seed}"


def runs_of(plan: Plan, workdir: Path, only: Collection[str] = (), shard: tuple[int, int] = (1, 1)) -> list[PlannedRun]:
    """Returns the runs of a plan: all variants with the first seed, then with the second, and so on.

    Args:
        plan: the plan.
        workdir: the folder of the sweep.
        only: names of variants; all if empty.
        shard: (i, n): the i-th of n parts, from 1. Each run is in one of the n parts.

    Raises:
        ConfigError: for an unknown variant.
    """
    for name in only:
        if name not in plan.variants:
            raise ConfigError(f"There is no variant {name!r} in {plan.experiment}.{nearest(name, plan.variants)}")
    chosen = [(name, seed) for seed in plan.seeds for name in plan.variants if not only or name in only]
    groups: dict[tuple[str, int], list[PlannedRun]] = {}  # the runs of one seed that start from one another
    for name, seed in chosen:
        groups.setdefault((_first_of(plan, name), seed), []).append(_planned_run(plan, workdir, name, seed))
    part, parts = shard
    return [run for group in list(groups.values())[part - 1 :: parts] for run in group]


def _first_of(plan: Plan, variant: str) -> str:
    """Returns the variant, in a row of those that start from one another, that starts from none."""
    return _first_of(plan, start) if (start := plan.start_of(variant)) else variant


def _planned_run(plan: Plan, workdir: Path, variant: str, seed: int) -> PlannedRun:
    config, own = plan.config(variant, seed), folder(workdir, variant, seed)
    start = plan.start_of(variant)
    if start:  # a run that has begun keeps the path that it was started with, if the sweep has moved since
        begun = holds_checkpoint(own)
        weights = read_config(own).model.weights if begun else str(folder(workdir, start, seed))
        set_key(config, "model.weights", weights)
    return PlannedRun(
        variant, seed, own, _with_own_copies(config, variant, seed), f"{start} seed {seed}" if start else ""
    )


def _with_own_copies(config: ConfigDict, variant: str, seed: int) -> ConfigDict:
    """Returns the configuration of a run, whose copies have a folder of their own in that of the sweep."""
    if config.checkpoint.copy_to:
        set_key(config, "checkpoint.copy_to", f"{config.checkpoint.copy_to.rstrip('/')}/{variant}/seed-{seed}")
    return config


WITHOUT_LOCKS = "take care that no other sweep or shard runs in this folder at the same time"


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks the folder of the sweep: waits until no other process, such as another shard, writes into it.

    On a file system without locks there is none; a note says so, as for a single run.

    Raises:
        ConfigError: if the folder cannot be created or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(workdir / ".lock", without=WITHOUT_LOCKS))
        except OSError as error:
            raise ConfigError(f"{workdir} cannot be locked for the sweep: {error.strerror or error}.") from error
        yield


def write_plan(plan: Plan, workdir: Path) -> None:
    """Writes `sweep.json`, with the seeds of this call and those of earlier calls that have folders.

    Raises:
        ConfigError: as `refuse_others` does, or if `workdir` cannot be written.
    """
    with locked(workdir):
        refuse_others(plan, workdir)
        if (workdir / PLAN_FILE).exists():
            before = read_plan(workdir)
            started = {seed for seed in before.seeds for name in plan.variants if folder(workdir, name, seed).exists()}
            plan = plan._replace(seeds=tuple(sorted({*started, *plan.seeds})))
        try:
            write_json(workdir / PLAN_FILE, plan._asdict())
        except OSError as error:
            raise ConfigError(f"The sweep cannot be written in {workdir}: {error.strerror or error}.") from error


def refuse_others(plan: Plan, workdir: Path) -> None:
    """Checks that `workdir` can hold the plan; changes nothing.

    Raises:
        ConfigError: if `workdir` holds another ablation, runs of a variant with another configuration, a file that
            is not a plan in its place, or a file of someone else that the report would replace.
    """
    require_own_report(workdir, any(values["log"]["gradients"] for values in (plan.configs or {}).values()))
    if (workdir / PLAN_FILE).exists():
        before = read_plan(workdir)
        names = [Path(each.experiment.partition(":")[0]).name for each in (before, plan)]
        if names[0] != names[1]:
            raise ConfigError(f"{workdir} holds the sweep of {before.experiment}; give another --workdir.")
    for name in plan.variants:
        for file in sorted((workdir / name).glob(f"seed-*/{CONFIG_FILE}")):
            differing = differing_keys(plan, name, file.parent)
            if differing:
                raise ConfigError(
                    f"{file.parent} holds a run of another configuration of {name!r}; runs of two configurations "
                    f"cannot be in one table; give another --workdir. The keys that differ: {'; '.join(differing)}."
                )


def differing_keys(plan: Plan, variant: str, workdir: Path) -> list[str]:
    """Returns the keys, without the seed, in which a run that was started in `workdir` differs from the plan.

    Returns [] if the workdir has no checkpoint or the plan has no configurations.

    Raises:
        ConfigError: if its configuration cannot be read.
    """
    if plan.configs is None or variant not in plan.configs or not holds_checkpoint(workdir):
        return []
    there = with_start(plan, variant, read_config(workdir))
    return differences_of_runs(there, from_dict({**plan.configs[variant], "seed": there.seed}))


def with_start(plan: Plan, variant: str, config: ConfigDict) -> ConfigDict:
    """Returns the configuration of a run with the name of the variant that it starts from in place of its folder."""
    if start := plan.start_of(variant):
        set_key(config, "model.weights", start)
    return config


def read_plan(workdir: Path) -> Plan:
    """Returns the plan of the sweep in `workdir`.

    Raises:
        ConfigError: if there is none.
    """
    file = workdir / PLAN_FILE
    try:
        values = read_json(file)
        lists = {name: tuple(values[name]) for name in ("overrides", "own_seeds", "seeds")}
        values["variants"].keys()
        return Plan(**{**values, **lists})
    except FileNotFoundError as error:
        raise ConfigError(f"{workdir} holds no sweep: there is no {PLAN_FILE} in it.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} is not a plan that a sweep wrote: {error!r}.") from error

"""What there is of a sweep: the runs that have ended, what each variant costs, and how the variants compare."""

import functools
import hashlib
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jaxseg
from jaxseg.build import build_parts
from jaxseg.errors import ConfigError
from jaxseg.models import summary
from jaxseg.run import gradients
from jaxseg.run.provenance import read_starts
from jaxseg.run.report import GRADIENTS_FILE, LOG_FILE, read_log
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE, read_config, read_data, write_json
from jaxseg.sweep.plan import Plan, differing_keys, digest, folder
from jaxseg.sweep.records import read_failure, read_scores
from jaxseg.sweep.statistics import Difference, Spread, paired_difference, spread

MUCH = 0.1
"""A variant whose parameters differ from the baseline's by more than this share of them is marked."""

_COST_FILE = "cost.json"


class Result(NamedTuple):
    """One run that has ended.

    Attributes:
        seed: its seed.
        scores: what `sweep-SPLIT.json` says, see `inference.evaluation.Evaluation.to_dict`.
        log: the lines of its `log.jsonl`.
        gradients: those of its `gradients.jsonl`; none without `log.gradients`.
        starts: those in its `run.json`.
    """

    seed: int
    scores: dict[str, Any]
    log: list[dict[str, Any]]
    gradients: list[dict[str, Any]]
    starts: list[dict[str, Any]]


class Cost(NamedTuple):
    """What a variant is and costs, whatever the seed; empty and 0 before its first run.

    Attributes:
        config: digest of its configuration without the seed.
        code: digest of the sources that this was worked out with.
        parameters: how many numbers the network learns.
        flops: of its convolutions and matrix products for one image of the training size, two for a multiply-add.
        layers: see `jaxseg.run.gradients.layers`.
    """

    config: str = ""
    code: str = ""
    parameters: int = 0
    flops: int = 0
    layers: tuple[str, ...] = ()


class Row(NamedTuple):
    """One variant.

    Attributes:
        name: its name.
        results: its runs that have ended, by seed.
        failures: {seed: last line of the error} of those that failed.
        spread: of the mIoU over the seeds.
        difference: to its baseline, paired by seed; None for a variant that is compared with none.
        cost: what it costs.
        larger: by what share its parameters are more than the baseline's, NaN where that is not known.
    """

    name: str
    results: list[Result]
    failures: dict[int, str]
    spread: Spread
    difference: Difference | None
    cost: Cost
    larger: float

    @property
    def resized(self) -> bool:
        """Whether the comparison is one of size too."""
        return abs(self.larger) > MUCH + 1e-9  # which 1100 of 1000, in floating point, is not


def gather(plan: Plan, workdir: Path) -> list[Row]:
    """Returns the variants in the order of the plan, with what there is of their runs."""
    rows: list[Row] = []
    for name in plan.variants:
        folders = {seed: folder(workdir, name, seed) for seed in plan.seeds}
        other = {seed for seed, path in folders.items() if _is_other(plan, name, path)}
        ended = {
            seed: scores
            for seed, path in folders.items()
            if seed not in other and (scores := read_scores(path, plan.split))
        }
        results = [
            Result(
                seed, scores, read_log(folders[seed] / LOG_FILE), _gradients(folders[seed]), read_starts(folders[seed])
            )
            for seed, scores in ended.items()
        ]
        errors = {seed: read_failure(path) for seed, path in folders.items() if seed not in ended}
        errors |= dict.fromkeys(other, f"{CONFIG_FILE} is not that of this variant; the run is not counted.")
        failures = {seed: error.replace(f"{workdir}{os.sep}", "") for seed, error in errors.items() if error}
        cost = _cost(workdir / name, [path for seed, path in folders.items() if seed not in other])
        if results:  # what was trained, whatever the code of today would make of the configuration
            cost = cost._replace(parameters=results[0].scores["parameters"])
        own = spread([scores["mean_iou"] for scores in ended.values()])
        rows.append(Row(name, results, failures, own, None, cost, math.nan))
    return compare(plan, rows)


def compare(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with the difference of each to its baseline, in score and in size."""
    scores = {row.name: {result.seed: result.scores["mean_iou"] for result in row.results} for row in rows}
    sizes = {row.name: row.cost.parameters for row in rows}
    compared = []
    for row in rows:
        if (base := plan.baseline_of(row.name)) != row.name:
            larger = sizes[row.name] / sizes[base] - 1 if sizes[row.name] and sizes[base] else math.nan
            row = row._replace(difference=paired_difference(scores[row.name], scores[base]), larger=larger)
        compared.append(row)
    return compared


def _is_other(plan: Plan, variant: str, workdir: Path) -> bool:
    """Whether a run was begun with another configuration than the plan's, or one that cannot be read."""
    try:
        return bool(differing_keys(plan, variant, workdir))
    except ConfigError:
        return True


def _gradients(workdir: Path) -> list[dict[str, Any]]:
    return read_log(workdir / GRADIENTS_FILE) if (workdir / GRADIENTS_FILE).exists() else []


def _cost(variant: Path, folders: Iterable[Path]) -> Cost:
    """Returns the cost of a variant, which is kept in its folder for as long as the sources stay the same."""
    begun = [path for path in folders if (path / INFO_FILE).is_file()]
    if not begun:
        return Cost()
    config, key, code = read_config(begun[0]), digest(read_config(begun[0])), _code()
    try:
        known = Cost(**json.loads((variant / _COST_FILE).read_text(encoding="utf-8")))
        if (known.config, known.code) == (key, code):
            return known._replace(layers=tuple(known.layers))
    except (OSError, ValueError, TypeError):
        pass
    parts = build_parts(config, read_data(begun[0]).num_classes)
    *size, channels = parts.image_shape
    network = summary.modules(parts.model, tuple(size), channels)[0]
    names = gradients.layers(parts) if config.log.gradients else ()
    cost = Cost(key, code, network.parameters, network.flops, names)
    write_json(variant / _COST_FILE, cost._asdict())
    return cost


def mean_gradients(
    runs: Sequence[Sequence[Mapping[str, Any]]], layers: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Returns the norm of each layer's gradient at initialisation and at the last step: geometric means over seeds.

    Args:
        runs: the lines of `gradients.jsonl` of each run.
        layers: see `jaxseg.run.gradients.layers`.
    """

    def at(place: int) -> list[float]:
        norms = [gradients.of_layers(run[place]["norms"], layers) for run in runs if run]
        return [math.exp(math.fsum(map(math.log, each)) / len(each)) for each in zip(*norms)]

    return at(0), at(-1)


@functools.cache
def _code() -> str:
    """Returns a digest of the package's sources."""
    files = sorted(Path(jaxseg.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def step_seconds(result: Result) -> float:
    """Returns the median over the log lines of the seconds of a training step; NaN where none was timed."""
    batch = result.scores["config"]["batch_size"]
    rates = [record["images_per_second"] for record in result.log if record["split"] == "train"]
    return statistics.median([batch / rate for rate in rates if rate] or [math.nan])


def minutes(result: Result) -> float:
    """Returns the minutes of a run that was trained at one go, compilation included; NaN where it was resumed."""
    one = len(result.starts) == 1 and "end" in result.starts[0]
    return result.starts[0]["end"]["seconds"] / 60 if one else math.nan


def environments(rows: Sequence[Row]) -> list[str]:
    """Returns a line for each kind of machine, versions and commit that a run which has ended was started with."""
    lines = set()
    for start in (start for row in rows for result in row.results for start in result.starts):
        device, git = start["device"], start["git"]
        where = f"{device['count']} x {device['kind']}"
        if device["platform"] == "cpu":
            where = f"{device['cpu']}, {device['threads']} of {device['cpus']} threads"
        versions = [f"{name} {version}" for name, version in start["packages"].items() if version]
        commit = f"commit {git['commit'][:12]}{', changed' if git['changed'] else ''}" if git else "no commit"
        variables = [f"{name}={value}" for name, value in start["environment"].items()]
        if "compiler_options" in start:
            variables += [f"{name}={value}" for name, value in start["compiler_options"].items()]
        lines.add("; ".join([where, f"Python {start['python']}, {', '.join(versions)}", commit, *variables]))
    return sorted(lines)

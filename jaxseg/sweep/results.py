"""Gathers the results of a sweep: the finished runs, the cost of each variant, and how the variants compare."""

import functools
import hashlib
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jaxseg
from jaxseg.build import build_parts
from jaxseg.errors import ConfigError
from jaxseg.files import read_json
from jaxseg.models import summary
from jaxseg.run import gradients
from jaxseg.run.provenance import read_starts
from jaxseg.run.report import GRADIENTS_FILE, LOG_FILE, read_log
from jaxseg.run.workdir import CONFIG_FILE, INFO_FILE, read_config, read_data, write_json
from jaxseg.sweep.plan import Plan, differing_keys, digest, folder, with_start
from jaxseg.sweep.records import read_failure, read_scores
from jaxseg.sweep.statistics import Difference, Spread, paired_difference, spread

MUCH = 0.1
"""A variant is marked if its number of parameters differs from the baseline's by more than this share."""

_COST_FILE = "cost.json"


class Result(NamedTuple):
    """A finished run.

    Attributes:
        seed: its seed.
            scores: what `sweep-SPLIT.json` says, see `inference.evaluation.Evaluation.to_dict`.
        log: the records in its `log.jsonl`.
        gradients: the records in its `gradients.jsonl`; none without `log.gradients`.
        starts: the starts in its `run.json`.
    """

    seed: int
    scores: dict[str, Any]
    log: list[dict[str, Any]]
    gradients: list[dict[str, Any]]
    starts: list[dict[str, Any]]


class Cost(NamedTuple):
    """The size and cost of a variant, the same for every seed; empty and 0 before its first run.

    Attributes:
        config: digest of its configuration without the seed.
        code: digest of the sources that computed this.
        parameters: number of the network's parameters.
        flops: of its convolutions and matrix products for one image of the training size; a multiply-add counts two.
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
        results: its finished runs, by seed.
        failures: {seed: last line of the error} of the runs that failed.
        spread: of the mIoU over the seeds.
        difference: to its baseline, paired by seed; None for a variant without a baseline.
        cost: what it costs.
        larger: (parameters - the baseline's) / the baseline's; NaN where one is not known.
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
        """Whether the comparison is also one of size."""
        return abs(self.larger) > MUCH + 1e-9  # 1100 of 1000 is 10 % despite rounding


def gather(plan: Plan, workdir: Path) -> list[Row]:
    """Returns the variants in the order of the plan, with the results that exist."""
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
        cost = _cost(plan, name, workdir / name, [path for seed, path in folders.items() if seed not in other])
        if results:  # of the trained network; the code may have changed since then
            cost = cost._replace(parameters=results[0].scores["parameters"])
        scores_spread = spread([scores["mean_iou"] for scores in ended.values()])
        rows.append(Row(name, results, failures, scores_spread, None, cost, math.nan))
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
    """Returns whether a run was started with another configuration than the plan's, or one that cannot be read."""
    try:
        return bool(differing_keys(plan, variant, workdir))
    except ConfigError:
        return True


def _gradients(workdir: Path) -> list[dict[str, Any]]:
    return read_log(workdir / GRADIENTS_FILE) if (workdir / GRADIENTS_FILE).exists() else []


def _cost(plan: Plan, name: str, variant: Path, folders: Iterable[Path]) -> Cost:
    """Returns the cost of a variant; a file in its folder keeps it until the sources change."""
    started = [path for path in folders if (path / INFO_FILE).is_file()]
    if not started:
        return Cost()
    config = with_start(plan, name, read_config(started[0]))
    key, code = digest(config), _code()
    try:
        known = Cost(**read_json(variant / _COST_FILE))
        if (known.config, known.code) == (key, code):
            return known._replace(layers=tuple(known.layers))
    except (OSError, ValueError, TypeError):
        pass
    parts = build_parts(config, read_data(started[0]).num_classes)
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
        runs: for each run the records in its `gradients.jsonl`.
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
    """Returns the minutes of a run with its compilation; NaN for a resumed run."""
    one = len(result.starts) == 1 and "end" in result.starts[0]
    return result.starts[0]["end"]["seconds"] / 60 if one else math.nan


def environments(rows: Sequence[Row]) -> list[str]:
    """Returns a line for each combination of machine, versions and commit on which a finished run was started."""
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

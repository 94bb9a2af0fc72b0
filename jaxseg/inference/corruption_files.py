"""The files of the scores on corrupted images: their names, what is added to one, and those of a baseline."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.data.corruptions import CORRUPTIONS
from jaxseg.errors import ConfigError, counted
from jaxseg.files import read_json
from jaxseg.inference.evaluation import endings, report_name
from jaxseg.inference.other_data import about_other, other_than, require_own_name
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.report_files import corruptions_file, of_data
from jaxseg.metrics.formatting import plain
from jaxseg.run.fold_folder import FOLDS_FILE, fold_workdirs
from jaxseg.run.load import Run
from jaxseg.run.workdir import CONFIG_FILE, require_own_json

_KEYS = ("split", "clean", "strengths", "corruptions")  # of the file
_BY_STRENGTH = ("mean_iou", "pixel_accuracy", "drop")  # of a row
_NO_MATTER = 1e-6  # of a score, between two evaluations of the same network


class Baseline(NamedTuple):
    """The scores of another network, to which the errors of a run are related.

    Attributes:
        workdir: of its run.
        support: the true pixels of each class of its split.
        mean_iou: {corruption: the mean IoU of each strength}.
    """

    workdir: str
    support: tuple[int, ...]
    mean_iou: Mapping[str, tuple[float, ...]]


def file_of(run: Run, split: str, predictor: Predictor | None = None) -> Path:
    """Returns the path of corruptions-SPLIT.json of a run, with the name that its other scores have."""
    return corruptions_file(run.workdir, report_name(run, split, predictor))


def require_own(file: Path, run: Run, names: Sequence[str], strengths: Sequence[int], seed: int) -> None:
    """Raises ConfigError if a file of the name of the scores is none of ours, or has scores that these would replace.

    Scores of the same checkpoint and seed are added to those of the file, where it then has each corruption at each
    strength. Those of all that it has, and more, replace it.
    """
    require_own_json(file, _KEYS)
    require_own_name(file, about_other(run))
    if not file.is_file():
        return
    old, (known, levels) = _read(file), _held(file)
    if _covers(old, run, names, strengths, seed):
        return
    if (old["step"], old["which"], old["seed"]) != (run.step, run.which, seed):
        raise ConfigError(
            f"{file} has {counted(len(known), 'corruption')} at the strengths {_listed(levels)} of the {old['which']} "
            f"checkpoint after {counted(old['step'], 'step')} with seed {old['seed']}, and the scores here, of the "
            f"{run.which} one after {counted(run.step, 'step')} with seed {seed}, would replace them: move the file "
            "away."
        )
    every = sorted({*levels, *strengths})
    both = {n: {*(levels if n in known else ()), *(strengths if n in names else ())} for n in CORRUPTIONS}
    lacking = [n for n, has in both.items() if has and has != set(every)]
    if lacking:
        raise ConfigError(
            f"{file} has {', '.join(known)} at the strengths {_listed(levels)}, and with {', '.join(names)} at "
            f"{_listed(strengths)} not every corruption would have every strength: score {', '.join(lacking)} at "
            f"{_listed(every)}, or move the file away."
        )


def merged(file: Path, run: Run, new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a file of scores holds with new ones added; see `require_own`.

    Errors that are related to a baseline stay where each is over all strengths, and of the same baseline.

    Raises:
        ConfigError: as `require_own`, or if the file has scores of other images or masks.
    """
    names, strengths = list(new["corruptions"]), new["strengths"]
    require_own(file, run, names, strengths, new["seed"])
    if not file.is_file() or _covers(old := _read(file), run, names, strengths, new["seed"]):
        return dict(new)
    clean = [each["clean"]["mean_iou"] for each in (old, new)]
    if old["support"] != new["support"] or None in clean or abs(clean[0] - clean[1]) > _NO_MATTER:
        raise ConfigError(
            f"{file} has scores on other images or masks, or of images segmented otherwise: move the file away to "
            "write these."
        )
    every = sorted({*old["strengths"], *strengths})
    parts = (old, new)
    rows = {}
    for name in (name for name in CORRUPTIONS if any(name in each["corruptions"] for each in parts)):
        holding = [each for each in parts if name in each["corruptions"]]
        row = {key: [_value(holding, name, key, strength) for strength in every] for key in _BY_STRENGTH}
        last = holding[-1]
        fits = "baseline" not in new or ("baseline" in last and last["baseline"] == new["baseline"])
        if last["strengths"] == every and "relative_error" in last["corruptions"][name] and fits:
            row["relative_error"] = last["corruptions"][name]["relative_error"]
        rows[name] = row
    drops = [_number(x) for row in rows.values() for x in row["drop"]]
    related = [row["relative_error"] for row in rows.values() if "relative_error" in row]
    rest = {key: value for key, value in new.items() if key not in ("mean_drop", "mean_relative_error", "baseline")}
    report = {**rest, "strengths": every, "corruptions": rows, "mean_drop": plain(float(np.mean(drops)))}
    if len(related) == len(rows):
        report["mean_relative_error"] = plain(float(np.mean([_number(x) for x in related])))
    return {**report, **({"baseline": (new if "baseline" in new else old)["baseline"]} if related else {})}


def _value(holding: Sequence[Mapping[str, Any]], name: str, key: str, strength: int) -> float | None:
    last = [each for each in holding if strength in each["strengths"]][-1]
    return last["corruptions"][name][key][last["strengths"].index(strength)]


def _covers(old: Mapping[str, Any], run: Run, names: Sequence[str], strengths: Sequence[int], seed: int) -> bool:
    """Returns whether new scores have all that a file has, of the same kind of checkpoint, which may be a newer one."""
    held = set(old["corruptions"]) <= set(names) and set(old["strengths"]) <= set(strengths)
    return held and (old["which"], old["seed"]) == (run.which, seed)


def _read(file: Path) -> dict[str, Any]:
    """Returns the content of a file of scores; raises ConfigError if it is not as jaxseg writes it."""
    try:
        content = read_json(file)
        [int(content[key]) for key in ("step", "seed")]
        strengths = [int(strength) for strength in content["strengths"]]
        rows = content["corruptions"].values()
        whole = all(len(row[key]) == len(strengths) for row in rows for key in _BY_STRENGTH)
        if not (whole and content["which"] and "mean_iou" in content["clean"] and list(content["support"])):
            raise ValueError("it lacks scores")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not a file of scores that jaxseg wrote: {error}.") from error
    return content


def _number(x: float | None) -> float:
    return float("nan") if x is None else x


def _held(file: Path) -> tuple[list[str], list[int]]:
    content = _read(file)
    return list(content["corruptions"]), list(content["strengths"])


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def baseline_file(workdir: str | Path, run: Run, split: str, predictor: Predictor | None = None) -> Path:
    """Returns the path of the scores of a baseline on the split of a run, which may be other data for either."""
    there = expanded(workdir)
    own = fold_workdirs(there)[0] if (there / FOLDS_FILE).is_file() else there
    other = other_than(own, run.config) if (own / CONFIG_FILE).is_file() else ""
    return corruptions_file(there, of_data(split, other) + endings(predictor))


def read_baseline(
    workdir: str | Path,
    file: Path,
    names: Sequence[str],
    strengths: Sequence[int],
    seed: int = 0,
    options: Sequence[str] = (),
) -> Baseline:
    """Returns the scores of another run.

    Args:
        workdir: of the other run.
        file: of its scores, of `baseline_file`.
        names, strengths, seed: of the scores, which the other must have too; see `chosen`.
        options: further words of the command that scores it in the same way.

    Raises:
        ConfigError: if it has none, they lack some of these, or the file cannot be read.
    """
    wanted = ["--corruptions", *names, "--strengths", *map(str, strengths), "--seed", str(seed)]
    command = shlex.join(["jaxseg", "evaluate", "--workdir", str(workdir), *options, *wanted])
    if not file.is_file():
        raise ConfigError(f"The baseline has no {file}; score it on the same split first: {command}")
    require_own_json(file, _KEYS)
    content = _read(file)
    known, levels = _held(file)
    if not set(names) <= set(known) or not set(strengths) <= set(levels) or content["seed"] != seed:
        raise ConfigError(
            f"{file} has the corruptions {', '.join(known)} at the strengths {_listed(levels)} with seed "
            f"{content['seed']}, and the scores here have others; score the baseline with the same: {command}"
        )
    places = [levels.index(strength) for strength in strengths]
    rows = {name: content["corruptions"][name]["mean_iou"] for name in names}
    mean_iou = {name: tuple(float(_number(row[place])) for place in places) for name, row in rows.items()}
    return Baseline(str(workdir), tuple(int(x) for x in content["support"]), mean_iou)

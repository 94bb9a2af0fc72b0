"""The files of the scores on corrupted images: their names, what they may replace, and those of a baseline."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg.arguments import expanded
from jaxseg.data.corruptions import CORRUPTIONS
from jaxseg.errors import ConfigError
from jaxseg.files import read_json
from jaxseg.inference.evaluation import endings, report_name
from jaxseg.inference.other_data import about_other, other_than, require_own_name
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.report_files import corruptions_file, of_data
from jaxseg.run.fold_folder import FOLDS_FILE, fold_workdirs
from jaxseg.run.load import Run
from jaxseg.run.workdir import CONFIG_FILE, require_own_json

_KEYS = ("split", "clean", "strengths", "corruptions")  # of the file
_BY_STRENGTH = ("mean_iou", "pixel_accuracy", "drop")  # of a row


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

    Scores of all that it has, of the same kind of checkpoint and the same seed, replace it.
    """
    require_own_json(file, _KEYS)
    require_own_name(file, about_other(run))
    if not file.is_file():
        return
    old = _read(file)
    known, levels = list(old["corruptions"]), old["strengths"]
    held = set(known) <= set(names) and set(levels) <= set(strengths)
    if not held or (old["which"], old["seed"]) != (run.which, seed):
        raise ConfigError(
            f"{file} has {', '.join(known)} at the strengths {_listed(levels)} of the {old['which']} checkpoint with "
            f"seed {old['seed']}, and the scores here, of the {run.which} one with seed {seed}, would not hold all of "
            "that: score at least the same, or move the file away."
        )


def _read(file: Path) -> dict[str, Any]:
    """Returns the content of a file of scores; raises ConfigError if it is not as jaxseg writes it."""
    try:
        content = read_json(file)
        int(content["seed"])
        strengths = [int(strength) for strength in content["strengths"]]
        rows = content["corruptions"].values()
        whole = all(len(row[key]) == len(strengths) for row in rows for key in _BY_STRENGTH)
        if not (whole and content["which"] and "mean_iou" in content["clean"] and list(content["support"])):
            raise ValueError("it lacks scores")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is not a file of scores that jaxseg wrote: {error}.") from error
    return content


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

    def command(names: Sequence[str], strengths: Sequence[int]) -> str:
        wanted = ["--corruptions", *names, "--strengths", *map(str, strengths), "--seed", str(seed)]
        return shlex.join(["jaxseg", "evaluate", "--workdir", str(workdir), *options, *wanted])

    if not file.is_file():
        raise ConfigError(f"The baseline has no {file}; score it on the same split first: {command(names, strengths)}")
    require_own_json(file, _KEYS)
    content = _read(file)
    known, levels = list(content["corruptions"]), list(content["strengths"])
    if not set(names) <= set(known) or not set(strengths) <= set(levels) or content["seed"] != seed:
        every = [name for name in CORRUPTIONS if name in {*known, *names}]  # so that no score is lost
        again = command(every, sorted({*levels, *strengths}))
        raise ConfigError(
            f"{file} has the corruptions {', '.join(known)} at the strengths {_listed(levels)} with seed "
            f"{content['seed']}, and the scores here have others; score the baseline with these too: {again}"
        )
    scores = {name: content["corruptions"][name]["mean_iou"] for name in names}
    scores = {name: [row[levels.index(strength)] for strength in strengths] for name, row in scores.items()}
    mean_iou = {name: tuple(math.nan if x is None else float(x) for x in row) for name, row in scores.items()}
    return Baseline(str(workdir), tuple(int(x) for x in content["support"]), mean_iou)

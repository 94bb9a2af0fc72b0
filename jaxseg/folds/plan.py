"""The folds of a cross-validation: which image is in which, in the file that all their runs read, and their runs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.config import ConfigDict, differences, from_dict, to_dict, with_values
from jaxseg.data.base import Source
from jaxseg.data.class_counts import label_counts
from jaxseg.data.folders import is_divided
from jaxseg.data.folds import COLUMNS, about_folds, balanced_folds, groups_of, read_folds
from jaxseg.data.sources import make_source, training_source
from jaxseg.errors import ConfigError, counted
from jaxseg.files import read_json, write_text
from jaxseg.run.data import reading_of, with_steps_of_epochs, with_stored_division
from jaxseg.run.fold_folder import FOLDS_FILE, fold_workdirs
from jaxseg.run.stored_encoder import with_stored_encoder
from jaxseg.run.workdir import CONFIG_FILE, holds_checkpoint, write_json
from jaxseg.sweep.outputs import PLAN_FILE
from jaxseg.sweep.plan import PlannedRun

TABLE = "folds.csv"


class Division(NamedTuple):
    """Which image is in which fold, and what there is to say about it; `about` is "" of a division that was there."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    numbers: tuple[int, ...]
    about: str

    def text(self) -> str:
        """Returns the content of the file of folds."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *zip(self.names, self.groups, self.numbers)])
        return text.getvalue()


def require_single_values(config: ConfigDict) -> None:
    """Raises ConfigError if the configuration has a fold already."""
    for key in ("fold", "fold_file"):
        if config.data[key]:
            raise ConfigError(f"--folds sets data.fold and data.fold_file of each run; leave out data.{key}.")


def require_same_folds(workdir: Path, folds: int, config: ConfigDict) -> None:
    """Raises ConfigError if `workdir` holds something else than these folds of this configuration."""
    for file in (CONFIG_FILE, PLAN_FILE):
        if (workdir / file).exists():
            what = "a run" if file == CONFIG_FILE else "a sweep"
            raise ConfigError(f"{workdir} holds {what}, and folds need a folder of their own; give another --workdir.")
    if not (workdir / FOLDS_FILE).exists():
        return
    before = read_plan(workdir)
    if before["folds"] != folds:
        raise ConfigError(
            f"{workdir} holds {counted(before['folds'], 'fold')}, and --folds asks for {folds}; the images of a fold "
            "would be others. Give another --workdir."
        )
    if not started(workdir, folds):
        return
    differing = differences(from_dict(before["config"]), config, divided=is_divided(config))
    if differing:
        raise ConfigError(
            f"{workdir} holds folds of another configuration; give another --workdir. The keys that differ: "
            f"{'; '.join(differing)}."
        )


def with_stored_folds(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the configuration with the division and the encoder of the first fold in `workdir` that has started; see
    `with_stored_division` and `with_stored_encoder`."""
    if not (workdir / FOLDS_FILE).exists():
        return config
    own = [path for path in fold_workdirs(workdir) if holds_checkpoint(path)]
    return with_stored_encoder(with_stored_division(config, own[0]), own[0]) if own else config


def read_plan(workdir: Path) -> dict[str, Any]:
    """Returns the content of folds.json; raises ConfigError if it is none of `write_plan`."""
    file = workdir / FOLDS_FILE
    try:
        content = read_json(file)
        return {name: content[name] for name in ("folds", "experiment", "config")} | {"folds": int(content["folds"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no file of jaxseg train --folds: {error!r}.") from error


def started(workdir: Path, folds: int) -> bool:
    """Returns whether a fold has a checkpoint."""
    return any(holds_checkpoint(fold_workdir(workdir, fold)) for fold in range(1, folds + 1))


def fold_workdir(workdir: Path, fold: int) -> Path:
    """Returns the workdir of a fold in the folder of a cross-validation."""
    return workdir / f"fold-{fold}"


def divide(config: ConfigDict, folds: int, workdir: Path) -> Division:
    """Returns the division of the training images: that of `workdir`, or a new one, for which every mask is read.

    With data.on_error=skip an image that cannot be read is in no fold (`NO_FOLD`), as one without labels: no run is
    scored on it, and a note names it.

    Raises:
        ConfigError: if runs in `workdir` were started with other images or groups.
        DataError: if there are too few images or groups, or `data.group` does not fit them.
    """
    source = make_source(config, config.data.train_split)
    names = tuple(source.name(i) for i in range(len(source)))
    groups = tuple(groups_of(source, config.data.group))
    if (workdir / TABLE).is_file():
        kept = _kept(workdir, names, groups, folds)
        if kept is not None:
            return kept
    counts = label_counts(source, reading_of(config))
    numbers = balanced_folds(counts, groups, folds)
    about = about_folds(numbers, counts, source.info.classes, groups)
    return Division(names, groups, tuple(map(int, numbers)), about)


def _kept(workdir: Path, names: Sequence[str], groups: Sequence[str], folds: int) -> Division | None:
    """Returns the division in `workdir` if it is of these images; None if it can be made again."""
    with (workdir / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        rows = {row["name"]: row["group"] for row in csv.DictReader(lines)}
    if rows == dict(zip(names, groups)):
        table = read_folds(workdir / TABLE, folds)
        return Division(tuple(names), tuple(groups), tuple(table[name] for name in names), "")
    if not started(workdir, folds):
        return None
    new, gone = set(names) - rows.keys(), rows.keys() - set(names)
    moved = [name for name, group in zip(names, groups) if name in rows and rows[name] != group]
    what = [
        f"{counted(len(found), 'image')} {verb} ({min(found)})"
        for found, verb in ((new, "came"), (gone, "went"), (moved, "changed group"))
        if found
    ]
    raise ConfigError(
        f"{workdir} holds folds of other training images: {', '.join(what)}. Runs that have started keep their images; "
        "give another --workdir."
    )


def runs_of(config: ConfigDict, division: Division, folds: int, workdir: Path, source: Source | None = None) -> Any:
    """Returns the run of each fold, as those of a sweep."""
    runs = []
    for fold in range(1, folds + 1):
        own = fold_workdir(workdir, fold)
        values: dict[str, Any] = {"data.fold": f"{fold}/{folds}", "data.fold_file": str(workdir / TABLE)}
        if config.checkpoint.copy_to:
            values["checkpoint.copy_to"] = f"{config.checkpoint.copy_to.rstrip('/')}/fold-{fold}"
        of_fold = with_values(config, values)
        if of_fold.epochs:
            of_fold = with_steps_of_epochs(of_fold, len(training_source(of_fold)), own)
        runs.append(PlannedRun(f"fold-{fold}", config.seed, own, of_fold))
    return runs


def write_plan(workdir: Path, experiment: str, folds: int, config: ConfigDict, division: Division) -> None:
    """Writes folds.csv and folds.json; raises ConfigError if they cannot be written."""
    try:
        write_text(workdir / TABLE, division.text())
        write_json(workdir / FOLDS_FILE, {"folds": folds, "experiment": experiment, "config": to_dict(config)})
    except OSError as error:
        raise ConfigError(f"The folds cannot be written in {workdir}: {error.strerror or error}.") from error


def sizes_of(division: Division, folds: int) -> list[int]:
    """Returns how many images each fold has."""
    return np.bincount(division.numbers, minlength=folds + 1)[1:].tolist()

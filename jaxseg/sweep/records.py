"""Reads and writes the result of a run: its scores once it has finished, or the error that ended it."""

from pathlib import Path
from typing import Any, Final

from jaxseg.config import ConfigDict, from_dict
from jaxseg.data.folders import differences_of_runs
from jaxseg.files import read_json
from jaxseg.inference.evaluation import scores_file
from jaxseg.run.provenance import early_end
from jaxseg.run.workdir import CHECKPOINTS, holds_checkpoint, read_config, write_json

FAILURE_FILE = "failure.json"
WHICH: Final = "last"
"""The checkpoint that is scored: the last, which is not chosen by a validation score."""


def own_scores_file(workdir: Path, split: str) -> Path:
    """Returns the path of sweep-SPLIT.json, which `python -m jaxseg.evaluate` does not overwrite."""
    file = scores_file(workdir, split)
    return file.with_name(f"sweep{file.name.removeprefix('evaluate')}")


def read_scores(workdir: Path, split: str) -> dict[str, Any] | None:
    """Returns the scores of a run at its last step, from `sweep-SPLIT.json`; None if the run has not finished.

    Scores of another checkpoint, or of another configuration than that in `config.json`, do not count.
    """
    try:
        scores = read_json(own_scores_file(workdir, split))
        config = read_config(workdir)
        whole = (scores["split"], scores["which"]) == (split, WHICH) and is_last_step(workdir, config, scores["step"])
        return scores if whole and not differences_of_runs(from_dict(scores["config"]), config) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_trained(workdir: Path) -> bool:
    """Returns whether the workdir has the checkpoint of the last step of its run, scored or not."""
    if not holds_checkpoint(workdir):
        return False
    from jaxseg.run.checkpoint import Checkpoints  # imports Orbax, which only checkpoints need

    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        return is_last_step(workdir, read_config(workdir), checkpoints.latest_step())


def is_last_step(workdir: Path, config: ConfigDict, step: int | None) -> bool:
    """Returns whether a run ends with this step: the last of its configuration, or where `stop.patience` ended it."""
    return step == config.steps or (config.stop.patience > 0 and step is not None and step == early_end(workdir))


def read_failure(workdir: Path) -> str | None:
    """Returns the last line of the error that ended a run; None if no error is recorded."""
    try:
        return str(read_json(workdir / FAILURE_FILE)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_failure(workdir: Path, error: str) -> None:
    """Records the error that ended a run; an empty `error` removes the record."""
    if error:
        write_json(workdir / FAILURE_FILE, {"error": error})
    else:
        (workdir / FAILURE_FILE).unlink(missing_ok=True)

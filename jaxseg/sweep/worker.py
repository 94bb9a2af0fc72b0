"""Runs one run of a sweep in its own process: `python -m jaxseg.sweep.worker RUN_WORKDIR SPLIT PROGRAM ARGUMENT...`.

Trains, or resumes, the configuration in `config.json` of the workdir, and scores it on the split. The program and its
arguments are those of the sweep, for the record of the run. When the process ends, its devices' memory and any leak are
freed; when the system kills it, the other runs are not affected. It runs as long as its standard input is open: when
the sweep that started it ends for any reason, it saves and exits.
"""

import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from jaxseg.compiler import keep_programs
from jaxseg.data.folds import HELD_OUT
from jaxseg.files import locked
from jaxseg.inference.evaluation import evaluate
from jaxseg.inference.out_of_fold import score_held_out
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.load import Run, load_run
from jaxseg.run.workdir import CHECKPOINTS, read_config, write_json
from jaxseg.sweep.plan import WITHOUT_LOCKS
from jaxseg.sweep.records import WHICH, is_last_step, own_scores_file, read_scores, write_failure
from jaxseg.train import train

FINISHED, FAILED, STOPPED = 0, 1, 3
"""Exit statuses."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    workdir, split, *command = list(sys.argv[1:] if argv is None else argv)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sys.argv = command
    return run(Path(workdir), split)


def run(workdir: Path, split: str) -> int:
    """Trains and scores one run; returns FINISHED, STOPPED, or FAILED with the error's last line in `failure.json`."""
    with locked(workdir / ".lock", without=WITHOUT_LOCKS):  # waits for another sweep that runs this run
        if read_scores(workdir, split) is not None:
            return FINISHED
        try:
            write_failure(workdir, "")
            trained = _trained(workdir)
            if trained is None:
                return STOPPED
            left_out = split == HELD_OUT and trained.config.data.fold  # else it is a split of the data of this name
            evaluation = score_held_out(trained) if left_out else evaluate(trained, split)
            if not evaluation.confusion.sum():
                raise ValueError(f"the split {split} has no labelled pixel, so there is nothing to score")
            evaluation.write_report()
            write_json(own_scores_file(workdir, split), evaluation.to_dict())  # the last: now it has ended
        except (KeyboardInterrupt, SystemExit):
            return STOPPED
        except Exception as error:  # any error: the other runs continue
            traceback.print_exc()
            write_failure(workdir, "".join(traceback.format_exception_only(error)).strip().splitlines()[-1])
            return FAILED
    return FINISHED


def _trained(workdir: Path) -> Run | None:
    """Returns the run at its last step, after training if it is not there yet; None if a signal stopped it."""
    config = read_config(workdir)
    keep_programs(config.compile.cache)
    own = {
        key: config[key] for key in ("data.cache", "data.max_pixels") if config[key]
    }  # `load_run` takes them from no workdir
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        finished = is_last_step(workdir, config, checkpoints.latest_step())
    trained = load_run(workdir, WHICH, own) if finished else None
    # Not finished, or the last checkpoint is damaged.
    if trained is None or not is_last_step(workdir, config, trained.step):
        if train(config, workdir, f"python -m {shlex.join(sys.argv)}") is None:
            return None
        trained = load_run(workdir, WHICH, own)
    return trained


def _leave_with_parent() -> None:
    """Waits for the end of standard input, then asks this process to save and exit."""
    while os.read(0, 1):  # not sys.stdin: Python cannot close it while a thread reads it
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

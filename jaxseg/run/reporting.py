"""The reporter of a run, from its configuration."""

from pathlib import Path

from jaxseg.config import ConfigDict
from jaxseg.run import messages
from jaxseg.run.data import Problem
from jaxseg.run.pace import Rhythm
from jaxseg.run.report import Reporter
from jaxseg.run.tracking import Tracking


def make_reporter(config: ConfigDict, problem: Problem, workdir: Path, began: float | None = None) -> Reporter:
    """Returns what reports a run.

    Args:
        config, problem, workdir: of the run.
        began: when this start began, by `time.perf_counter`; None: now.
    """
    rhythm = Rhythm(
        evaluations=config.eval.every,
        checkpoints=config.checkpoint.every,
        may_end_early=config.stop.patience > 0,
        epoch=len(problem.train) / config.batch_size,
    )
    return Reporter(
        workdir,
        every=config.log.every,
        tensorboard=config.log.tensorboard,
        classes=problem.train.info.classes,
        advice=messages.quicker(config),
        progress=config.log.progress,
        rhythm=rhythm,
        began=began,
        tracking=Tracking(config, workdir) if config.log.trackers else None,
    )

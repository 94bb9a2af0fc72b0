"""What an evaluation means for the rest of a run: a lower learning rate, or its end."""

from jaxseg.config import ConfigDict
from jaxseg.state import TrainState
from jaxseg.tuning import Progress, after_evaluation, progress_of


def judged(config: ConfigDict, progress: Progress, mean_iou: float) -> Progress:
    """Returns the progress of a run after an evaluation that gave `mean_iou`, by `schedule.name=plateau`."""
    schedule = config.schedule
    return after_evaluation(
        progress,
        mean_iou,
        patience=schedule.patience if schedule.name == "plateau" else 0,
        factor=schedule.factor,
        end=schedule.end,
    )


def stops_early(config: ConfigDict, state: TrainState) -> bool:
    """Returns whether `stop.patience` has ended the run at this state, which is on the host."""
    return config.stop.patience > 0 and int(progress_of(state.opt_state).stale) >= config.stop.patience

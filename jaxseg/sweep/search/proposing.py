"""Which values the next trial has: drawn, or proposed by Optuna from the scores of the others."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.errors import ConfigError
from jaxseg.sweep.search.plan import Study
from jaxseg.sweep.search.spaces import Choice, Integer, Space, drawn, is_log, label, place_of
from jaxseg.sweep.search.trials import Trial

_FEW = 8  # trials, of which an analysis of variance says nothing


def proposed(study: Study, number: int, trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns the values of a trial: {} of number 0; drawn for a random search and the first `startup`; else of TPE.

    What TPE proposes follows from the seed, the number and the other trials, so that one process that is stopped and
    started again proposes what it would have proposed.

    Args:
        study: the search.
        number: of the trial, from 0.
        trials: all others that have been started.

    Raises:
        ConfigError: if Optuna is needed and not installed.
    """
    if number == 0:
        return {}
    if study.sampler == "random" or number < study.startup:
        return drawn(study.spaces, study.seed, number)
    with _optuna() as optuna:
        seed = int(np.random.SeedSequence([study.seed, number]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=study.startup, constant_liar=True)
        given = _study(optuna, study, trials, sampler).ask(_distributions(optuna, study.spaces)).params
        return {key: _value(space, given[key]) for key, space in study.spaces.items()}


def importances(study: Study, trials: Sequence[Trial]) -> dict[str, float] | None:
    """Returns the share of each key in the variance of the better trials by PED-ANOVA (Watanabe et al. 2023, Optuna).

    None if Optuna is not installed, or there are too few trials with a score.
    """
    try:
        with _optuna() as optuna:
            judged = [trial for trial in trials if trial.worth is not None]
            if len(judged) < _FEW:
                return None
            sampler = optuna.samplers.RandomSampler(seed=0)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(
                _study(optuna, study, judged, sampler), evaluator=evaluator, params=list(study.spaces)
            )
            return {key: float(found[key]) for key in study.spaces}
    except (ConfigError, ValueError, RuntimeError):  # the classes with which Optuna says that the trials are too few
        return None


def write_journal(study: Study, trials: Sequence[Trial], path: str) -> None:
    """Writes the trials as a journal of Optuna to a new file, for its dashboard and its other tools.

    Raises:
        ConfigError: if Optuna is not installed.
    """
    with _optuna() as optuna:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
        _study(optuna, study, trials, optuna.samplers.RandomSampler(seed=0), storage)


def require_sampler(study: Study) -> None:
    """Raises ConfigError if the sampler of the search is not installed."""
    if study.sampler == "tpe":
        with _optuna():
            pass


@contextlib.contextmanager
def _optuna() -> Iterator[Any]:
    """Imports Optuna, whose notes on what it does and on features that may change are not for the user of a search."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "The sampler tpe needs Optuna, which pip install -e '.[search]' installs; the sampler random does not."
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _study(optuna: Any, study: Study, trials: Sequence[Trial], sampler: Any, storage: Any = None) -> Any:
    """Returns Optuna's form of a search: its trials without those whose values lie outside of the spaces."""
    made = optuna.create_study(
        direction="maximize", sampler=sampler, storage=storage, study_name=f"search-{study.seed}"
    )
    states = optuna.trial.TrialState
    of_state = {
        "complete": states.COMPLETE,
        "diverged": states.COMPLETE,
        "pruned": states.PRUNED,
        "failed": states.FAIL,
        "unfinished": states.RUNNING,
    }
    distributions = _distributions(optuna, study.spaces)
    for trial in trials:
        values = {key: study.value(trial.values, key) for key in study.spaces}
        if any(place_of(space, values[key]) is None for key, space in study.spaces.items()):
            continue
        made.add_trial(
            optuna.trial.create_trial(
                state=of_state[trial.state],
                value=trial.worth,
                params={key: _parameter(space, values[key]) for key, space in study.spaces.items()},
                distributions=distributions,
                intermediate_values=dict(trial.curve),
                user_attrs={"trial": trial.number},
            )
        )
    return made


def _distributions(optuna: Any, spaces: Mapping[str, Space]) -> dict[str, Any]:
    of = optuna.distributions

    def distribution(space: Space) -> Any:
        if isinstance(space, Choice):
            return of.CategoricalDistribution([label(value) for value in space.values])
        kind = of.IntDistribution if isinstance(space, Integer) else of.FloatDistribution
        return kind(space.low, space.high, log=is_log(space))

    return {key: distribution(space) for key, space in spaces.items()}


def _parameter(space: Space, value: Any) -> Any:
    """Returns a value in Optuna's form: of a choice its text, for Optuna keeps no tuples."""
    return label(value) if isinstance(space, Choice) else value


def _value(space: Space, parameter: Any) -> Any:
    """Returns the value of Optuna's form."""
    if isinstance(space, Choice):
        return next(value for value in space.values if label(value) == parameter)
    return parameter

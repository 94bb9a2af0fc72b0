"""Scores a split with a trained run in batches, as training evaluates it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxseg import parallel
from jaxseg.config import ConfigDict
from jaxseg.data import make_eval_loader
from jaxseg.data.reading import Reading
from jaxseg.inference.folded import fold_run
from jaxseg.inference.score import Result, score
from jaxseg.run.load import Run
from jaxseg.run.preflight import ahead_of_evaluation
from jaxseg.step import Measure


def score_in_batches(
    run: Run,
    config: ConfigDict,
    source: Any,
    measures: Mapping[str, Measure],
    maps: bool,
    see: Callable[[dict[str, np.ndarray]], object],
    progress: Callable[[int], object],
) -> Result:
    """Scores a split with the network of a run, each image once and at its own size.

    Args:
        run, config, measures, maps: see `batch_scorer`.
        source: the split.
        see, progress: see `score.score`; `see` is called if `maps` holds.
    """
    return batch_scorer(run, config, measures, maps)(source, see, progress)


def batch_scorer(run: Run, config: ConfigDict, measures: Mapping[str, Measure], maps: bool) -> Callable[..., Result]:
    """Returns the function (split, see, progress) -> its scores by `score.score`, of one program for every split.

    Args:
        run: from `load_run`; its batch norms are folded into its convolutions.
        config: the configuration of the data.
        measures: further sums by name, each a function of (logits, labels).
        maps: whether `see` is called.
    """
    devices = jax.device_count()
    strategy = parallel.make_strategy("jit", {}, options=config.compile.options)
    model, state = fold_run(run)
    step = strategy.compile_eval(run.parts.eval_step(measures, maps=maps, model=model))
    eval_step = ahead_of_evaluation(step, config)
    # A batch that the devices of this machine can share; the padding examples do not count.
    batch_size = -(-config.eval.batch_size // devices) * devices
    state = strategy.put_state(state)

    def scorer(
        source: Any,
        see: Callable[[dict[str, np.ndarray]], object] = lambda maps: None,
        progress: Callable[[int], object] = lambda images: None,
    ) -> Result:
        loader = make_eval_loader(
            source,
            batch_size=batch_size,
            size=config.data.size,
            fit=config.data.fit,
            reading=Reading(timeout=config.data.timeout),
            multiple=config.eval.multiple,
        )
        return score(eval_step, state, loader, loss=run.parts.loss, strategy=strategy, progress=progress, see=see)

    return scorer

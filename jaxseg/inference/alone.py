"""What each run of an averaged prediction scores alone, and what averaging adds to it."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxseg import metrics
from jaxseg.data.base import Source
from jaxseg.data.reading import Reading
from jaxseg.inference.crf import RefinedPredictor
from jaxseg.inference.image_totals import ImageTotals, gain_of
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.score_images import score_images
from jaxseg.run.load import Run


class Alone(NamedTuple):
    """What one run scores in one view: the mean IoU in [0, 1], and the median seconds of an image (NaN of too few).

    `gain` has the ends of the paired interval of what averaging adds to this mean IoU."""

    workdir: str
    mean_iou: float
    seconds: float
    gain: tuple[float, float] | None = None


def score_alone(
    predictor: Predictor, run: Run, source: Source, averaged: metrics.ImageCounts | None, groups: Sequence[str] = ()
) -> tuple[Alone, ...]:
    """Returns the scores of each network of a predictor in one view, if it averages.

    `averaged` has the pixels of the average, and `groups` what the paired intervals draw, see `interval_of`.
    """
    if predictor.networks.single and not isinstance(predictor, RefinedPredictor):
        return ()
    found = []
    for name, single in predictor.alone():
        totals = ImageTotals(run.num_classes, run.parts.loss.multilabel)
        result, seconds = score_images(
            source,
            single.scores,
            run.parts.loss,
            reading=Reading(timeout=run.config.data.timeout),
            see=totals.add if averaged is not None else lambda maps: None,
        )
        gain = None if averaged is None else gain_of(averaged, totals.counts(source), groups)
        found.append(Alone(name, metrics.scores(result.confusion).mean_iou, seconds, gain))
    return tuple(found)

"""What is done with a trained network: load a run, score a split, segment an image of any size."""

from jaxseg.inference.corrupted import CorruptedScores, score_corrupted
from jaxseg.inference.crf import refine
from jaxseg.inference.crf_search import CRFSearch, search_crf
from jaxseg.inference.evaluation import Evaluation, evaluate
from jaxseg.inference.score import Result, score
from jaxseg.inference.segment import Segmentation, make_segmenter
from jaxseg.inference.trained import TrainedRun, load
from jaxseg.run.load import Run, load_run

__all__ = [
    "CRFSearch",
    "CorruptedScores",
    "Evaluation",
    "Result",
    "Run",
    "Segmentation",
    "TrainedRun",
    "evaluate",
    "load",
    "load_run",
    "make_segmenter",
    "refine",
    "score",
    "score_corrupted",
    "search_crf",
]

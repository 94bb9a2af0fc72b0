"""Metrics: sums on the device that add over pixels, examples, devices and batches, and numbers made of them once.

`confusion` has the integer matrix that IoU and its like come from, `calibration` the bins that tell whether
probabilities can be believed. Distances between boundaries need whole images on the host and files' libraries: see
`jaxseg.inference.surface`.
"""

from jaxseg.metrics.calibration import Calibration, calibration, calibration_dict, calibration_stats
from jaxseg.metrics.confusion import (
    Scores,
    confusion_matrix,
    num_confusion_classes,
    predict_classes,
    scores,
    scores_dict,
    table,
)

__all__ = [
    "Calibration",
    "Scores",
    "calibration",
    "calibration_dict",
    "calibration_stats",
    "confusion_matrix",
    "num_confusion_classes",
    "predict_classes",
    "scores",
    "scores_dict",
    "table",
]

"""Metrics: sums on the device that add over pixels, examples, devices and batches, and numbers computed from the total.

`confusion` has the integer matrix from which IoU and related metrics are computed, `calibration` the bins that show
whether probabilities match accuracies. Distances between boundaries need whole images on the host and further
libraries: see `jaxseg.inference.surface`.
"""

from jaxseg.metrics.calibration import Calibration, calibration, calibration_dict, calibration_stats
from jaxseg.metrics.confusion import (
    Scores,
    class_indices,
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
    "class_indices",
    "confusion_matrix",
    "num_confusion_classes",
    "predict_classes",
    "scores",
    "scores_dict",
    "table",
]

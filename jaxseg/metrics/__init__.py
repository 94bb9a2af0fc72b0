"""Metrics: sums on the device that add over pixels, examples, devices and batches, and numbers computed from the total.

`confusion` has the integer matrix from which IoU and related metrics are computed, `calibration` the bins that show
whether probabilities match accuracies, overall and by class. `temperature` scales logits so that they do. `uncertainty`
has maps of how much several predictions disagree, and `selective` shows whether these find the errors. `intervals` has
how far a score may lie from that of other images. Distances between boundaries and scores of objects need whole images
on the host and further libraries: see `jaxseg.inference.surface` and `jaxseg.inference.objects`.
"""

from jaxseg.metrics.calibration import (
    Calibration,
    calibration,
    calibration_dict,
    calibration_stats,
    class_calibration,
    class_calibration_stats,
)
from jaxseg.metrics.confusion import (
    MOST_PAIRS,
    Scores,
    class_indices,
    confusion_matrix,
    group_confusion,
    num_confusion_classes,
    predict_classes,
    scores,
    scores_dict,
    table,
)
from jaxseg.metrics.intervals import ImageCounts, Interval, bootstrap_interval, image_counts, paired_interval
from jaxseg.metrics.selective import Selective, selective, selective_dict, selective_stats
from jaxseg.metrics.sets import predict_and_count, predict_sets, set_calibration_stats, set_counts
from jaxseg.metrics.temperature import Temperature, fit_temperature, temperature_stats
from jaxseg.metrics.thresholds import Thresholds, best_thresholds, threshold_iou, threshold_stats
from jaxseg.metrics.uncertainty import Uncertainty, entropy, member_sums, uncertainty, uncertainty_of

__all__ = [
    "MOST_PAIRS",
    "Calibration",
    "ImageCounts",
    "Interval",
    "Scores",
    "Selective",
    "Temperature",
    "Thresholds",
    "Uncertainty",
    "best_thresholds",
    "bootstrap_interval",
    "calibration",
    "calibration_dict",
    "calibration_stats",
    "class_calibration",
    "class_calibration_stats",
    "class_indices",
    "confusion_matrix",
    "entropy",
    "fit_temperature",
    "group_confusion",
    "image_counts",
    "member_sums",
    "num_confusion_classes",
    "paired_interval",
    "predict_and_count",
    "predict_classes",
    "predict_sets",
    "scores",
    "scores_dict",
    "selective",
    "selective_dict",
    "selective_stats",
    "set_calibration_stats",
    "set_counts",
    "table",
    "temperature_stats",
    "threshold_iou",
    "threshold_stats",
    "uncertainty",
    "uncertainty_of",
]

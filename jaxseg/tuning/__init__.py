"""Which parameters train and decay, and at which share of the rate, by layer or after a plateau; frozen norms; LoRA."""

from jaxseg.tuning.kernels import decay_mask, matrices
from jaxseg.tuning.layers import layer_factors, layer_numbers
from jaxseg.tuning.lora import Lora, adapted_kernels, merged
from jaxseg.tuning.network import FrozenNorms, TunedNetwork
from jaxseg.tuning.progress import (
    Progress,
    after_evaluation,
    following_progress,
    progress_of,
    with_progress,
    with_rate_of_progress,
)
from jaxseg.tuning.selection import EVERYTHING, PROBE, Selection
from jaxseg.tuning.updates import only, scaled_by_layer

__all__ = [
    "EVERYTHING",
    "PROBE",
    "FrozenNorms",
    "Lora",
    "Progress",
    "Selection",
    "TunedNetwork",
    "adapted_kernels",
    "after_evaluation",
    "decay_mask",
    "following_progress",
    "layer_factors",
    "layer_numbers",
    "matrices",
    "merged",
    "only",
    "progress_of",
    "scaled_by_layer",
    "with_progress",
    "with_rate_of_progress",
]

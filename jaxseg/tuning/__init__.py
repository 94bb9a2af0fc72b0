"""Fine-tuning with little: which parameters train, at which share of the rate, frozen norms, and LoRA."""

from jaxseg.tuning.layers import layer_factors, layer_numbers
from jaxseg.tuning.lora import Lora, adapted_kernels, merged
from jaxseg.tuning.network import FrozenNorms, TunedNetwork
from jaxseg.tuning.selection import EVERYTHING, PROBE, Selection
from jaxseg.tuning.updates import only, scaled_by_layer

__all__ = [
    "EVERYTHING",
    "PROBE",
    "FrozenNorms",
    "Lora",
    "Selection",
    "TunedNetwork",
    "adapted_kernels",
    "layer_factors",
    "layer_numbers",
    "merged",
    "only",
    "scaled_by_layer",
]

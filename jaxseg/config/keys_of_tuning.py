"""The keys of fine-tuning by adapters, of distillation, of pruning, and of training with few bits."""

from typing import Literal, TypeAlias

from jaxseg.arguments import BelowOne, Count, NotNegative, Positive, WholeNotNegative
from jaxseg.config.key import Key

Bits: TypeAlias = Literal[0, 2, 3, 4, 5, 6, 7, 8]

TUNING: dict[str, Key] = {
    "lora.rank": Key(
        0,
        "rank of low-rank adapters (LoRA), which train in place of the kernels of 1x1 convolutions and dense layers; "
        "0: none",
        WholeNotNegative,
    ),
    "lora.alpha": Key(16.0, "an adapter counts alpha / rank times", Positive),
    "lora.targets": Key(
        (), "regular expressions of the kernels that get an adapter; empty: all that can", tuple[str, ...]
    ),
    "distill.teacher": Key("", "workdir of a run that teaches this one; empty: none"),
    "distill.kind": Key(
        "pixel",
        "what is compared: pixel (class probabilities), channel (each class over the pixels) or feature (of a stage)",
        Literal["pixel", "channel", "feature"],
    ),
    "distill.weight": Key(1.0, "weight of the teacher's term in the loss", NotNegative),
    "distill.temperature": Key(1.0, "the logits are divided by this (pixel, channel)", Positive),
    "distill.stage": Key("", "feature: the student's stage, such as encoder/stage2"),
    "distill.teacher_stage": Key("", "feature: the teacher's stage; empty: distill.stage"),
    "distill.channels": Key(0, "feature: channels of the teacher's stage; 0: read from the teacher", WholeNotNegative),
    "prune.sparsity": Key(
        0.0,
        "share of the weights that are set to 0 in the course of the training, those of the smallest magnitude "
        "(Zhu and Gupta 2017); 0: none",
        BelowOne,
    ),
    "prune.initial": Key(0.0, "the share at prune.begin; that of a pruned run keeps its zeros", BelowOne),
    "prune.begin": Key(0, "the first pruning step, counted from 0", WholeNotNegative),
    "prune.end": Key(
        0, "the last pruning step, which reaches prune.sparsity; 0: after half of the steps", WholeNotNegative
    ),
    "prune.every": Key(10, "steps between pruning steps", Count),
    "prune.scope": Key(
        "layer",
        "what has the share of zeros: each kernel (layer), or all of them together (global)",
        Literal["layer", "global"],
    ),
    "prune.keep": Key(
        ("probe",),
        "regular expressions of kernels that are not pruned; probe: those of the classifier",
        tuple[str, ...],
    ),
    "quantise.weights": Key(
        0,
        "bits of the kernels of convolutions and dense layers, which training sees rounded, 2 to 8; 0: float32",
        Bits,
    ),
    "quantise.activations": Key(0, "bits of what these layers read, 2 to 8; 0: float32", Bits),
    "quantise.skip": Key((), "regular expressions of the layers that stay in float32", tuple[str, ...]),
}

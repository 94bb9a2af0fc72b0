"""The keys of fine-tuning by adapters."""

from jaxseg.arguments import Positive, WholeNotNegative
from jaxseg.config.key import Key

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
}

"""Which parameters train: by patterns of their paths, such as "decoder" or the classifier alone (a linear probe)."""

import dataclasses
import re
from collections.abc import Iterable

from jaxseg.errors import ArgumentError, counted
from jaxseg.types import DISTILLATION, ENCODER, LORA

PROBE = "probe"
"""The name of the classifier's layers among patterns: a linear probe trains these alone."""

# The layers that give logits, the auxiliary ones too: "head/kernel", "aux/head/bias", "head/branch0/score/kernel",
# "boundary/kernel" of PIDNet, "detail/kernel" of STDC-Seg, and "head/scale" beside the bias of Segmenter's scores.
_LAYER = r"([^/]*(head|classifier|logits|score|presence)[^/]*|aux\d*|boundary|detail)/(kernel|embedding|bias|log_scale)"
_CLASSIFIER = rf"(^|/)({_LAYER}|head/scale)$"
_ALWAYS = (LORA, DISTILLATION)  # children beside the network's that exist to be trained


@dataclasses.dataclass(frozen=True)
class Selection:
    """The parameters that train.

    Attributes:
        patterns: regular expressions, found anywhere in the path of a parameter ("encoder/stage1/block1/conv1/kernel"),
            or "probe", the layers of the classifier. Empty: all parameters train.
        encoder: whether the encoder may train.

    Raises:
        ArgumentError: for a pattern that is not a regular expression.
    """

    patterns: tuple[str, ...] = ()
    encoder: bool = True

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ArgumentError(f"train_only must be regular expressions, got {pattern!r}: {error}.") from error

    @property
    def everything(self) -> bool:
        """Whether all parameters train."""
        return self.encoder and not self.patterns

    def trains(self, path: str) -> bool:
        """Whether the parameter at a path such as "encoder/stem/conv/kernel" trains."""
        if path.split("/")[0] in _ALWAYS:
            return True
        if not self.encoder and path.startswith(f"{ENCODER}/"):
            return False
        return not self.patterns or any(re.search(_regular(pattern), path) for pattern in self.patterns)

    def require_found(self, paths: Iterable[str]) -> None:
        """Raises ArgumentError for a pattern that is found in none of the paths of the parameters."""
        paths = list(paths)
        for pattern in self.patterns:
            if not any(re.search(_regular(pattern), path) for path in paths):
                children = sorted({path.split("/")[0] for path in paths})
                raise ArgumentError(
                    f"train_only={pattern} is found in no path of the {counted(len(paths), 'parameter')} of this "
                    f"network, whose parts are {', '.join(children)}."
                )


def _regular(pattern: str) -> str:
    return _CLASSIFIER if pattern == PROBE else pattern


EVERYTHING = Selection()
"""All parameters train."""

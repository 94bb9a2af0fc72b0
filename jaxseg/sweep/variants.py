"""What `sweep()` of an ablation file returns: the variants, what each is compared with, and the seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from jaxseg.arguments import Where, check_value
from jaxseg.errors import ArgumentError, nearest
from jaxseg.sweep.outputs import RESERVED

Seeds = Annotated[tuple[int, ...], Where(lambda v: len(set(v)) == len(v) > 0, instead="whole numbers, each given once")]
_VariantName = Annotated[
    str, Where(lambda v: bool(re.fullmatch(r"\w[\w.+-]*", v)), instead="of letters, digits and any of _.+-")
]
_Baseline = Annotated[
    str | Mapping[str, str],
    Where(lambda v: len(v) > 0, instead="the name of a variant, or {variant: name of its baseline}"),
]


@dataclass(frozen=True)
class Sweep:
    """What `sweep()` of an ablation file returns.

    Attributes:
        variants: {name: changed keys}, in the order of the table. The keys are spelled as for `jaxseg.config.update`:
            {"plain": {"model__args__shortcut": "none"}}. The name is also that of a folder.
        baseline: the variant that all others are compared with; or {variant: baseline} for several baselines:
            {"group-2": "batch-2", "group-8": "batch-8"}.
        seeds: values of the key `seed`; each variant is trained once with each.
        starts: {variant: another, listed before it}: the first starts from the weights that the second has learned
            with the same seed, those of its last checkpoint, in place of `model.weights` and `model.encoder_weights`.

    Raises:
        ArgumentError: if a name cannot be a folder, a baseline is not a variant or is compared with itself, the
            seeds are not whole numbers, each given once, or a variant starts from one that is not listed before it.
    """

    variants: Mapping[str, Mapping[str, Any]]
    baseline: str | Mapping[str, str]
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    starts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, changes in check_value("variants", self.variants, Mapping[str, Mapping[str, Any]]).items():
            check_value("The name of a variant", name, _VariantName)
            if name in RESERVED:
                raise ArgumentError(f"A variant cannot have the name {name!r}: the sweep writes another file there.")
            if "seed" in changes:
                raise ArgumentError(f"The variant {name!r} sets the seed; the sweep's seeds are for that.")
        baseline = check_value("baseline", self.baseline, _Baseline)
        pairs = baseline.items() if isinstance(baseline, Mapping) else [(None, baseline)]
        for name, other in pairs:
            if name == other:
                raise ArgumentError(f"The variant {name!r} is compared with itself.")
            if name is not None and name not in self.variants:
                raise ArgumentError(f"There is no variant {name!r} to compare.{nearest(str(name), self.variants)}")
            if other not in self.variants:
                raise ArgumentError(f"The baseline {other!r} is no variant.{nearest(str(other), self.variants)}")
        check_seeds(self.seeds)
        self._check_starts()

    def _check_starts(self) -> None:
        names = list(self.variants)
        for name, other in check_value("starts", self.starts, Mapping[str, str]).items():
            for each in (name, other):
                if each not in names:
                    raise ArgumentError(f"starts: there is no variant {each!r}.{nearest(each, names)}")
            if names.index(other) >= names.index(name):
                raise ArgumentError(f"The variant {name!r} starts from {other!r}, which must be listed before it.")
            for key in ("weights", "weights_checkpoint", "encoder_weights"):
                if f"model__{key}" in self.variants[name]:
                    raise ArgumentError(f"The variant {name!r} starts from {other!r}, so it cannot set model.{key}.")


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Returns the seeds, a `range` too, as a tuple; raises ArgumentError unless they are `Seeds`."""
    return check_value("seeds", tuple(seeds) if isinstance(seeds, Sequence) else seeds, Seeds)

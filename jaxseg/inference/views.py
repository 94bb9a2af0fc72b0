"""Which views of an image the probabilities are averaged over: mirrored images, and images at several scales."""

import math
from dataclasses import dataclass
from typing import TypeAlias

from jaxseg.errors import ArgumentError, counted, nearest

Flip: TypeAlias = tuple[bool, bool]  # whether rows are in reverse order (upside down), and columns (left to right)

_FLIPS: dict[str, tuple[Flip, ...]] = {
    "h": ((False, False), (False, True)),
    "v": ((False, False), (True, False)),
    "hv": ((False, False), (False, True), (True, False), (True, True)),
}
_LARGEST = 8.0  # scale


@dataclass(frozen=True)
class Views:
    """The views of an image: each flip at each scale.

    Attributes:
        scales: factors of the image's sides; 1 is the size at which the network sees an image without averaging.
        flips: (upside down, left to right) of each mirrored view; (False, False) is the image itself.
    """

    scales: tuple[float, ...] = (1.0,)
    flips: tuple[Flip, ...] = ((False, False),)

    def __len__(self) -> int:
        return len(self.scales) * len(self.flips)

    def __str__(self) -> str:
        scales = "" if self.scales == (1.0,) else "scales:" + "-".join(f"{scale:g}" for scale in self.scales)
        flips = next((name for name, flips in _FLIPS.items() if flips == self.flips), "")
        return ",".join(part for part in (flips and "flips:" + flips, scales) if part) or "one view"


ONE_VIEW = Views()


def parse_views(text: str) -> Views:
    """Returns the views that a text names, its parts separated by commas.

    Args:
        text: `flips` or `flips:h` (the image and its mirror image), `flips:v` (upside down), `flips:hv` (all four, for
            images without an upright side such as aerial or microscope images), `scales:.75-1-1.25`; "": the image
            alone.

    Raises:
        ArgumentError: for any other text.
    """
    scales, flips = ONE_VIEW.scales, ONE_VIEW.flips
    seen: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition(":")
        if name in seen:
            raise ArgumentError(f"average: {name} is given twice in {text!r}.")
        seen.add(name)
        if name == "flips":
            flips = _flips(value or "h")
        elif name == "scales":
            scales = _scales(value)
        else:
            raise ArgumentError(
                f"average: {part!r} is no way to view an image; flips, flips:h, flips:v, flips:hv and "
                f"scales:.75-1-1.25 are, separated by commas.{nearest(name, ('flips', 'scales'), listing=False)}"
            )
    return Views(scales, flips)


def _flips(value: str) -> tuple[Flip, ...]:
    if value not in _FLIPS:
        raise ArgumentError(f"average: flips:{value} must be one of {', '.join(f'flips:{name}' for name in _FLIPS)}.")
    return _FLIPS[value]


def _scales(value: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in value.split("-"))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= _LARGEST and math.isfinite(scale) for scale in scales):
        raise ArgumentError(
            f"average: scales must be factors above 0 and at most {_LARGEST:g} with - between them, such as "
            f"scales:.75-1-1.25, got scales:{value}."
        )
    if len(set(scales)) < len(scales):
        raise ArgumentError(f"average: {counted(len(scales), 'scale')} of scales:{value} must differ.")
    return scales

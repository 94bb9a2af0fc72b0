"""Finds the one rule by which the names of masks differ from those of their images, as a.jpg and a_mask.png."""

from collections.abc import Iterable
from typing import NamedTuple

_TRIED = 3  # images whose possible masks suggest rules
_KEPT = 5  # rules of each


class Renaming(NamedTuple):
    """How the name of a mask follows from that of its image: a part at its start or its end is replaced.

    Attributes:
        image, mask: the part of an image's name, and the part of its mask's name in its place; either may be "".
        at_start: whether they are at the start; else at the end.
    """

    image: str
    mask: str
    at_start: bool

    def __call__(self, name: str) -> str | None:
        """Returns the name of the mask of an image; None for a name without the part."""
        folder, slash, stem = name.rpartition("/")
        if self.at_start:
            stem = self.mask + stem.removeprefix(self.image) if stem.startswith(self.image) else ""
        else:
            stem = stem.removesuffix(self.image) + self.mask if stem.endswith(self.image) else ""
        return f"{folder}{slash}{stem}" if stem else None

    def __str__(self) -> str:
        where = "begin" if self.at_start else "end"
        said = [
            f"the names of the {what} {where} with {part!r}"
            for what, part in (("images", self.image), ("masks", self.mask))
            if part
        ]
        return " and ".join(said)


def find_renaming(images: Iterable[str], masks: Iterable[str]) -> tuple[Renaming, dict[str, str]] | None:
    """Returns the rule that gives most of the images a mask, and {image: mask}; None if there is no such rule.

    A rule must give at least two images and half of them a mask. Digits that a rule replaces may be those that tell one
    image from another, as in 001 and 101, so no rule does more with digits alone than to lead all of them with zeros.

    Args:
        images: names without suffix of the images without a mask.
        masks: those of the masks without an image.
    """
    images, masks = list(images), set(masks)
    rules = {rule for name in images[:_TRIED] for rule in _rules(name, masks)}
    best: tuple[Renaming, dict[str, str]] | None = None
    for rule in sorted(rules):
        found = {name: mask for name in images if (mask := rule(name)) in masks}
        if (rule.image + rule.mask).isdigit():
            zeros = rule.at_start and not (rule.image + rule.mask).strip("0")
            enough = zeros and len(found) == len(images) == len(masks)
        else:
            enough = 2 * len(found) >= len(images)
        if len(found) > 1 and enough and (best is None or len(found) > len(best[1])):
            best = rule, found
    return best


def _rules(name: str, masks: Iterable[str]) -> list[Renaming]:
    """Returns the rules that lead from a name to one of the masks in its folder, those that keep most of it first."""
    folder, _, stem = name.rpartition("/")
    rules: dict[Renaming, int] = {}
    for mask in masks:
        place, _, other = mask.rpartition("/")
        if place != folder:
            continue
        start, end = _common(stem, other), _common(stem[::-1], other[::-1])
        if start:
            rules[Renaming(stem[start:], other[start:], False)] = start
        if end:
            rules[Renaming(stem[: len(stem) - end], other[: len(other) - end], True)] = end
    return sorted(rules, key=lambda rule: (-rules[rule], rule))[:_KEPT]


def _common(a: str, b: str) -> int:
    """Returns how many characters two texts share at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

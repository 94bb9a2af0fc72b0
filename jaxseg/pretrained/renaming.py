"""Renames the arrays of a file to our paths: finds the list of rules that knows its names, and the encoder inside."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxseg.errors import WeightsError, some
from jaxseg.pretrained.rules import Rule, convert, finder

# Prefixes under which foreign networks keep their encoder.
_ENCODER_PREFIXES = ("encoder.", "backbone.")
# Names that training wrappers, such as a LightningModule, give the network inside them.
_WRAPPERS = ("model.", "net.", "network.", "module.", "backbone.")
_MOST_WRAPPERS = 4  # inside one another


def is_ours(names: Iterable[str]) -> bool:
    """Returns whether the names are paths of our own ("params/...", "batch_stats/...")."""
    return all(name.startswith(("params/", "batch_stats/")) for name in names)


def rename(arrays: Mapping[str, np.ndarray], lists: Sequence[Sequence[Rule]]) -> dict[str, np.ndarray]:
    """Returns the arrays under our paths, by the list of rules that knows most of their names.

    Args:
        arrays: {foreign name: array}. Arrays under our paths are returned as they are.
        lists: one list of rules for each format that the file may have.

    Raises:
        WeightsError: if `lists` is empty, the best list does not know a name, or two names lead to one path.
    """
    if is_ours(arrays):
        return dict(arrays)
    if not lists:
        raise WeightsError(
            f"no rules are known that rename its entries ({', '.join(list(arrays)[:3])}, ...); rename them to our "
            "paths (params/...) first."
        )
    best = min(lists, key=lambda rules: len(unknown_names(arrays, rules)))
    try:
        return convert(arrays, best)
    except ValueError as error:
        raise WeightsError(str(error)) from error


def unknown_names(names: Iterable[str], rules: Sequence[Rule]) -> list[str]:
    """Returns the names that no rule matches."""
    find = finder(rules)
    return [name for name in names if find(name) is None]


def found_in(patterns: Iterable[str], name: str) -> bool:
    """Returns whether one of the regular expressions is found anywhere in the name."""
    return any(re.search(pattern, name) for pattern in patterns)


def drop_skipped(
    arrays: Mapping[str, np.ndarray], lists: Sequence[Sequence[Rule]], skip: Sequence[str], notes: list[str]
) -> dict[str, np.ndarray]:
    """Returns the arrays without those that `skip` names and no rule knows.

    Args:
        arrays: {name in the file: array}.
        lists: one list of rules for each format that the file may have. A name that one of them knows stays, because
            `skip` then applies to our path of it.
        skip: regular expressions, found anywhere in a name.
        notes: receives a note of what is left out.
    """
    if not skip:
        return dict(arrays)
    find = finder(rule for rules in lists for rule in rules)

    def known(name: str) -> bool:
        inside = [name, *(name.removeprefix(prefix) for prefix in _ENCODER_PREFIXES)]
        return is_ours([name]) or any(find(n) is not None for n in inside)

    dropped = [name for name in arrays if found_in(skip, name) and not known(name)]
    if dropped:
        notes.append(f"left out as asked: {some(dropped)}")
    return {name: x for name, x in arrays.items() if name not in dropped}


def unwrapped(
    arrays: Mapping[str, np.ndarray], lists: Sequence[Sequence[Rule]], notes: list[str], *, encoder: bool
) -> dict[str, np.ndarray]:
    """Returns the arrays without a prefix that a training wrapper put before their names, if more are known then.

    The prefix is one that wrappers use, or the first part of most names; up to `_MOST_WRAPPERS` are taken off.

    Args:
        arrays: {name in the file: array}.
        lists: one list of rules for each format that the file may have.
        notes: receives a note for each prefix.
        encoder: whether the rules are relative to the encoder of a network that may be in the file.
    """
    best: dict[str, np.ndarray] = dict(arrays)
    off: tuple[str, ...] = ()
    unknown = _fewest_unknown(best, lists, encoder)
    stripped: list[tuple[dict[str, np.ndarray], tuple[str, ...]]] = [(best, off)]
    for _ in range(_MOST_WRAPPERS):
        if not unknown:
            break
        # A prefix may help only with those that follow it, as model. of the names model.network.conv1.weight.
        stripped = [(inside, (*before, note)) for outer, before in stripped for inside, note in _without_prefix(outer)]
        for inside, before in stripped:
            found = _fewest_unknown(inside, lists, encoder)
            if found < unknown:
                best, off, unknown = inside, before, found
    notes += off
    return best


def _without_prefix(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[dict[str, np.ndarray], str]]:
    """Yields the arrays without each prefix that wrappers use, or that most of them share, and a note about it."""
    shared, count = Counter(name.partition(".")[0] for name in arrays).most_common(1)[0]
    for prefix in dict.fromkeys((*_WRAPPERS, *((f"{shared}.",) if 2 * count > len(arrays) else ()))):
        inside = {name.removeprefix(prefix): x for name, x in arrays.items()}
        if len(inside) == len(arrays) and inside.keys() != arrays.keys():
            every = all(name.startswith(prefix) for name in arrays)
            yield inside, f"took the prefix {prefix!r} off {'every name' if every else 'the names'}"


def _fewest_unknown(names: Iterable[str], lists: Sequence[Sequence[Rule]], encoder: bool) -> int:
    """Returns how many names the best list does not know; of an encoder, also counted inside each place for it."""
    names = list(names)
    places = [names]
    if encoder:
        inside = ([n.removeprefix(p) for n in names if n.startswith(p)] for p in _ENCODER_PREFIXES)
        places += [part for part in inside if part]
    ours = bool(names) and is_ours(names)
    return 0 if ours or not lists else min(len(unknown_names(part, rules)) for part in places for rules in lists)


def rename_encoder(
    arrays: Mapping[str, np.ndarray], lists: Sequence[Sequence[Rule]], notes: list[str]
) -> dict[str, np.ndarray]:
    """Returns the encoder's arrays as "params/encoder/...", from a file of the encoder or of a whole network.

    Args:
        arrays: {foreign name or our path: array}.
        lists: one list of rules, relative to the encoder, for each format that the file may have.
        notes: receives a note of where the encoder was found.

    Raises:
        WeightsError: as `rename`.
    """
    if is_ours(arrays):
        inside = {name: x for name, x in arrays.items() if name.split("/")[1] == "encoder"}
        if inside:
            notes.append("took the encoder out of the network")
            return inside
        return _under_encoder(arrays)
    for prefix in _ENCODER_PREFIXES:
        inside = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
        if inside and any(not unknown_names(inside, rules) for rules in lists):
            notes.append(f"took the encoder under {prefix!r}")
            return _under_encoder(rename(inside, lists))
    return _under_encoder(rename(arrays, lists))


def _under_encoder(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.replace("/", "/encoder/", 1): x for name, x in arrays.items()}

"""Rules backwards: from our arrays to the `state_dict` of a peer's network.

There is no second table of names. A name is made from the regular expression of a rule, with what our path says in
place of its groups, and it counts if the rules lead from it to that path. Where the expression allows several names,
the one is taken that `names` allows, and whose module is no container of others; of those the first. An array is laid
out by asking the function of the rule where it puts each number.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.errors import WeightsError, counted, some
from jaxseg.pretrained.rules import Find, Rule, Transform, finder

_COUNTER = "num_batches_tracked"  # torch's batch norm counts the batches that it has seen beside its statistics
_STATISTIC = "running_mean"


class Entry(NamedTuple):
    """An entry of the peer's `state_dict`.

    Attributes:
        name: its name there.
        shape: its shape there.
        paths: our paths that it holds; none for a counter of batches.
        transform: the function of its rule, from its array to ours.
    """

    name: str
    shape: tuple[int, ...]
    paths: tuple[str, ...]
    transform: Transform | None


def entries(shapes: Mapping[str, Sequence[int]], rules: Iterable[Rule], names: str = ".*") -> list[Entry]:
    """Returns the entries that the rules lead to our arrays, in the order of our paths.

    Args:
        shapes: {our path: shape}.
        rules: of the peer's format, for all of the network.
        names: regular expression of the whole names that the peer's network has, where the rules know more.

    Raises:
        WeightsError: if an array of ours has no place in the peer's network; lists them.
    """
    ordered = list(rules)
    find, allowed = functools.cache(finder(ordered)), re.compile(names)
    by_path = _candidates(shapes, ordered, find, allowed)
    lost = [path for path in shapes if path not in by_path]
    if lost:
        raise WeightsError(f"{counted(len(lost), 'array')} have no place there: {some(lost, 8)}.")
    fixed = {found[0][0] for found in by_path.values() if len(found) == 1}
    containers = {module for name in fixed for module in _containers(name)}
    chosen: dict[str, Entry] = {}
    for path in shapes:
        free = [pair for pair in by_path[path] if pair[0].rpartition(".")[0] not in containers]
        name, rule = (free or by_path[path])[0]
        if name not in chosen:
            paths = _paths(name, find)
            shape = _shape_there(rule.transform, [tuple(shapes[p]) for p in paths], isinstance(rule.path, str))
            if shape is None:
                raise WeightsError(f"the rule of {path} does not say how its array lies in {name}.")
            chosen[name] = Entry(name, shape, paths, rule.transform)
    return list(_with_counters(chosen.values(), find))


def invert(arrays: Mapping[str, np.ndarray], rules: Iterable[Rule], names: str = ".*") -> dict[str, np.ndarray]:
    """Returns the peer's `state_dict`, {name: array}, of our arrays {path: array}; see `entries`.

    Raises:
        WeightsError: as `entries`.
    """
    made = entries({path: x.shape for path, x in arrays.items()}, rules, names)
    return {entry.name: laid_out(entry, [np.asarray(arrays[path]) for path in entry.paths]) for entry in made}


def laid_out(entry: Entry, ours: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the peer's array of an entry from ours, which lie at its paths."""
    if entry.transform is None:
        return np.zeros(entry.shape, np.int64)
    size = int(np.prod(entry.shape))
    places = entry.transform(np.arange(size).reshape(entry.shape))
    each = [places] if isinstance(places, np.ndarray) else list(places)
    result = np.empty(size, ours[0].dtype)
    for place, x in zip(each, ours, strict=True):
        result[np.asarray(place).reshape(-1)] = x.reshape(-1)
    return result.reshape(entry.shape)


def _with_counters(made: Iterable[Entry], find: Find) -> Iterator[Entry]:
    """Yields the entries, and after each running mean the counter of batches, if the peer has one that is left out."""
    for entry in made:
        yield entry
        module, _, last = entry.name.rpartition(".")
        if last == _STATISTIC and find(f"{module}.{_COUNTER}") is not None:
            yield Entry(f"{module}.{_COUNTER}", (), (), None)


def _containers(name: str) -> Iterator[str]:
    """Yields the modules that hold the module of an entry."""
    parts = name.split(".")[:-1]
    return (".".join(parts[:i]) for i in range(1, len(parts)))


def _candidates(
    shapes: Mapping[str, Any], rules: Sequence[Rule], find: Find, allowed: re.Pattern[str]
) -> dict[str, list[tuple[str, Rule]]]:
    """Returns {our path: [(name, rule)]} of the names that lead to each path, in the order of the rules."""
    result: dict[str, list[tuple[str, Rule]]] = {}
    wanted = shapes.keys()
    templates = [(rule, _matcher(template)) for rule in rules for template in _templates(rule)]
    pairs = [
        (path, rule, groups)
        for rule, matcher in templates
        for path in ((matcher,) if isinstance(matcher, str) else wanted)
        if path in wanted and (groups := _groups(matcher, path)) is not None
    ]
    for path, rule, groups in pairs:
        for name in _names(rule.pattern, groups):
            found = find(name) if allowed.fullmatch(name) else None
            if found is None or found[1] is not rule:
                continue
            there = _paths(name, find)
            if path in there and all(p in wanted for p in there):
                result.setdefault(path, []).append((name, rule))
    return result


def _templates(rule: Rule) -> tuple[str, ...]:
    if rule.path is None:
        return ()
    return (rule.path,) if isinstance(rule.path, str) else rule.path


def _paths(name: str, find: Find) -> tuple[str, ...]:
    """Returns our paths to which the rules lead from a name that they know."""
    found = find(name)
    assert found is not None
    match, rule = found
    return tuple(t.format(match.group(0), *match.groups(), **match.groupdict()) for t in _templates(rule))


@functools.cache
def _matcher(template: str) -> str | re.Pattern[str]:
    """Returns what matches the paths of a template; the path itself if it has no groups."""
    parts = re.split(r"\{(\w+)\}", template)
    if len(parts) == 1:
        return template
    seen: set[str] = set()
    text = re.escape(parts[0])
    for group, literal in zip(parts[1::2], parts[2::2]):
        text += f"(?P=g{group})" if group in seen else rf"(?P<g{group}>\w+?)"
        text += re.escape(literal)
        seen.add(group)
    return re.compile(text)


def _groups(matcher: str | re.Pattern[str], path: str) -> dict[str, str] | None:
    if isinstance(matcher, str):
        return {}
    match = matcher.fullmatch(path)
    return None if match is None else {name[1:]: value for name, value in match.groupdict().items()}


def _names(pattern: str, groups: Mapping[str, str]) -> list[str]:
    """Returns the names that a regular expression matches, with these values of its groups.

    It knows what rules are written with: text, `\\.`, groups, alternatives, `?` and sets of characters.
    """
    names, rest, _ = _alternatives(pattern, groups, 0)
    assert not rest, f"a rule that cannot be read backwards: {pattern}"
    return names


def _alternatives(text: str, groups: Mapping[str, str], count: int) -> tuple[list[str], str, int]:
    """Returns the names of alternatives up to a `)` or the end, the text after them, and the groups counted so far."""
    every: list[str] = []
    while True:
        names, text, count = _sequence(text, groups, count)
        every += names
        if not text.startswith("|"):
            return every, text, count
        text = text[1:]


def _sequence(text: str, groups: Mapping[str, str], count: int) -> tuple[list[str], str, int]:
    names = [""]
    while text and text[0] not in "|)":
        if text[0] == "(":
            opening = re.match(r"\((\?:|\?P<(\w+)>|)", text)
            assert opening is not None
            captured = None
            if opening[1] != "?:":
                count += 1
                known = opening[2] if opening[2] in groups else str(count)
                captured = groups[known] if known in groups else None
            inner, text, count = _alternatives(text[opening.end() :], groups, count)
            inner, text = ([captured] if captured is not None else inner), text[1:]
        elif text[0] == "[":
            inner, text = list(text[1 : text.index("]")]), text[text.index("]") + 1 :]
        elif text[0] == "\\":
            inner, text = [text[1]], text[2:]
        else:
            inner, text = [text[0]], text[1:]
        if text[:1] == "?":
            inner, text = ["", *inner], text[1:]
        text = text.lstrip("+*")  # of what a group holds, whose value is known
        names = [before + after for before, after in itertools.product(names, inner)]
    return names, text, count


@functools.lru_cache(maxsize=4096)
def _cached_shape(transform: Transform, shape: tuple[int, ...], count: int, single: bool) -> tuple[int, ...] | None:
    for there in _shapes(shape, count):
        try:
            made = transform(np.broadcast_to(np.int8(0), there))
        except (ValueError, IndexError):
            continue
        each = [made] if single else list(made)
        if [np.shape(x) for x in each] == [shape] * count:
            return there
    return None


def _shape_there(transform: Transform, shapes: Sequence[tuple[int, ...]], single: bool) -> tuple[int, ...] | None:
    """Returns the shape of the peer's array that the function turns into arrays of these shapes, or None."""
    if len(set(shapes)) != 1:
        return None
    return _cached_shape(transform, tuple(map(int, shapes[0])), len(shapes), single)


def _shapes(shape: tuple[int, ...], count: int) -> Iterator[tuple[int, ...]]:
    """Yields the shapes that an array may have had: its axes in any order, without or with axes of 1, or joined."""
    ones, others = [n for n in shape if n == 1], [n for n in shape if n != 1]
    for lengths in (list(shape), *([*others, *ones[:n]] for n in range(len(ones))), [*shape, 1, 1]):
        for order in dict.fromkeys(itertools.permutations(lengths)):
            if count == 1:
                yield order
            for axis in range(len(order)) if count > 1 else ():
                yield (*order[:axis], order[axis] * count, *order[axis + 1 :])

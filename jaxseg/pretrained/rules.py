"""Rules that rename the entries of a foreign `state_dict` and lay their arrays out as ours.

A rule is a regular expression for the whole foreign name, the path of our array ("params/encoder/stem/conv/kernel", in
which {1}, {2} or {name} stand for groups of the match) and a function of the array. `convert` applies a list of rules
and requires one for each foreign name; `jaxseg.pretrained.merging.merge` requires an array for each of our paths.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.errors import counted, some

Transform = Callable[[np.ndarray], Any]


def unchanged(x: np.ndarray) -> np.ndarray:
    """The array as it is."""
    return x


def conv(x: np.ndarray) -> np.ndarray:
    """Convolution weight f[o,c,u,v] -> kernel f[u,v,c,o]."""
    return np.transpose(x, (2, 3, 1, 0))


def conv_transpose(x: np.ndarray) -> np.ndarray:
    """Transposed convolution weight f[c,o,u,v] -> kernel f[u,v,c,o] of `jaxseg.nn.ConvTranspose`."""
    return np.transpose(x, (2, 3, 0, 1))


def dense(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c] -> kernel f[c,o]."""
    return np.transpose(x)


def pointwise(x: np.ndarray) -> np.ndarray:
    """Linear weight f[o,c] -> kernel f[1,1,c,o] of a 1x1 convolution."""
    return dense(x)[None, None]


class Rule(NamedTuple):
    """Our path for one kind of foreign entry.

    Attributes:
        pattern: regular expression that the whole name must match.
        path: our path, a template over the groups of the match ("{1}" or "{name}"). A tuple of them if `transform`
            returns as many arrays (of a fused query-key-value weight). None if the entry has no counterpart here: it
            is left out.
        transform: foreign array -> our array, or arrays.
    """

    pattern: str
    path: str | tuple[str, ...] | None
    transform: Transform = unchanged


def layer(pattern: str, path: str, weight: Transform = conv) -> list[Rule]:
    """Rules for `pattern`.weight and .bias of a convolution or linear layer -> params/`path`/kernel and bias."""
    return [
        Rule(rf"{pattern}\.weight", f"params/{path}/kernel", weight),
        Rule(rf"{pattern}\.bias", f"params/{path}/bias"),
    ]


def norm(pattern: str, path: str) -> list[Rule]:
    """Rules for a norm at `pattern`: scale and bias, and running statistics if it has them."""
    return [
        Rule(rf"{pattern}\.weight", f"params/{path}/scale"),
        Rule(rf"{pattern}\.bias", f"params/{path}/bias"),
        Rule(rf"{pattern}\.running_mean", f"batch_stats/{path}/mean"),
        Rule(rf"{pattern}\.running_var", f"batch_stats/{path}/var"),
        Rule(rf"{pattern}\.num_batches_tracked", None),
    ]


def conv_norm(conv_: str, norm_: str, path: str, weight: Transform = conv) -> list[Rule]:
    """Rules for a convolution and its norm, at these two patterns -> a `ConvNormAct` at `path`."""
    return [*layer(conv_, f"{path}/conv", weight), *norm(norm_, f"{path}/norm")]


def sequence(pattern: str, path: str, weight: Transform = conv) -> list[Rule]:
    """Rules for a convolution `pattern`.0 and its norm `pattern`.1 -> a `ConvNormAct` at `path`."""
    return conv_norm(rf"{pattern}\.0", rf"{pattern}\.1", path, weight)


def prefixed(rules: Iterable[Rule], theirs: str, ours: str) -> list[Rule]:
    r"""Moves rules under prefixes: the regular expression `theirs` before each name, `ours` after "params/".

    `prefixed(rules, r"encoder\.", "encoder")` turns the rules of an encoder into those of a network that holds it. The
    groups of `theirs` must be named or not captured, because {1} is the first group of the rule.
    """

    def move(path: str) -> str:
        collection, _, rest = path.partition("/")
        return f"{collection}/{ours}/{rest}"

    def moved(path: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if path is None or isinstance(path, str):
            return None if path is None else move(path)
        return tuple(move(p) for p in path)

    return [rule._replace(pattern=theirs + rule.pattern, path=moved(rule.path)) for rule in rules]


Find = Callable[[str], "tuple[re.Match[str], Rule] | None"]


def finder(rules: Iterable[Rule]) -> Find:
    """Returns the function that gives the first rule which matches a name, and the match; None where none does.

    A rule for a few names is looked up, and compiled when one of them comes. Without this, each of a thousand names
    would be compared with a thousand rules.
    """
    listed: dict[str, int] = {}
    patterns: list[tuple[int, re.Pattern[str]]] = []
    ordered = list(rules)
    for i, rule in enumerate(ordered):
        names = names_of(rule.pattern)
        if names is None:
            patterns.append((i, _compiled(rule.pattern)))
        else:
            for name in names:
                listed.setdefault(name, i)

    def find(name: str) -> tuple[re.Match[str], Rule] | None:
        place = listed[name] if name in listed else len(ordered)
        for i, pattern in patterns:
            if i > place:
                break
            if match := pattern.fullmatch(name):
                return match, ordered[i]
        if place == len(ordered):
            return None
        match = _compiled(ordered[place].pattern).fullmatch(name)
        return None if match is None else (match, ordered[place])

    return find


def names_of(pattern: str) -> tuple[str, ...] | None:
    r"""Returns the names that a regular expression matches, or None where there are more than 64 or it has other parts.

    The parts are letters, digits, `\.`, groups, `|` and `?`, as in `(?:model\.)?block1\.0\.(?:weight|bias)`.
    """
    parts = _PARTS.findall(pattern)
    if "".join(parts) != pattern or _REFUSED.search(pattern) or parts.count(")") != sum(p[0] == "(" for p in parts):
        return None
    groups = [_Group()]  # the pattern and the groups that are open
    for part in parts:
        group = groups[-1]
        if part.startswith("("):
            groups.append(_Group())
        elif part == "|":
            groups[-1] = _Group(group.others + group.names)
        elif part == "?":
            groups[-1] = group._replace(names=group.names + group.before)
        else:
            ends = (part.replace("\\", ""),)
            if part == ")":
                ends = group.others + group.names
                groups.pop()
                if not groups:
                    return None
            others, names, _ = groups[-1]
            if len(names) * len(ends) > _FEW:
                return None
            groups[-1] = _Group(others, tuple(name + end for name in names for end in ends), names)
        if len(groups[-1].others) + len(groups[-1].names) > _FEW:
            return None
    return groups[0].others + groups[0].names


class _Group(NamedTuple):
    """What a group of a regular expression matches, as far as it has been read."""

    others: tuple[str, ...] = ()  # the alternatives before the last `|`
    names: tuple[str, ...] = ("",)  # the one after it
    before: tuple[str, ...] = ("",)  # the one after it without its last part


# Letters without a `?`, one letter, the begin of a group, its end, `|`, `?`.
_PARTS = re.compile(r"(?:\\\.|\w)+(?!\?)|\\\.|\w|\((?:\?:|(?!\?))|\)|\||\?(?!\?)", re.ASCII)
# A `?` that follows nothing, which `re` refuses.
_REFUSED = re.compile(r"(?:^|\||\(|\(\?:)\?(?!:)")
_FEW = 64
# `re` keeps 512 expressions, fewer than the rules of one network.
_compiled = functools.cache(re.compile)


def convert(state: Mapping[str, np.ndarray], rules: Iterable[Rule]) -> dict[str, np.ndarray]:
    """Returns {our path: array} for a foreign `state_dict`; the first rule that matches a name is used.

    Raises:
        ValueError: if a name matches no rule, the array of a name has a shape that its rule cannot lay out, or two
            names lead to one path. Lists the names.
    """
    find = finder(rules)
    result: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    unknown: list[str] = []
    misshapen: list[str] = []
    for name, array in state.items():
        found = find(name)
        if found is None:
            unknown.append(name)
            continue
        match, rule = found
        if rule.path is None:
            continue
        templates = (rule.path,) if isinstance(rule.path, str) else rule.path
        try:
            made = rule.transform(np.asarray(array))
        except (ValueError, IndexError):
            misshapen.append(f"{name} ({'x'.join(map(str, np.shape(array))) or 'a single number'})")
            continue
        arrays: Sequence[np.ndarray] = (made,) if isinstance(rule.path, str) else made
        for template, value in zip(templates, arrays, strict=True):
            path = template.format(match.group(0), *match.groups(), **match.groupdict())
            if path in result:
                raise ValueError(f"Both {sources[path]!r} and {name!r} lead to {path!r}.")
            result[path], sources[path] = np.ascontiguousarray(value), name
    problems = []
    if unknown:
        problems.append(
            f"No rule knows {counted(len(unknown), 'entry')} of the file: {some(unknown)}. Patterns in weights_skip "
            "(in Python: skip) leave out what is no part of the network, such as a loss or a second network."
        )
    if misshapen:
        listed = some(misshapen)
        entries = counted(len(misshapen), "entry")
        problems.append(f"The shape of {entries} of the file does not fit the kind of the layer: {listed}.")
    if problems:
        raise ValueError(" ".join(problems))
    return result

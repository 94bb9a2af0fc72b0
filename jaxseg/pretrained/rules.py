"""Rules that rename the entries of a `state_dict` and lay their arrays out as ours.

A rule is a regular expression for the whole foreign name, the path of our array ("params/encoder/stem/conv/kernel", in
which {1}, {2} or {name} stand for groups of the match) and what to do with the array. A family is a list of rules:
`convert` demands that each foreign name is met by one, and `merge` that each of our arrays is filled.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from jaxseg.errors import some

Transform = Callable[[np.ndarray], Any]


def keep(x: np.ndarray) -> np.ndarray:
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


class Rule(NamedTuple):
    """Where one kind of foreign entry goes.

    Attributes:
        pattern: regular expression that the whole name must match.
        path: our path, a template over the groups of the match ("{1}" or "{name}"); a tuple of them where `transform`
            returns as many arrays (a fused query-key-value weight); None: the entry has no counterpart and is left out.
        transform: foreign array -> our array, or arrays.
    """

    pattern: str
    path: str | tuple[str, ...] | None
    transform: Transform = keep


def layer(pattern: str, path: str, weight: Transform = conv) -> list[Rule]:
    """Rules for `pattern`.weight and .bias of a convolution or linear layer -> params/`path`/kernel and bias."""
    return [
        Rule(rf"{pattern}\.weight", f"params/{path}/kernel", weight),
        Rule(rf"{pattern}\.bias", f"params/{path}/bias"),
    ]


def norm(pattern: str, path: str) -> list[Rule]:
    """Rules for a norm at `pattern`: scale and bias, and running statistics where it has any."""
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
    groups of `theirs` must be named or not captured, since {1} counts from the rule's own.
    """

    def move(path: str) -> str:
        collection, _, rest = path.partition("/")
        return f"{collection}/{ours}/{rest}"

    def moved(path: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if path is None or isinstance(path, str):
            return None if path is None else move(path)
        return tuple(move(p) for p in path)

    return [rule._replace(pattern=theirs + rule.pattern, path=moved(rule.path)) for rule in rules]


def convert(state: Mapping[str, np.ndarray], rules: Iterable[Rule]) -> dict[str, np.ndarray]:
    """Returns {our path: array} for a foreign `state_dict`; the first rule that matches a name holds.

    Raises:
        ValueError: listing the names that no rule matches, and those whose arrays their rules cannot lay out; or a path
            that two names lead to.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    result: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    unknown, odd = [], []
    for name, array in state.items():
        match, rule = next(((m, r) for p, r in compiled if (m := p.fullmatch(name))), (None, None))
        if match is None or rule is None:
            unknown.append(name)
            continue
        if rule.path is None:
            continue
        templates = (rule.path,) if isinstance(rule.path, str) else rule.path
        try:
            made = rule.transform(np.asarray(array))
        except (ValueError, IndexError):
            odd.append(f"{name} ({'x'.join(map(str, np.shape(array))) or 'a single number'})")
            continue
        arrays: Sequence[np.ndarray] = (made,) if isinstance(rule.path, str) else made
        for template, value in zip(templates, arrays, strict=True):
            path = template.format(match.group(0), *match.groups(), **match.groupdict())
            if path in result:
                raise ValueError(f"Both {sources[path]!r} and {name!r} lead to {path!r}.")
            result[path], sources[path] = np.ascontiguousarray(value), name
    problems = [f"{len(unknown)} entries of the file are known to no rule: {some(unknown)}."] if unknown else []
    if odd:
        problems.append(f"{len(odd)} entries of the file have a shape that their layer cannot have: {some(odd)}.")
    if problems:
        raise ValueError(" ".join(problems))
    return result


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"params": {"stem": {"kernel": x}}} -> {"params/stem/kernel": x}."""
    return traverse_util.flatten_dict(dict(variables), sep="/")


def merge(
    variables: Mapping[str, Any], loaded: Mapping[str, np.ndarray], *, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns `variables` with the arrays of `loaded` in place of its own, every name accounted for on both sides.

    Args:
        variables: {"params": ..., "batch_stats": ...}, arrays or shapes of a freshly initialised model.
        loaded: {our path: array}, as `convert` gives it.
        skip: regular expressions (found anywhere in a path) of what may be missing, or left unused, or differ in shape;
            such entries of `variables` stay as they are.

    Raises:
        ValueError: listing what is missing, unexpected, of the wrong shape, whole numbers for floating-point ones (of a
            quantised network), and not finite.
    """
    ours = flatten(variables)

    def skipped(path: str) -> bool:
        return any(re.search(pattern, path) for pattern in skip)

    taking = {p: x for p, x in loaded.items() if p in ours and not skipped(p)}
    missing = [p for p in ours if p not in loaded and not skipped(p)]
    unexpected = [p for p in loaded if p not in ours and not skipped(p)]
    wrong = [
        f"{p} ({'x'.join(map(str, x.shape))} in the file, {'x'.join(map(str, ours[p].shape))} here)"
        for p, x in taking.items()
        if tuple(x.shape) != tuple(ours[p].shape)
    ]
    whole = [f"{p} ({x.dtype})" for p, x in taking.items() if _floating(ours[p]) and not _floating(x)]
    infinite = [p for p, x in taking.items() if _floating(x) and not np.isfinite(x).all()]
    problems = [
        f"{len(names)} {what}: {some(names)}"
        for what, names in (
            ("missing", missing), ("unexpected", unexpected), ("of another shape", wrong),
            ("of whole numbers", whole), ("with NaN or infinite numbers", infinite),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise ValueError("The weights do not fit the model. " + "; ".join(problems) + ".")
    merged = {p: jax.numpy.asarray(taking[p], x.dtype) if p in taking else x for p, x in ours.items()}
    return traverse_util.unflatten_dict(merged, sep="/")


def _floating(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.numpy.floating)

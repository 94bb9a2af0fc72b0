"""Fits named arrays to a network: the format they come in, other image channels, another number of classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.errors import WeightsError, some
from jaxseg.pretrained.rules import Rule, convert, flatten, merge

Arrays = Mapping[str, np.ndarray]

# Modules of a network that hold a classifier.
_HEAD = re.compile(r"(^|/)([^/]*(head|classifier|logits|score|presence)[^/]*|aux\d+)/", re.IGNORECASE)
_BETWEEN_SCORES = re.compile(r"^params/up\d+/kernel$")  # of an `FCN`
# Where foreign networks keep their encoder, so that it can be taken out of them.
_ENCODER_PREFIXES = ("encoder.", "backbone.")


def is_ours(names: Iterable[str]) -> bool:
    """Returns whether the names are paths of our own ("params/...", "batch_stats/...")."""
    return all(name.startswith(("params/", "batch_stats/")) for name in names)


def rename(arrays: Arrays, lists: Sequence[Sequence[Rule]]) -> dict[str, np.ndarray]:
    """Returns the arrays under our paths: by the first list of rules that knows every name, or as they are.

    Raises:
        WeightsError: if no list does, naming what the nearest does not know, or two names lead to one path.
    """
    if is_ours(arrays):
        return dict(arrays)
    if not lists:
        raise WeightsError(
            f"no rules are known that rename its entries ({', '.join(list(arrays)[:3])}, ...); rename them to our "
            "paths (params/...) first."
        )
    best = min(lists, key=lambda rules: len(unknown(arrays, rules)))
    try:
        return convert(arrays, best)
    except ValueError as error:
        raise WeightsError(str(error)) from error


def unknown(arrays: Iterable[str], rules: Sequence[Rule]) -> list[str]:
    """Returns the names that no rule matches."""
    patterns = [re.compile(rule.pattern) for rule in rules]
    return [name for name in arrays if not any(pattern.fullmatch(name) for pattern in patterns)]


def leave_out(
    arrays: Arrays, lists: Sequence[Sequence[Rule]], skip: Sequence[str], notes: list[str]
) -> dict[str, np.ndarray]:
    """Returns the arrays but for those whose foreign names no rule knows and one of the patterns `skip` is found in."""
    patterns = [re.compile(rule.pattern) for rules in lists for rule in rules]

    def known(name: str) -> bool:
        inside = [name, *(name.removeprefix(prefix) for prefix in _ENCODER_PREFIXES)]
        return is_ours([name]) or any(pattern.fullmatch(n) for pattern in patterns for n in inside)

    left = [name for name in arrays if matches(skip, name) and not known(name)]
    if left:
        notes.append(f"left out as asked: {some(left)}")
    return {name: x for name, x in arrays.items() if name not in left}


def matches(patterns: Iterable[str], name: str) -> bool:
    """Returns whether one of the regular expressions is found in the name."""
    return any(re.search(pattern, name) for pattern in patterns)


def rename_encoder(arrays: Arrays, lists: Sequence[Sequence[Rule]], notes: list[str]) -> dict[str, np.ndarray]:
    """Returns the encoder's arrays as "params/encoder/...", out of an encoder's file or a whole network's.

    Args:
        arrays: under foreign names, or our paths.
        lists: rules relative to the encoder.
        notes: is told where the encoder was found.

    Raises:
        WeightsError: as `rename`.
    """
    if is_ours(arrays):
        inside = {name: x for name, x in arrays.items() if name.split("/")[1] == "encoder"}
        if inside:
            notes.append("took the encoder out of the network")
            return inside
        return _under_encoder(dict(arrays))
    for prefix in _ENCODER_PREFIXES:
        inside = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
        if inside and any(not unknown(inside, rules) for rules in lists):
            notes.append(f"took the encoder under {prefix!r}")
            return _under_encoder(rename(inside, lists))
    return _under_encoder(rename(arrays, lists))


def _under_encoder(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name.replace("/", "/encoder/", 1): x for name, x in arrays.items()}


def fit(
    variables: Mapping[str, Any],
    arrays: Arrays,
    *,
    children: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    channels: int = 3,
    num_classes: int | None = None,
    notes: list[str] | None = None,
    names: Iterable[str] = (),
) -> dict[str, Any]:
    """Returns `variables` with `arrays`, under our paths, in place of its own.

    Args:
        variables, skip, channels, num_classes: see `jaxseg.pretrained.load`.
        arrays: {"params/...": array} of the whole network, or of some of its children ("params/encoder/...").
        children: their names; None: the whole network.
        notes: is told what was done besides.
        names: those that were left out of the file already, which a pattern of `skip` may be for as well.

    Raises:
        WeightsError: listing what is missing, unexpected and of another shape; for a network without an encoder, and a
            pattern that is wrong or found nowhere.
    """
    notes = [] if notes is None else notes
    part = {c: {n: x for n, x in t.items() if children is None or n in children} for c, t in variables.items()}
    if children is not None and not set(children) <= set(part["params"]):
        raise WeightsError(f"the network has no child 'encoder', only {', '.join(variables['params'])}.")
    ours = flatten(part)
    check_patterns(skip, (*ours, *arrays, *names))
    arrays = adapt_input(arrays, ours, channels, notes)
    remade = remade_heads(arrays, ours, num_classes) if children is None else []
    if remade:
        notes.append(f"left the classifier new, for {num_classes} classes: {', '.join(remade)}")
    skipped = [path for path in ours if matches(skip, path)]
    if skipped:
        notes.append(f"left new as asked: {some(skipped)}")
    unused = [path for path in arrays if path not in ours and matches(skip, path)]
    if unused:
        notes.append(f"left out as asked: {some(unused)}")
    try:
        merged = merge(part, arrays, skip=[*skip, *(f"^{re.escape(path)}$" for path in remade)])
    except ValueError as error:
        raise WeightsError(str(error)) from error
    return {name: {**tree, **(merged[name] if name in merged else {})} for name, tree in variables.items()}


def check_patterns(patterns: Iterable[str], names: Iterable[str] | None = None) -> None:
    """Raises WeightsError for what is no regular expression, and for one that is found in none of the names."""
    for pattern in patterns:
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise WeightsError(f"the pattern {pattern!r} is no regular expression: {error}.") from error
        if names is not None and not any(found.search(name) for name in names):
            raise WeightsError(
                f"the pattern {pattern!r} of what to skip is found in no name, neither of the file nor of what it is "
                "for here."
            )


def adapt_input(arrays: Arrays, ours: Mapping[str, Any], channels: int, notes: list[str]) -> dict[str, np.ndarray]:
    """Returns `arrays` with kernels f[u,v,3,o] that see RGB images made into f[u,v,channels,o].

    One channel gets the sum over the three; n channels repeat them, w[i mod 3]·3/n, so that an image of equal channels
    gives what it gave before (the adaptation of segmentation_models.pytorch).
    """
    adapted = dict(arrays)
    for path, x in arrays.items():
        if channels == 3 or path not in ours or x.ndim != 4 or x.shape[2] != 3:
            continue
        if tuple(ours[path].shape) == (*x.shape[:2], channels, x.shape[3]):
            repeated = x[:, :, np.arange(channels) % 3] * np.float32(3.0 / channels)
            adapted[path] = x.sum(axis=2, keepdims=True) if channels == 1 else repeated
            notes.append(f"adapted {path} from 3 to {channels} channels")
    return adapted


def remade_heads(arrays: Arrays, ours: Mapping[str, Any], num_classes: int | None) -> list[str]:
    """Returns the paths of classifiers that are made anew, since the file's are for another number of classes.

    The rule: such an array lies in a module named head, classifier, logits, score, presence or aux1, and its shape
    differs from ours in the last axis alone; or it is the kernel of a transposed convolution between scores (of an
    `FCN`), and differs in the last two. Ours is `num_classes`, or one more for "no object" (`Mask2Former`), and all of
    the file have one number of classes. The other arrays of another shape are errors.
    """
    if num_classes is None:
        return []
    found = {}
    for path, x in arrays.items():
        wanted = tuple(ours[path].shape) if path in ours else x.shape
        axes = 2 if _BETWEEN_SCORES.search(path) else 1
        if wanted == x.shape or x.ndim < axes or not (axes == 2 or _HEAD.search(path)):
            continue
        k = wanted[-1] if wanted else 0
        if k in (num_classes, max(num_classes, 2) + 1) and wanted == (*x.shape[:-axes], *((k,) * axes)):
            found[path] = (x.shape[-1], k)
    return list(found) if len(set(found.values())) == 1 else []

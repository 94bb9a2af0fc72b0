"""Puts arrays under our paths into the variables of a network: other image channels, another number of classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jaxseg.errors import WeightsError, counted, some
from jaxseg.pretrained.renaming import found_in

# Modules of a network that hold a classifier.
_CLASSIFIER = re.compile(
    r"(^|/)([^/]*(head|classifier|logits|score|presence)[^/]*|aux\d+|aux(?=/(kernel|bias)$))/", re.IGNORECASE
)
_BETWEEN_LOGITS = re.compile(r"^params/(up\d+|fused_scores)/kernel$")  # of an `FCN`, of a `U2Net`
_BESIDE_LOGITS = re.compile(r"^params/points/(dense\d+|score)/")  # of a `PointRend`: it reads features and logits


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"params": {"stem": {"kernel": x}}} -> {"params/stem/kernel": x}."""
    return traverse_util.flatten_dict(dict(variables), sep="/")


def merge(
    variables: Mapping[str, Any], loaded: Mapping[str, np.ndarray], *, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns `variables` with the arrays of `loaded` in place of its own; every name must exist on both sides.

    Args:
        variables: {"params": ..., "batch_stats": ...}, arrays or shapes of a freshly initialised model.
        loaded: {our path: array}, as `convert` returns it.
        skip: regular expressions, found anywhere in a path. A path that one of them names may be missing, unexpected
            or of another shape; such entries of `variables` stay as they are.

    Raises:
        ValueError: if an array is missing, unexpected or of another shape, holds integers for floating-point numbers
            (of a quantised network), or holds numbers that are not finite. Lists the paths.
    """
    ours = flatten(variables)
    taken = {p: x for p, x in loaded.items() if p in ours and not found_in(skip, p)}
    missing = [p for p in ours if p not in loaded and not found_in(skip, p)]
    unexpected = [p for p in loaded if p not in ours and not found_in(skip, p)]
    misshapen = [
        f"{p} ({'x'.join(map(str, x.shape))} in the file, {'x'.join(map(str, ours[p].shape))} here)"
        for p, x in taken.items()
        if tuple(x.shape) != tuple(ours[p].shape)
    ]
    integers = [f"{p} ({x.dtype})" for p, x in taken.items() if _floating(ours[p]) and not _floating(x)]
    not_finite = [p for p, x in taken.items() if _floating(x) and not np.isfinite(x).all()]
    found = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshapen,
        "of whole numbers": integers,
        "with NaN or infinite numbers": not_finite,
    }
    problems = [f"{len(names)} {what}: {some(names)}" for what, names in found.items() if names]
    if problems:
        raise ValueError("The weights do not fit the model. " + "; ".join(problems) + ".")
    merged = {p: jax.numpy.asarray(taken[p], x.dtype) if p in taken else x for p, x in ours.items()}
    return traverse_util.unflatten_dict(merged, sep="/")


def _floating(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.numpy.floating)


def adapt_and_merge(
    variables: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    children: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    channels: int = 3,
    num_classes: int | None = None,
    notes: list[str] | None = None,
    dropped: Iterable[str] = (),
) -> dict[str, Any]:
    """Returns `variables` with `arrays` in place of its own, adapted to the image's channels and the classes.

    Args:
        variables, skip, channels, num_classes: see `jaxseg.pretrained.load`.
        arrays: {our path: array} of the whole network, or of some of its children ("params/encoder/...").
        children: their names; None for the whole network.
        notes: receives notes of what was done.
        dropped: names that `skip` has left out of the file already.

    Raises:
        WeightsError: if the network has no child "encoder", the arrays do not fit (see `merge`), or a pattern of `skip`
            is not a regular expression or is found in no name.
    """
    notes = [] if notes is None else notes
    part = {c: {n: x for n, x in t.items() if children is None or n in children} for c, t in variables.items()}
    if children is not None and not set(children) <= set(part["params"]):
        raise WeightsError(f"the network has no child 'encoder', only {', '.join(variables['params'])}.")
    ours = flatten(part)
    check_patterns(skip, (*ours, *arrays, *dropped))
    arrays = adapt_input(arrays, ours, channels, notes)
    replaced = new_classifiers(arrays, ours, num_classes) if children is None else []
    if replaced:
        notes.append(f"kept the initial classifier, for {counted(num_classes or 0, 'class')}: {', '.join(replaced)}")
    skipped = [path for path in ours if found_in(skip, path)]
    if skipped:
        notes.append(f"kept the initial values as asked: {some(skipped)}")
    unused = [path for path in arrays if path not in ours and found_in(skip, path)]
    if unused:
        notes.append(f"left out as asked: {some(unused)}")
    try:
        merged = merge(part, arrays, skip=[*skip, *(f"^{re.escape(path)}$" for path in replaced)])
    except ValueError as error:
        raise WeightsError(str(error)) from error
    return {name: {**tree, **(merged[name] if name in merged else {})} for name, tree in variables.items()}


def check_patterns(patterns: Iterable[str], names: Iterable[str] | None = None) -> None:
    """Raises WeightsError for a pattern that is not a regular expression, or is found in none of `names`, if given."""
    names = None if names is None else list(names)
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise WeightsError(f"the pattern {pattern!r} is not a regular expression: {error}.") from error
        if names is not None and not any(compiled.search(name) for name in names):
            raise WeightsError(
                f"the pattern {pattern!r} of what to skip is found in no name, neither in the file nor in the network."
            )


def adapt_input(
    arrays: Mapping[str, np.ndarray], ours: Mapping[str, Any], channels: int, notes: list[str]
) -> dict[str, np.ndarray]:
    """Returns `arrays` with each kernel f[u,v,3,o] over an RGB image changed to f[u,v,channels,o].

    One channel gets the sum over the three. n channels repeat them, w[i mod 3]·3/n, so that an image of equal channels
    gives the same features as before (the adaptation of segmentation_models.pytorch).
    """
    adapted = dict(arrays)
    for path, x in arrays.items():
        if channels == 3 or path not in ours or x.ndim != 4 or x.shape[2] != 3:
            continue
        if tuple(ours[path].shape) == (*x.shape[:2], channels, x.shape[3]):
            repeated = x[:, :, np.arange(channels) % 3] * np.float32(3.0 / channels)
            adapted[path] = x.sum(axis=2, keepdims=True) if channels == 1 else repeated
            notes.append(f"adapted {path} from 3 to {counted(channels, 'channel')}")
    return adapted


def new_classifiers(arrays: Mapping[str, np.ndarray], ours: Mapping[str, Any], num_classes: int | None) -> list[str]:
    """Returns the paths of the classifiers that keep their initial values: the file's have another number of classes.

    Such an array lies in a module named head, classifier, logits, score, presence or aux1, or is that of a layer named
    aux, and its shape differs from ours only in the last axis; or it is the kernel of a convolution between logits (of
    an `FCN`, or of a `U2Net`, which reads several of them), and its shape differs only in the last two; or it is of the
    perceptron of a `PointRend`, which reads the logits beside features: where one of its kernels has another shape for
    this reason, all kernels and biases are among the paths, those of equal shapes too. Ours has `num_classes` there, or
    one more for "no object" (`Mask2Former`), and all of the file have one number of classes. Any other array of another
    shape is an error.
    """
    if num_classes is None:
        return []
    found = {}
    for path, x in arrays.items():
        wanted = tuple(ours[path].shape) if path in ours else x.shape
        if _BESIDE_LOGITS.search(path) and x.ndim == len(wanted) == 2 and wanted != x.shape:
            k = x.shape[0] - wanted[0] + num_classes  # of the file
            if (x.shape[1], wanted[1]) == (k, num_classes) or x.shape[1] == wanted[1]:
                found[path] = (k, num_classes)
            continue
        axes = 2 if _BETWEEN_LOGITS.search(path) else 1
        if wanted == x.shape or x.ndim < axes or not (axes == 2 or _CLASSIFIER.search(path)):
            continue
        k = wanted[-1] if wanted else 0
        inputs = (x.shape[-2] // x.shape[-1] * k,) if axes == 2 else ()
        if k in (num_classes, max(num_classes, 2) + 1) and wanted == (*x.shape[:-axes], *inputs, k):
            found[path] = (x.shape[-1], k)
    if len(set(found.values())) != 1:
        return []
    # A layer of a perceptron is of no use behind one that starts anew.
    whole = any(_BESIDE_LOGITS.search(path) for path in found)
    return [path for path in arrays if path in found or (whole and path in ours and _BESIDE_LOGITS.search(path))]

"""Where the channels of a network go: each axis of each array of its traced program, as identities of channels.

`follow` reads the equations of a program (jaxpr) without computing any. An axis is an array of the identities of its
elements, or None where elements are not told apart. An equation that needs two elements to be the same channel links
them; one that mixes channels, such as a norm over them, says that none of them may be removed.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.extend.core as core
import numpy as np

Axis: TypeAlias = np.ndarray | None
Axes: TypeAlias = tuple[Axis, ...]

_ELEMENTWISE = frozenset(
    re.findall(
        r"\w+",
        "abs add add_any and bitcast_convert_type cbrt ceil clamp convert_element_type copy cos div eq erf erf_inv "
        "erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter "
        "not or pow reduce_precision rem round rsqrt select_n sign sin sqrt square stop_gradient sub tan tanh xor",
    )
)


class Flow:
    """What was learned of the channels.

    Attributes:
        links: pairs i[2,n] of identities that are one channel.
        kept: {identity: what keeps it}, such as "reduce_sum, which mixes channels".
    """

    def __init__(self) -> None:
        self.links: list[np.ndarray] = []
        self.kept: dict[int, str] = {}
        self._numbers = itertools.count()

    def new(self, size: int) -> np.ndarray:
        """Returns that many new identities."""
        return np.fromiter(itertools.islice(self._numbers, size), np.int64, size)

    def link(self, a: Axis, b: Axis) -> Axis:
        """Says that two axes hold the same channels; returns one of them, the known one if the other is not."""
        if a is None or b is None:
            return b if a is None else a
        self.links.append(np.stack([a, b]))
        return a

    def keep(self, axes: Sequence[Axis], why: str) -> None:
        """Says that no channel of these axes may be removed."""
        for axis in axes:
            if axis is not None:
                self.kept |= {int(each): why for each in axis if int(each) not in self.kept}


def follow(flow: Flow, jaxpr: Any, arguments: Sequence[Axes]) -> list[Axes]:
    """Returns the axes of the results of a program of these arguments; writes to `flow` what its equations ask."""
    values: dict[Any, Axes] = dict(zip(jaxpr.invars, arguments))

    def read(atom: Any) -> Axes:
        if isinstance(atom, core.Literal) or atom not in values:  # a constant, equal for all channels
            return (None,) * np.ndim(atom.val) if isinstance(atom, core.Literal) else (None,) * len(atom.aval.shape)
        return values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if any(axis is not None for axes in inputs for axis in axes):
            values.update(zip(equation.outvars, _equation(flow, equation, inputs)))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(flow: Flow, equation: Any, inputs: list[Axes]) -> list[Axes]:
    name, params = equation.primitive.name, equation.params
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    if name in _ELEMENTWISE:
        return [_elementwise(flow, inputs, len(shapes[0]))]
    if name == "optimization_barrier":
        return inputs
    if name == "scan":
        return _scan(flow, params, inputs, shapes)
    if name == "cond":
        branches = [follow(flow, branch.jaxpr, inputs[1:]) for branch in params["branches"]]
        return [_elementwise(flow, list(results), len(shape)) for results, shape in zip(zip(*branches), shapes)]
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    if inner is not None and name != "while":
        return follow(flow, inner.jaxpr if hasattr(inner, "consts") else inner, inputs)
    if name in _RULES:
        sizes = [tuple(atom.aval.shape) for atom in equation.invars]
        return _RULES[name](flow, params, inputs, sizes, shapes)
    flow.keep([axis for axes in inputs for axis in axes], f"the operation {name}")
    return [(None,) * len(shape) for shape in shapes]


def _elementwise(flow: Flow, inputs: Sequence[Axes], rank: int) -> Axes:
    result: list[Axis] = [None] * rank
    for axes in inputs:
        for place, axis in enumerate(axes):  # a scalar has none
            result[place] = flow.link(result[place], axis)
    return tuple(result)


def _scan(flow: Flow, params: Any, inputs: list[Axes], shapes: list[tuple[int, ...]]) -> list[Axes]:
    consts, many = params["num_consts"], params["num_carry"]
    flow.keep([axes[0] for axes in inputs[consts + many :]], "a loop over channels")
    scanned = [axes[1:] for axes in inputs[consts + many :]]
    carried = inputs[consts : consts + many]
    for _ in range(2):  # what enters the second step is what the first returns
        results = follow(flow, params["jaxpr"].jaxpr, [*inputs[:consts], *carried, *scanned])
        carried = [_elementwise(flow, pair, len(pair[0])) for pair in zip(carried, results)]
    return [*carried, *((None, *axes) for axes in results[many:])]


def _convolution(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    image, kernel = inputs
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    channels, features = image[numbers.lhs_spec[1]], kernel[numbers.rhs_spec[0]]
    size = sizes[0][numbers.lhs_spec[1]]
    if groups == 1 and params["batch_group_count"] == 1:
        flow.link(channels, kernel[numbers.rhs_spec[1]])
    elif groups == size:
        features = flow.link(features, None if channels is None else np.repeat(channels, shapes[0][-1] // size))
    else:
        flow.keep([channels, kernel[numbers.rhs_spec[1]], features], "a grouped convolution")
    result: list[Axis] = [None] * len(image)
    result[numbers.out_spec[0]], result[numbers.out_spec[1]] = image[numbers.lhs_spec[0]], features
    return [tuple(result)]


def _product(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
    a, b = inputs
    for i, j in zip(contract_a, contract_b):
        flow.link(a[i], b[j])
    batch = [flow.link(a[i], b[j]) for i, j in zip(batch_a, batch_b)]
    rest_a = [axis for i, axis in enumerate(a) if i not in (*contract_a, *batch_a)]
    rest_b = [axis for i, axis in enumerate(b) if i not in (*contract_b, *batch_b)]
    return [(*batch, *rest_a, *rest_b)]


def _broadcast(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    result: list[Axis] = [None] * len(shapes[0])
    for axis, size, place in zip(inputs[0], sizes[0], params["broadcast_dimensions"]):
        result[place] = axis if size == shapes[0][place] else None
    return [tuple(result)]


def _reshape(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    """Axes that are merged: the identities of the one that has them, repeated; split: where they repeat."""
    before, after = sizes[0], shapes[0]
    axes = inputs[0]
    result: list[Axis] = [None] * len(after)
    for there, here in _blocks(before, after):
        named = [i for i in there if axes[i] is not None]
        if not named:
            continue
        whole = _merged([axes[i] for i in there], [before[i] for i in there])
        parts = None if whole is None else _split(whole, [after[i] for i in here])
        if parts is None:
            flow.keep([axes[i] for i in named], "a change of shape that splits or joins channels")
            continue
        for place, part in zip(here, parts):
            result[place] = part
    return [tuple(result)]


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Returns the smallest runs of axes of equal product on both sides of a reshape."""
    blocks, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        there, here, a, b = [], [], 1, 1
        while (not there and not here) or a != b:
            if i < len(before) and (a <= b or j == len(after)):
                there, a, i = [*there, i], a * before[i], i + 1
            else:
                here, b, j = [*here, j], b * after[j], j + 1
        blocks.append((there, here))
    return blocks


def _merged(axes: Sequence[Axis], sizes: Sequence[int]) -> np.ndarray | None:
    """Returns the identities of axes that become one; None if several have them."""
    named = [i for i, axis in enumerate(axes) if axis is not None and sizes[i] > 1]
    if len(named) != 1:
        return next((axis for axis in axes if axis is not None), None) if not named else None
    shape = [size if i == named[0] else 1 for i, size in enumerate(sizes)]
    known = axes[named[0]]
    assert known is not None
    return np.broadcast_to(known.reshape(shape), tuple(sizes)).reshape(-1)


def _split(whole: np.ndarray, sizes: Sequence[int]) -> list[Axis] | None:
    """Returns the axes of these sizes; None if the identities vary along more than one."""
    block = whole.reshape(tuple(sizes))
    for place in range(len(sizes)):
        line = np.moveaxis(block, place, 0).reshape(sizes[place], -1)
        if (line == line[:, :1]).all():
            return [line[:, 0] if i == place else None for i in range(len(sizes))]
    return None


def _transpose(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    return [tuple(inputs[0][i] for i in params["permutation"])]


def _squeeze(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    flow.keep([inputs[0][i] for i in params["dimensions"]], "a single channel that the network reads as it is")
    return [tuple(axis for i, axis in enumerate(inputs[0]) if i not in params["dimensions"])]


def _concatenate(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    place = params["dimension"]
    parts = [axes[place] for axes in inputs]
    result = list(_elementwise(flow, [(*axes[:place], None, *axes[place + 1 :]) for axes in inputs], len(shapes[0])))
    if any(part is not None for part in parts):
        result[place] = np.concatenate(
            [_unremovable(flow, size[place]) if part is None else part for part, size in zip(parts, sizes)]
        )
    return [tuple(result)]


def _unremovable(flow: Flow, size: int) -> np.ndarray:
    """Returns new identities of channels beside those that may be removed, such as those of the image."""
    new = flow.new(size)
    flow.keep([new], "channels of another width")
    return new


def _stack(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    result = list(_elementwise(flow, inputs, len(shapes[0]) - 1))
    result.insert(params["axis"], None)
    return [tuple(result)]


def _slice(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    steps = params["strides"] or (1,) * len(inputs[0])
    cuts = [slice(*each) for each in zip(params["start_indices"], params["limit_indices"], steps)]
    return [tuple(None if axis is None else axis[cut] for axis, cut in zip(inputs[0], cuts))]


def _split_axis(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    place, ends = params["axis"], np.cumsum(params["sizes"])[:-1]
    axis = inputs[0][place]
    parts = [None] * len(shapes) if axis is None else np.split(axis, ends)
    return [(*inputs[0][:place], part, *inputs[0][place + 1 :]) for part in parts]


def _pad(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    result: list[Axis] = []
    for axis, config in zip(inputs[0], params["padding_config"]):
        if axis is not None and config != (0, 0, 0):
            flow.keep([axis], "padding with further channels")
            axis = None
        result.append(axis)
    return [tuple(result)]


def _reverse(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    return [tuple(a if a is None or i not in params["dimensions"] else a[::-1] for i, a in enumerate(inputs[0]))]


def _reduce(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    why = "a sum, mean or norm over the channels"
    flow.keep([inputs[0][i] for i in params["axes"]], why)
    rest = tuple(axis for i, axis in enumerate(inputs[0]) if i not in params["axes"])
    return [rest] * len(shapes)


def _window(flow: Flow, params: Any, inputs: list[Axes], sizes: Any, shapes: Any) -> list[Axes]:
    wide = [size > 1 for size in params["window_dimensions"]]
    flow.keep([axis for axis, mixes in zip(inputs[0], wide) if mixes], "pooling over channels")
    return [tuple(None if mixes else axis for axis, mixes in zip(inputs[0], wide))]


_RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split_axis,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"), _reduce),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum", "reduce_window_min"), _window),
}

"""The graph under construction, and the values between its nodes.

An array of JAX is kept as the tensor that is at hand: with its axes in another order, or of length 1 along axes on
which its values repeat. A transpose then is a note and no node, and neighbours cancel: the convolutions of ONNX have
the channels first, and what lies between two of them stays in that order.
"""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Side: TypeAlias = Any  # an int, or a symbolic size of JAX
Order: TypeAlias = tuple[int, ...]

# Whole numbers of 8 and 16 bits are computed in 32: few operations of ONNX take them.
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "int8": TensorProto.INT32,
    "int16": TensorProto.INT32,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


class Unsupported(Exception):
    """An operation has no translation; its text says which."""


def onnx_type(dtype: Any) -> int:
    """Returns the type of ONNX for a dtype of JAX."""
    name = np.dtype(dtype).name
    if name not in _TYPES:
        raise Unsupported(f"values of type {name}")
    return _TYPES[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array of the jaxpr.

    Attributes:
        shape: its shape; sides may be symbolic.
        dtype: its dtype in JAX.
        name: the tensor that holds it; "" for a constant that is not in the graph.
        array: the constant, stored like the tensor; None if it is computed.
        order: axis i of what is stored is axis order[i] of the array.
        stretched: axes of the array along which its values repeat, and of which 1 is stored.
    """

    shape: tuple[Side, ...]
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None
    order: Order = ()
    stretched: frozenset[int] = frozenset()

    @property
    def rank(self) -> int:
        return len(self.shape)

    def whole(self) -> np.ndarray:
        """Returns the array of a constant with its own axes and shape."""
        assert self.array is not None
        return np.broadcast_to(self.array.transpose(np.argsort(self.order)), self.shape)


def constant(array: Any) -> Value:
    """Returns a constant, with one value alone where all are equal."""
    array = np.asarray(array)
    if array.size > 1 and (array == array.flat[0]).all():
        axes = frozenset(axis for axis, side in enumerate(array.shape) if side != 1)
        return Value(array.shape, array.dtype, "", array[(slice(1),) * array.ndim], identity(array.ndim), axes)
    return Value(array.shape, array.dtype, "", array, identity(array.ndim))


def identity(rank: int) -> Order:
    return tuple(range(rank))


class Graph:
    """Nodes in order, with the constants that they read. A graph inside a node `If` sees the names of its parent."""

    def __init__(self, sizes: dict[str, tuple[str, int]], parent: "Graph | None" = None) -> None:
        """`sizes` are the symbols: {"h": (name of a tensor, its axis)}."""
        self.sizes, self.parent = sizes, parent
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._made: dict[Any, str] = {}
        self._count: list[int] = [0] if parent is None else parent._count

    def new_name(self, word: str) -> str:
        self._count[0] += 1
        return f"{word}_{self._count[0]}"

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns its name."""
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node with this number of outputs and returns their names."""
        names = [self.new_name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def _once(self, key: Any, make: Any) -> str:
        """Returns the name that was made for a key, in this graph or around it, or makes it."""
        graph: Graph | None = self
        while graph is not None:
            if key in graph._made:
                return graph._made[key]
            graph = graph.parent
        self._made[key] = make()
        return self._made[key]

    def put(self, array: Any) -> str:
        """Returns the name of a constant tensor."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        if array.dtype in (np.int8, np.int16):
            array = array.astype(np.int32)

        def make() -> str:
            onnx_type(array.dtype)
            name = self.new_name("constant")
            self.initializers.append(numpy_helper.from_array(array, name))
            return name

        if array.nbytes > 1024:
            return make()
        return self._once(("constant", array.dtype.str, array.shape, array.tobytes()), make)

    def stored(self, value: Value, order: Order | None = None) -> str:
        """Returns the tensor of a value with its axes in `order` (that of the array), not stretched."""
        order = identity(value.rank) if order is None else order
        moves = tuple(value.order.index(axis) for axis in order)
        if value.array is not None:
            return self.put(value.array.transpose(moves))
        if moves == identity(value.rank):
            return value.name
        return self._once(
            ("transpose", value.name, moves), lambda: self.node("Transpose", value.name, perm=list(moves))
        )

    def full(self, value: Value, order: Order | None = None) -> str:
        """As `stored`, stretched to the shape of the value."""
        order = identity(value.rank) if order is None else order
        name = self.stored(value, order)
        if all(value.shape[axis] == 1 for axis in value.stretched):
            return name
        shape = self.shape([value.shape[axis] for axis in order])
        return self._once(("expand", name, shape), lambda: self.node("Expand", name, shape))

    def made(self, name: str, shape: Sequence[Side], dtype: Any, order: Order | None = None, **more: Any) -> Value:
        """Returns the value that a tensor holds."""
        return Value(tuple(shape), np.dtype(dtype), name, None, order or identity(len(shape)), **more)

    def shape(self, sides: Sequence[Side]) -> str:
        """Returns a tensor i64[n] of sides."""
        if all(isinstance(side, int) for side in sides):
            return self.put(np.array(sides, np.int64))
        parts = [self._length_1(side) for side in sides]
        return self._once(("concat", *parts), lambda: self.node("Concat", *parts, axis=0))

    def _length_1(self, side: Side) -> str:
        if isinstance(side, int):
            return self.put(np.array([side], np.int64))
        scalar, axes = self.side(side), self.put(np.array([0], np.int64))
        return self._once(("unsqueeze", scalar), lambda: self.node("Unsqueeze", scalar, axes))

    def side(self, side: Side) -> str:
        """Returns a tensor i64[] of a side, whose expression is computed from the sizes of the image."""
        text = str(side).replace("^", "**")
        return self._once(("side", text), lambda: self._expression(ast.parse(text, mode="eval").body))

    def _expression(self, tree: ast.expr) -> str:
        if isinstance(tree, ast.Constant):
            return self.put(np.array(tree.value, np.int64))
        if isinstance(tree, ast.Name):
            tensor, axis = self.sizes[tree.id]
            shape = self._once(("shape", tensor), lambda: self.node("Shape", tensor))
            return self.node("Gather", shape, self.put(np.array(axis, np.int64)), axis=0)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.node("Neg", self.side(ast.unparse(tree.operand)))
        if isinstance(tree, ast.BinOp):
            op = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}[type(tree.op)]
            return self.node(op, *(self.side(ast.unparse(part)) for part in (tree.left, tree.right)))
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            parts = [self.side(ast.unparse(part)) for part in tree.args]
            if tree.func.id in ("max", "min"):
                return self.node(tree.func.id.capitalize(), *parts)
            if tree.func.id == "mod":  # of the sign of the divisor, as in Python
                return self.node("Mod", *parts)
            if tree.func.id == "floordiv":  # ONNX divides towards zero
                rest = self.node("Mod", *parts)
                return self.node("Div", self.node("Sub", parts[0], rest), parts[1])
        raise Unsupported(f"a size of the form {ast.unparse(tree)}")

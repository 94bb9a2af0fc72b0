"""The file of ONNX: the graph of the whole program with its inputs, outputs and what it says about itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import jax
import numpy as np
import onnx
from onnx import helper

import jaxseg
from jaxseg.errors import ConfigError, first_line
from jaxseg.export.program import Program, deciding_sizes, image_of_any_size
from jaxseg.export.to_onnx.graph import Graph, Unsupported, Value, identity, onnx_type
from jaxseg.export.to_onnx.walk import translate
from jaxseg.nn.ops.forms import traced_for

OPSET = 18
_LARGEST = 2**31 - 1  # bytes, of any message of Protocol Buffers


def prepare(
    program: Program,
    channels: int,
    about: Mapping[str, Any],
    dtype: str = "uint8",
    *,
    images: Sequence[np.ndarray] = (),
) -> Callable[[BinaryIO], Any]:
    """Returns what writes a program for images [b,h,w,channels] of any b, h and w to a file, with `about` inside.

    `dtype` is that of the images. With images u8[h,w,channels], the network computes in whole numbers of 8 bits, whose
    range these show.

    Raises:
        ConfigError: if an operation has no translation, the network chooses its layers by the size of the image, or
            the file would be larger than the format allows.
    """
    model = convert(program, channels, about, dtype)
    if images:
        from jaxseg.export.to_onnx.quantised import quantised

        model = quantised(model, images)
    content = serialized(model)
    return lambda file: file.write(content)


def convert(program: Program, channels: int, about: Mapping[str, Any], dtype: str = "uint8") -> onnx.ModelProto:
    """Returns the checked model of a program; see `prepare`."""
    image = image_of_any_size(channels, dtype)
    with deciding_sizes(), traced_for("plain"):
        jaxpr, shapes = jax.make_jaxpr(program, return_shape=True)(image)
    sizes = {str(side): ("image", axis) for axis, side in enumerate(image.shape[:3])}
    graph = Graph(sizes)
    given = Value(image.shape, image.dtype, "image", None, identity(4))
    try:
        results = translate(graph, jaxpr.jaxpr, jaxpr.consts, [given])
    except Unsupported as error:
        raise ConfigError(f"The export to ONNX has no translation of {error}.") from error
    names = sorted(shapes)  # a dictionary's leaves come in the order of its keys
    outputs = []
    for name, value in zip(names, results, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.full(value)], [name], name=name))
        sides = ["b", "h", "w", *value.shape[3:]]
        outputs.append(helper.make_tensor_value_info(name, onnx_type(value.dtype), sides))
    nodes = used_nodes(graph.nodes, names)
    read = {name for node in nodes for name in _read_by(node)}
    initializers = [tensor for tensor in graph.initializers if tensor.name in read]
    entry = helper.make_tensor_value_info("image", onnx_type(image.dtype), ["b", "h", "w", channels])
    whole = helper.make_graph(nodes, f"{about['model']}", [entry], outputs, initializers)
    model = helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="jaxseg",
        producer_version=jaxseg.__version__,
    )
    helper.set_model_props(model, {key: _text(value) for key, value in about.items()})
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """Returns the bytes of a model, which ONNX's own checker accepts.

    Raises:
        ConfigError: if it has 2 GB or more.
    """
    if model.ByteSize() > _LARGEST:
        raise ConfigError(
            f"The network has {model.ByteSize() / 1e9:.1f} GB, and a file of ONNX holds at most 2; write a .stablehlo."
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConfigError(f"The translation to ONNX is no valid model: {first_line(error)}.") from error
    return model.SerializeToString()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def used_nodes(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """Returns the nodes that the outputs need, in order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(_read_by(node))
            kept.append(node)
    return kept[::-1]


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Returns the names that a node reads, those that its branches read from around them included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = [_read_by(each) for each in attribute.g.node]
            names.update(*inner, [output.name for output in attribute.g.output])
    return names

"""What a program lowered for another platform holds; lowering needs no device of the platform and compiles nothing."""

import re

_PRODUCT = re.compile(r"stablehlo\.(?:convolution|dot_general)\b.* : \(tensor<([^>]*)>, tensor<([^>]*)>\) -> ")
_TRANSPOSE = re.compile(r"stablehlo\.transpose\b.*dims = \[([\d, ]*)\].* : \(tensor<([^>]*)>\) -> ")
_HOST = re.compile(r"stablehlo\.(?:infeed|outfeed|send|recv)\b")


def products(program: str) -> list[tuple[str, str]]:
    """Returns the dtypes of both operands, such as ("bf16", "f32"), of each convolution and product of matrices."""
    return [(left.rpartition("x")[2], right.rpartition("x")[2]) for left, right in _PRODUCT.findall(program)]


def transposes(program: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns the order of axes and the shape of each operand that is transposed."""
    return [
        (tuple(map(int, order.split(","))), tuple(map(int, operand.split("x")[:-1])))
        for order, operand in _TRANSPOSE.findall(program)
    ]


def exchanges_with_the_host(program: str) -> list[str]:
    """Returns the operations by which the program waits for the host while it runs."""
    return _HOST.findall(program)

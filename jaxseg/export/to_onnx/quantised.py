"""int8: the convolutions and products of a model of ONNX on whole numbers of 8 bits, by onnxruntime's quantisation."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

OPERATIONS = ("Conv", "MatMul")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps onnxruntime from advising a preparation, which has nothing to do for these models."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Images(CalibrationDataReader):
    """Gives u8[h,w,c] images one by one, as batches of one."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._left: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def quantised(model: onnx.ModelProto, images: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Returns the model with weights of 8 bits, and values between the layers of 8 bits whose range `images` show.

    Weights have a scale for each output channel. They keep 7 of the 8 bits, so that sums do not overflow on
    processors without instructions for products of bytes. What is before the network and behind its logits stays as it
    was.

    Args:
        model: of `model.convert`, in float32.
        images: u8[h,w,c] each; some dozens of those that the network is to segment.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        with _without_advice():
            quantize_static(
                source,
                target,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATIONS),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        result = onnx.load(target)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return result

"""Says, while a program is traced, how it will be compiled: `nn.ops` chooses the forms of its convolutions by it.

A function of `nn.ops` cannot see the compiler options of the program that it becomes part of. `compiler.jit`, which
gives the options, traces the program inside `traced_for`. Any form gives the right numbers under any options; only the
time depends on the choice.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Literal, TypeAlias

# "usual": the forms for any device, with those of `nn.ops.conv_stride1` on a CPU. "strips": those of
# `nn.ops.conv_strips`, measured on CPUs with jax 0.12. "onednn": the same, and XLA calls oneDNN where that is faster.
# "plain": each convolution is one convolution, each pooling one reduction over windows, on all devices; for a program
# that is translated into another language (`export.to_onnx`), and for images that are split by rows over devices, where
# XLA exchanges the rows at the edges for these operations, and gathers whole images for some of the other forms.
Forms: TypeAlias = Literal["usual", "strips", "onednn", "plain"]


class _Tracing(threading.local):
    forms: Forms = "usual"
    may_call_cudnn: bool = True


_tracing = _Tracing()


def convolution_forms() -> Forms:
    """Returns the forms that the convolutions of the program that is being traced are to take; "usual" by default."""
    return _tracing.forms


def may_call_cudnn() -> bool:
    """Returns whether the attention of the program that is being traced may be a call of cuDNN; True by default."""
    return _tracing.may_call_cudnn


@contextlib.contextmanager
def traced_for(forms: Forms, cudnn: bool = True) -> Iterator[None]:
    """Sets what `convolution_forms` and `may_call_cudnn` return inside the `with` block, in this thread."""
    before = _tracing.forms, _tracing.may_call_cudnn
    _tracing.forms, _tracing.may_call_cudnn = forms, cudnn
    try:
        yield
    finally:
        _tracing.forms, _tracing.may_call_cudnn = before

"""StableHLO: a program that `jax.export` stores and JAX alone runs, on CPUs, NVIDIA GPUs and TPUs."""

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import jax
from jax import export

from jaxseg.export.program import Program, deciding_sizes, image_of_any_size
from jaxseg.nn.ops.forms import traced_for

PLATFORMS = ("cpu", "cuda", "tpu")
_CANONICAL = "jax_hlo_source_file_canonicalization_regex"
PROGRAM, ABOUT = "program", "jaxseg.json"  # the names inside the file, which is a ZIP archive


def prepare(
    program: Program, channels: int, about: Mapping[str, Any], dtype: str = "uint8"
) -> Callable[[BinaryIO], Any]:
    """Returns what writes a program for images [b,h,w,channels] of any b, h and w to a file, with `about` beside it.

    `dtype` is that of the images.

    Raises:
        ConfigError: if the network chooses its layers by the size of the image.
    """

    def segment(image: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(program(image).values())

    with deciding_sizes(), _files_without_folders(), traced_for("usual", cudnn=False):
        exported = export.export(jax.jit(segment), platforms=PLATFORMS)(image_of_any_size(channels, dtype))
    content = bytes(exported.serialize())

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(ABOUT, json.dumps(about, indent=1))
            archive.writestr(PROGRAM, content)

    return write


@contextlib.contextmanager
def _files_without_folders() -> Iterator[None]:
    """Leaves the folders of this machine out of the places in the source that a program notes for each operation."""
    before = jax.config.values[_CANONICAL]
    jax.config.update(_CANONICAL, ".*/")
    try:
        yield
    finally:
        jax.config.update(_CANONICAL, before)

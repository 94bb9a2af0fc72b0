"""StableHLO: a program that `jax.export` stores and JAX alone runs, on CPUs, NVIDIA GPUs and TPUs."""

import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import jax
from jax import export

from jaxseg.export.program import Program, deciding_sizes, image_of_any_size

PLATFORMS = ("cpu", "cuda", "tpu")
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

    with deciding_sizes():
        exported = export.export(jax.jit(segment), platforms=PLATFORMS)(image_of_any_size(channels, dtype))
    content = bytes(exported.serialize())

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(ABOUT, json.dumps(about, indent=1))
            archive.writestr(PROGRAM, content)

    return write

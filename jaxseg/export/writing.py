"""From a run to a file: what is exported, what the file says about itself, and which files it may replace."""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import jax
import numpy as np

import jaxseg
from jaxseg import models
from jaxseg.arguments import Size, check_value, expanded
from jaxseg.build import make_model
from jaxseg.config import update
from jaxseg.data import make_source
from jaxseg.errors import ArgumentError, ConfigError, OutOfMemoryError, is_out_of_memory
from jaxseg.export import stablehlo
from jaxseg.export.program import make_program
from jaxseg.export.tiled import Tiles, make_tiles
from jaxseg.files import write_atomically
from jaxseg.inference.fitting import stride_of
from jaxseg.inference.folded import fold_run
from jaxseg.inference.networks import Member
from jaxseg.inference.tiles import TilesLike, parse_tiles
from jaxseg.nn.quantisation import without_quantised_inputs
from jaxseg.run.load import Run, require_single
from jaxseg.state import by_path
from jaxseg.types import PyTree

Format: TypeAlias = Literal["stablehlo", "onnx"]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
FORMATS: dict[str, str] = {"stablehlo": ".stablehlo", "onnx": ".onnx"}
"""The formats, with the suffix of their files."""
CALIBRATION = 32  # images, whose values set the ranges of int8
_HEAD = 128  # bytes; both formats name the program that wrote them in the first ones


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that `export_run` has written.

    Attributes:
        path: the file.
        format: "stablehlo" or "onnx".
        bytes: its size.
        about: what the file says about itself, see `about_run`.
    """

    path: Path
    format: Format
    bytes: int
    about: Mapping[str, Any]


def export_run(
    run: Run,
    file: str | Path,
    *,
    format: Format | None = None,
    probabilities: bool = False,
    size: tuple[int, ...] | None = None,
    tiles: TilesLike = None,
    overlap: float = 0.5,
    dtype: Dtype | None = None,
) -> Exported:
    """Writes the whole path from an image to its classes to one file.

    The program takes `image` u8[b,h,w,c] of any batch, height and width, with the channels of the run, and returns
    `classes` u8[b,h,w] and, if requested, `probabilities` f32[b,h,w,k]: what `run.predict` gives for each image. With
    `data.range` the image is f32, the values that files hold. Batch norms are folded into the convolutions before them.

    Args:
        run: from `jaxseg.load`.
        file: where it is written; a file that an export has not written is not replaced.
        format: "stablehlo" or "onnx"; None: by the suffix of `file`.
        probabilities: whether the program returns the probabilities too.
        size: for a network whose layers depend on the size of the image, trained with data.fit=crop: (height, width)
            that the program resizes every image to before the network, and the logits back after it.
        tiles: the height and width of the tiles in which the network sees every image at its own scale, (256, 512),
            "256x512" or 256 for both; None: it sees the whole image. An image smaller than a tile is extended to one.
        overlap: the share of a tile's side that it has in common with the next, in [0, 1).
        dtype: what the network computes in. "float32"; "float16", with kernels of half the size; "int8", for ONNX,
            with ranges that images of the validation split show. None: as the run, with ONNX float32.

    Raises:
        ArgumentError: for an unknown format, or a wrong size, tiles or overlap.
        ConfigError: if the network makes images or cannot be exported, the file is not one of an export, its suffix
            is that of another format, it cannot be written, or the package of the format is not installed.
        OutOfMemoryError: if there is too little memory.
    """
    require_single(run, "An export")
    path = expanded(check_value("file", file, str | Path))
    form = _format(path, format)
    _check(run, path, size)
    dtype = _dtype(run, form, dtype)
    cut = _tiles(run, tiles, overlap, size, dtype)
    about = {**about_run(run, size, cut), "dtype": dtype}
    prepare = _preparation(form, run, dtype)
    model, state = fold_run(_in_float32(run) if dtype == "int8" else _computing_in(run, dtype))
    variables = _with_half_kernels(state.variables) if dtype == "float16" else state.variables
    program = make_program(run.parts, model, variables, probabilities=probabilities, size=size, tiles=cut)
    try:
        write = prepare(program, run.config.data.channels, about, dtype=about["image_type"])
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"The export of {run.workdir} does not fit into the memory.") from error
    try:
        write_atomically(path, write)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    return Exported(path, form, path.stat().st_size, about)


def _preparation(form: Format, run: Run, dtype: Dtype) -> Callable[..., Callable[[BinaryIO], Any]]:
    """Returns the function(program, channels, about) of a format that returns what writes the file."""
    if form == "stablehlo":
        return stablehlo.prepare
    for package in ("onnx", "onnxruntime") if dtype == "int8" else ("onnx",):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"This export needs the package {package}: pip install -e '.[export]'.")
    prepare = importlib.import_module("jaxseg.export.to_onnx.model").prepare
    return functools.partial(prepare, images=_some_images(run)) if dtype == "int8" else prepare


def _some_images(run: Run) -> list[np.ndarray]:
    """Returns images u8[h,w,c] of the validation split, evenly chosen."""
    source = make_source(run.config, run.config.data.val_split)
    chosen = np.unique(np.linspace(0, len(source) - 1, CALIBRATION).astype(int))
    images = [source[int(i)]["image"] for i in chosen]
    if any(image.dtype != np.uint8 for image in images):
        raise ConfigError("dtype int8 needs images of 8 bits a channel in the validation split; give float16.")
    return images


def _computing_in(run: Run, dtype: str) -> Run:
    """Returns the run with a network that computes in a dtype."""
    if run.config.dtype == dtype:
        return run
    config = run.config.copy_and_resolve_references()
    update(config, dtype=dtype)
    parts = dataclasses.replace(run.parts, config=config, model=make_model(config, run.num_classes))
    return dataclasses.replace(run, parts=parts)


def _in_float32(run: Run) -> Run:
    """Returns the run with a network that computes in float32, whose inputs onnxruntime turns into whole numbers."""
    run = _computing_in(run, "float32")
    model = without_quantised_inputs(run.model)
    return dataclasses.replace(run, parts=dataclasses.replace(run.parts, model=model))


def _with_half_kernels(variables: PyTree) -> PyTree:
    """Returns the variables with kernels in float16; biases, norms and statistics stay float32."""

    def half(path: Any, x: Any) -> Any:
        return np.asarray(x, np.float16) if path[-1].key == "kernel" else x

    return jax.tree_util.tree_map_with_path(half, variables)


def _tiles(run: Run, tiles: TilesLike, overlap: float, size: tuple[int, ...] | None, dtype: Dtype) -> Tiles | None:
    """Returns the tiles of a program, whose beginnings suit the strides of the network."""
    sides = parse_tiles(tiles)
    if sides is None:
        return None
    if sides == "auto":
        raise ArgumentError("tiles must be the height and width of a tile here, such as 512x512, not auto.")
    if size is not None:
        raise ArgumentError("tiles and size exclude each other: the network sees tiles, or images resized to one size.")
    if dtype == "int8":
        raise ConfigError(
            "onnxruntime does not turn a network inside a loop over tiles into whole numbers; leave tiles out, or give "
            "dtype float16."
        )
    return make_tiles((sides[0], sides[1]), overlap, stride_of(Member(run.parts, run.model), run.variables))


def _dtype(run: Run, form: Format, given: Dtype | None) -> Dtype:
    if given is None:
        return check_value("dtype", "float32" if form == "onnx" else run.config.dtype, Dtype)
    check_value("dtype", given, Dtype)
    if form == "stablehlo" and given == "int8":
        raise ConfigError("dtype int8 is one of ONNX; a .stablehlo computes in float32, bfloat16 or float16.")
    if form == "onnx" and given == "bfloat16":
        raise ConfigError("Few programs compute ONNX in bfloat16; give dtype float16 or float32, or a .stablehlo.")
    return given


def _format(path: Path, given: Format | None) -> Format:
    suffixes = {suffix: name for name, suffix in FORMATS.items()}
    if given is not None:
        check_value("format", given, Format)
    by_suffix = suffixes[path.suffix.lower()] if path.suffix.lower() in suffixes else None
    if by_suffix is None:
        known = " or ".join(f"{suffix} ({name})" for name, suffix in FORMATS.items())
        raise ConfigError(f"{path} has an unknown suffix; the file of an export ends in {known}.")
    if given is not None and given != by_suffix:
        raise ConfigError(f"{path} ends in the suffix of {by_suffix}; a file of {given} ends in {FORMATS[given]}.")
    return check_value("format", by_suffix, Format)


def _check(run: Run, path: Path, size: tuple[int, ...] | None) -> None:
    config = run.config
    if models.can_generate(run.model):
        raise ConfigError(
            f"{config.model.name} makes images from noise; an export is of a network that segments images."
        )
    if size is not None:
        check_value("size", size, Size)
        if config.data.fit == "resize":
            h, w = config.data.size
            raise ConfigError(f"The run resizes images to data.size ({h}x{w}) before the network; leave size out.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not is_ours(path):
        raise ConfigError(f"{path} exists and is no file of an export; give another name, or remove it first.")


def is_ours(path: Path) -> bool:
    """Returns whether an export has written a file; raises ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return b"jaxseg" in file.read(_HEAD)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error


def about_run(run: Run, size: tuple[int, ...] | None = None, tiles: Tiles | None = None) -> dict[str, Any]:
    """Returns what a file says about itself: where it comes from, and what the classes are called and drawn in."""
    config = run.config
    fixed = (tuple(config.data.size) if config.data.fit == "resize" else size) if tiles is None else None
    return {
        "program": "jaxseg",
        "version": jaxseg.__version__,
        "model": config.model.name,
        "step": run.step,
        "which": run.which,
        "classes": list(run.classes),
        "colors": [list(map(int, color)) for color in run.colors],
        "values": list(map(int, run.values)),
        "multilabel": run.parts.loss.multilabel,
        "channels": config.data.channels,
        "image_type": "float32" if config.data.range else "uint8",
        "range": list(map(float, config.data.range)),
        "resized_to": None if fixed is None else list(map(int, fixed)),
        "tiles": None if tiles is None else list(tiles.size),
        "steps": None if tiles is None else list(tiles.step),
        "multiple": (1 if fixed is not None else config.eval.multiple) if tiles is None else tiles.multiple,
        "parameters_sha256": checksum(run.variables),
    }


def checksum(variables: PyTree) -> str:
    """Returns the SHA-256 of all parameters and statistics, with their names, shapes and types, in order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(by_path(variables).items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

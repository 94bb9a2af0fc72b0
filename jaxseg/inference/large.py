"""Segments TIFF files that do not fit into memory: read, segmented and written by parts, and resumed after a kill."""

import contextlib
import dataclasses
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.bands import tiff_size
from jaxseg.data.images import read_header
from jaxseg.data.pages import is_tiff
from jaxseg.data.rasters import TiffRaster, open_raster, write_labels
from jaxseg.errors import DataError
from jaxseg.files import locked, read_json, write_atomically, write_text
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.tiles import Grid, strips
from jaxseg.types import ignore_in

LARGE = 2**26
"""The number of pixels from which a TIFF file is read by parts."""
_SAVE_EVERY = 10.0  # seconds between the saves of what is done
_PREVIEW = 2048  # the longer side of the picture of a large image


class BusyError(DataError):
    """Another process writes the classes of the same image."""


@dataclass(frozen=True)
class LargeResult:
    """What was found in a large image.

    Attributes:
        size: (h, w) of the image.
        counts: i64[k], the pixels of each class.
        resumed: the share of the image in [0, 1] that an earlier call had finished.
        preview: u8[y,x,c] of the image, reduced so that its longer side is at most 2048 pixels.
        preview_classes: u8[y,x] of the classes there.
    """

    size: tuple[int, int]
    counts: np.ndarray
    resumed: float
    preview: np.ndarray
    preview_classes: np.ndarray


def is_large(path: Path) -> bool:
    """Returns whether a file is TIFF of at least `LARGE` pixels."""
    if path.suffix.lower() not in (".tif", ".tiff") or not is_tiff(path):
        return False
    try:
        height, width = read_header(path, paged=True)[:2]
    except DataError:  # Pillow does not open it, or not at this size
        try:
            height, width = tiff_size(path, paged=True)
        except DataError:
            return False
    return height * width >= LARGE


def segment_large(
    predictor: Predictor,
    path: Path,
    out: Path,
    *,
    colors: Sequence[Sequence[int]] | None,
    values: Sequence[int] = (),
    software: str = "",
    identity: str = "",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> LargeResult:
    """Segments a TIFF file and writes its classes u8|u16[h,w] to `out`, a TIFF file of compressed tiles.

    The tags that say where on the earth the image lies are copied. What is finished is kept in two hidden files beside
    `out`, so that the same call continues after a kill; they are removed at the end.

    Args:
        predictor: cuts the image into tiles.
        path: the image.
        out: the file of classes; it is written atomically.
        colors, values, software: see `rasters.write_labels`.
        identity: says which networks are used; finished parts of others are not continued.
        progress: called with the numbers of finished tiles and of all tiles.

    Raises:
        DataError: if the image is damaged or of another form, or a reader is not installed.
        BusyError: if another process writes the same file.
        OSError: if a file cannot be written; the space on the disk is reserved before anything is computed.
        OutOfMemoryError: if even one tile does not fit into memory.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_raster(path, predictor.networks.channels, predictor.networks.limits) as raster:
        grid = predictor.grid_for(raster, whole=False, probabilities=False)
        assert grid is not None
        narrow = np.dtype(predictor.networks.label_type)
        part = _Part.beside(out, grid, _fingerprint(path, predictor, grid, identity), narrow)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(part.lock, wait=False))
            except BlockingIOError:
                raise BusyError(f"Another process writes {out} at the moment; give another --out.") from None
            return _segment(predictor, raster, grid, part, out, colors, values, software, progress)


def _segment(
    predictor: Predictor,
    raster: TiffRaster,
    grid: Grid,
    part: "_Part",
    out: Path,
    colors: Sequence[Sequence[int]] | None,
    values: Sequence[int],
    software: str,
    progress: Callable[[int, int], object],
) -> LargeResult:
    columns, done = part.progress(predictor.columns(raster, grid))
    labels = part.open(done)
    blocks = len(grid.tops) * len(strips(grid, columns))
    resumed, finished, saved = done / blocks, 0, time.monotonic()

    def count(tiles: int) -> None:
        nonlocal finished
        finished += tiles
        progress(min(finished, len(grid)), len(grid))

    for block, classes, _ in predictor.blocks(raster, grid, columns=columns, done=done, progress=count):
        h, w = classes.shape
        labels[block.top : block.top + h, block.left : block.left + w] = classes
        if time.monotonic() - saved > _SAVE_EVERY:
            part.save(labels, columns, block.number + 1)
            saved = time.monotonic()
    counts = np.zeros(ignore_in(labels) + 1, np.int64)
    for top in range(0, grid.size[0], grid.tile[0]):
        counts += np.bincount(np.asarray(labels[top : top + grid.tile[0]]).ravel(), minlength=len(counts))
    step = -(-max(grid.size) // _PREVIEW)
    preview = _reduced(raster, step, grid.tile[0])
    small = np.array(labels[::step, ::step])
    write_atomically(
        out,
        lambda file: write_labels(file, labels, colors, values=values, tags=raster.tags, software=software),
    )
    part.remove()
    classes = max(2, predictor.networks.num_classes)
    return LargeResult((grid.size[0], grid.size[1]), counts[:classes], resumed, preview, small)


def _reduced(raster: TiffRaster, step: int, rows: int) -> np.ndarray:
    """Returns each `step`-th pixel of an image, read `rows` rows at a time."""
    (h, w, _), rows = raster.shape, -(-rows // step) * step
    # Copied: a view would keep all rows that were read.
    parts = [
        raster.read(slice(top, min(top + rows, h)), slice(0, w))[::step, ::step].copy() for top in range(0, h, rows)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Part:
    """The unfinished classes of an image on the disk.

    Attributes:
        labels: the file of classes, u8[h,w] or u16[h,w] without a header.
        record: a JSON file that says how many blocks of them are finished, and of what.
        lock: held while a process writes them.
        size: (h, w).
        of: identifies the image, the networks and the tiles.
        type: of a class.
    """

    labels: Path
    record: Path
    lock: Path
    size: tuple[int, int]
    of: str
    type: np.dtype

    @classmethod
    def beside(cls, out: Path, grid: Grid, of: str, narrow: np.dtype) -> "_Part":
        stem = f".{hashlib.sha256(out.name.encode()).hexdigest()[:16]}"
        labels, record, lock = (out.with_name(stem + end) for end in (".classes", ".classes.json", ".classes.lock"))
        return cls(labels, record, lock, (grid.size[0], grid.size[1]), of, narrow)

    @property
    def _bytes(self) -> int:
        return self.size[0] * self.size[1] * self.type.itemsize

    def progress(self, columns: int) -> tuple[int, int]:
        """Returns the columns of a strip (`columns` at the start) and the blocks that an earlier call has finished."""
        try:
            record = read_json(self.record)
            if record["of"] == self.of and self.labels.stat().st_size == self._bytes:
                return int(record["columns"]), int(record["done"])
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or a kill cut it short
            pass
        return columns, 0

    def open(self, done: int) -> np.memmap:
        """Returns the classes [h,w], memory-mapped."""
        if not done:
            self.record.unlink(missing_ok=True)  # it may be of other networks, and would be believed after a kill
            # Reserved at once: a full disk would kill a process that writes to a memory-mapped file.
            with self.labels.open("wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, self._bytes)
                except OSError:
                    self.labels.unlink(missing_ok=True)
                    raise
        return np.memmap(self.labels, self.type, "r+", shape=self.size)

    def save(self, labels: np.memmap, columns: int, done: int) -> None:
        labels.flush()
        if isinstance(labels.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            labels.base.madvise(mmap.MADV_DONTNEED)  # what is on the disk need not stay in memory
        write_text(self.record, json.dumps({"of": self.of, "columns": columns, "done": done}))

    def remove(self) -> None:
        self.record.unlink(missing_ok=True)
        self.labels.unlink(missing_ok=True)


def _fingerprint(path: Path, predictor: Predictor, grid: Grid, identity: str) -> str:
    """Returns text that differs where another image, other networks or other tiles would give other classes."""
    status = path.stat()
    tiling = {**dataclasses.asdict(predictor.tiling), "memory": None}
    parts: list[Any] = [str(path.resolve()), status.st_size, status.st_mtime_ns, identity, tiling, repr(grid)]
    parts.append(str(predictor.networks.views))
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

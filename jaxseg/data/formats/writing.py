"""Writes a collection as a folder of images and masks, whole or not at all, with a list of what is not in it."""

import contextlib
import csv
import errno
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from jaxseg.data.batching import cores
from jaxseg.data.classes_file import FILE, classes_text
from jaxseg.data.formats.collection import Collection, Lost, Sample
from jaxseg.data.images import read_header
from jaxseg.errors import ConfigError, DataError, printable
from jaxseg.files import write_text

NOT_CONVERTED = "not-converted.csv"
UNLABELLED = "unlabelled"

_OF_ONE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)  # the next file can be written


@dataclass
class Written:
    """images: how many have labels, by split ("" for none). unlabelled: how many have none. lost: the rest."""

    images: Counter = field(default_factory=Counter)
    unlabelled: int = 0
    lost: list[Lost] = field(default_factory=list)


@contextlib.contextmanager
def whole_folder(path: Path, what: str) -> Iterator[Path]:
    """Gives a new folder beside `path`, which is moved there after the body, and removed if it raises.

    Args:
        path: a folder that does not exist or is empty.
        what: the option or argument that names it, for the message.

    Raises:
        ConfigError: if no folder can be made there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be written: {error.strerror or error}.") from error
    try:
        yield part
        os.sync()
        part.chmod(0o755)  # that of a new folder; a temporary one is its owner's alone
        part.replace(path)  # an empty folder that is there gives way
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_collection(collection: Collection, folder: Path) -> Written:
    """Writes images/, masks/ (in folders of the splits), unlabelled/, classes.json and not-converted.csv.

    An image or a label that cannot be read is listed, and neither of the two is written. So is an image whose name
    leads out of the folder, or is that of another or no name for a file, whatever form gave it.

    Args:
        collection: what to write.
        folder: an empty folder.

    Raises:
        DataError: if none of the images could be converted.
        OSError: if a file cannot be written.
    """
    samples, twice = _once(collection.samples)
    written = Written(lost=[*collection.lost, *twice])
    with ThreadPoolExecutor(cores()) as pool:
        for sample, lost in pool.map(lambda sample: (sample, _write(sample, folder)), samples):
            written.lost += lost or ()
            if lost is None or not any(entry.what == "image" for entry in lost):
                if sample.label is None:
                    written.unlabelled += 1
                else:
                    written.images[sample.split] += 1
    if not written.images:
        first = f" {written.lost[0].file}: {written.lost[0].why}" if written.lost else ""
        raise DataError(f"None of the images of the form {collection.form} could be converted.{first}")
    write_text(folder / FILE, classes_text(collection.classes, collection.colors))
    if written.lost:
        write_text(folder / NOT_CONVERTED, _table(written.lost))
    return written


def _once(samples: Sequence[Sample]) -> tuple[list[Sample], list[Lost]]:
    """Returns the samples without those whose files would replace those of an earlier one.

    Nor is the file of a labelled image written into a second split.
    """
    first: dict[tuple[str, str], Sample] = {}
    splits: dict[Path, str] = {}
    lost = []
    for sample in samples:
        if isinstance(sample.image, Path) and sample.label is not None:
            before = splits.setdefault(sample.image.resolve(), sample.split)
            if before != sample.split:
                why = f"It is in {before} already; it would be in {sample.split} as well."
                lost.append(Lost(sample.origin, "image", why))
                continue
        name = str(PurePosixPath(sample.name))
        place = UNLABELLED if sample.label is None else sample.split, name.casefold()
        if (before := first.setdefault(place, sample)) is not sample:
            same = str(PurePosixPath(before.name)) == name
            how = "has the same name up to the suffix" if same else "has a name that differs in capitals alone"
            end = "" if same else " Where file systems make no difference the two are one file: rename one."
            lost.append(Lost(sample.origin, "image", f"{before.origin} {how}, and is converted in its place.{end}"))
    return list(first.values()), lost


def _write(sample: Sample, folder: Path) -> tuple[Lost, ...]:
    name = PurePosixPath(sample.name)
    if name.is_absolute() or ".." in name.parts:
        return (Lost(sample.origin, "image", f"Its name {sample.name[:200]!r} leads out of the folder."),)
    part = folder / UNLABELLED if sample.label is None else folder / sample.split
    images = part if sample.label is None else part / "images"
    file: Path | None = None
    try:
        drawn = sample.label() if sample.label is not None else None
        file = _write_image(sample, images)
        header = read_header(file)
        if drawn is None:
            return ()
        height, width = drawn.label.shape
        if (header.height, header.width) != (height, width):
            raise DataError(
                f"The label of {sample.origin} is {height} x {width} (height x width), but the image is "
                f"{header.height} x {header.width}."
            )
        _save(drawn.label, part / "masks" / f"{sample.name}.png")
        return drawn.lost
    except DataError as error:
        why = str(error)
    except OSError as error:
        if error.errno not in _OF_ONE_NAME:
            raise
        why = f"Its name {sample.name[:60]!r} cannot be that of a file here ({error.strerror})."
    if file is not None:
        file.unlink(missing_ok=True)
    return (Lost(sample.origin, "image", why),)


def _write_image(sample: Sample, folder: Path) -> Path:
    picture = sample.image if isinstance(sample.image, Path) else sample.image()
    if isinstance(picture, np.ndarray):
        file = folder / f"{sample.name}.png"
        if picture.dtype == np.uint16 and picture.shape[-1] > 1:
            raise DataError(f"{sample.origin} has 16-bit colours, which are not written; save it as a file of its own.")
        _save(picture[..., 0] if picture.shape[-1] == 1 else picture, file)
        return file
    suffix = picture.suffix if isinstance(picture, Path) else picture[1]
    file = folder / f"{sample.name}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Path):
        try:
            shutil.copyfile(picture, file)
        except PermissionError as error:
            raise DataError(f"{picture} cannot be read: {error.strerror}.") from error
    else:
        file.write_bytes(picture[0])
    return file


def _save(picture: np.ndarray, file: Path) -> None:
    """Writes a PNG file, without waiting for the disk: the folder is moved to its place when all is on it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")


def _table(lost: Sequence[Lost]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Lost._fields)
    rows.writerows([printable(cell) for cell in entry] for entry in lost)
    return text.getvalue()

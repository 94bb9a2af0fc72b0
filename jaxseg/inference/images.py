"""Segmenting image files: which files are meant, what their outputs are called, and writing these."""

import difflib
import glob
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from jaxseg import pictures
from jaxseg.arguments import expanded, located
from jaxseg.data.images import read_image, set_limit
from jaxseg.data.listing import SUFFIXES, is_hidden, leads_nowhere, list_images
from jaxseg.errors import ConfigError, DataError, OutOfMemoryError, counted, printable
from jaxseg.files import write_atomically
from jaxseg.inference.folded import segmenter_of
from jaxseg.inference.segment import Segmentation
from jaxseg.pictures import marks
from jaxseg.run.load import Run

MARK = "jaxseg predict"  # under "Software" in the pictures, so that no other file is replaced
_ARRAYS = {"probabilities", "classes"}  # those of NAME.npz
_LONGEST_STEM = 255 - len("-1234-overlay.png")  # bytes; file systems allow names of 255


def predict_files(
    run: Run,
    names: dict[Path, str],
    out: Path,
    probabilities: bool = False,
    values: Sequence[int] = (),
    *,
    with_colors: bool = False,
) -> int:
    """Segments image files and writes the outputs of each; prints which cannot be segmented, and returns how many.

    NAME.npz of an earlier call is removed where this call writes none, since it would not belong to the new pictures;
    a line says so, and another if pictures of an earlier call stay beside the name of an image that fails.

    Args:
        run: from `load_run`.
        names: {image: the NAME of its outputs}, from `name_outputs`.
        out: the folder of the outputs; it is made where it does not exist.
        probabilities: also write NAME.npz.
        values: the value of each class in NAME.png; empty: its index.
        with_colors: NAME.png holds the colour of each class, in place of an index with a palette.

    Raises:
        ConfigError: if `out` cannot be written.
    """
    segment, failed, removed, old = segmenter_of(run), 0, 0, 0
    for path, name in tqdm(names.items(), desc="predict", unit="image", disable=None):
        try:
            image = read_image(path, run.config.data.channels)
            result = segment(image, probabilities)
            indices = _labels_file(result.classes, run.colors, values or range(len(run.colors)))
            labels = indices.convert("RGB") if with_colors else indices
            removed += _write_outputs(run, image, result, out, name, labels)
        except (DataError, MemoryError) as error:  # an overlay, which numpy makes, may lack memory too
            failed += 1
            old += is_output(out / _files(name)[0])
            names_it = isinstance(error, DataError) or str(path) in str(error)
            text = str(error) if names_it else f"{path} cannot be segmented: {_reason(error)}."
            tqdm.write(f"error: {printable(text)}", file=sys.stderr)
    if removed:
        print(
            f"{counted(removed, 'file')} NAME.npz of an earlier call removed: --probabilities writes the present ones."
        )
    if old:
        print(f"The files of {old} of {counted(failed, 'failed image')} in {out} are those of an earlier call.")
    return failed


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OutOfMemoryError) else "the machine has too little memory for it"


def find_images(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Returns (the images that files, folders and globs name, each once, and a sentence for each that names none).

    A folder stands for the image files directly in it, a glob for the image files that it matches; `**` matches
    folders at any depth. Hidden files are left out of both.
    """
    found: dict[Path, Path] = {}
    problems = []
    for word in words:
        try:
            paths, wrong = _images_of(word)
        except OSError as error:
            paths, wrong = [], [f"{error.filename or word} cannot be read: {error.strerror or error}."]
        problems += wrong
        for p in sorted(paths):
            found.setdefault(p.resolve(), p)
    return list(found.values()), problems


def _images_of(word: str) -> tuple[list[Path], list[str]]:
    """Returns the images that one file, folder or glob names, and a sentence for each thing that is wrong there."""
    path, problems = expanded(word), []
    if path.is_dir():
        paths, problems = list_images(path, recursive=False)
        problem = f"The folder {word} has no images ({', '.join(SUFFIXES)}) directly in it."
    elif path.exists() or not glob.has_magic(word):
        paths = [path] if path.exists() else []
        problem = f"There is no file {located(path)}.{_nearest_file(path)}"
    else:
        matched = [Path(name) for name in glob.glob(str(path), recursive=True)]
        paths = [p for p in matched if _is_image(p, path.parts)]
        problems = [f"{p} is a link to a file that does not exist." for p in matched if leads_nowhere(p)]
        problem = f"The glob {word!r} matches no images ({', '.join(SUFFIXES)})."
    return paths, problems if paths else [*problems, problem]


def name_outputs(paths: Sequence[Path], out: Path, probabilities: bool = False) -> dict[Path, str]:
    """Returns {image: NAME}: its stem, or STEM-2, STEM-3, ... where the outputs of another image have that name.

    A stem is cut where the names of its outputs would be longer than file systems allow.

    Args:
        paths: the images.
        out: the folder of the outputs.
        probabilities: whether NAME.npz is written too.

    Raises:
        ConfigError: if an output would replace an image to segment, or a file that prediction did not write, such as a
            mask.
    """
    inputs = {path.resolve() for path in paths}
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = (stem := _cut(path.stem)), 1
        while any(file.lower() in taken for file in _files(name)):
            number += 1
            name = f"{stem}-{number}"
        for file in _files(name):
            if (out / file).resolve() in inputs:
                raise ConfigError(f"The output {out / file} would replace an image to segment; give another --out.")
            taken.add(file.lower())
        _require_own(out, name, path, probabilities)
        names[path] = name
    return names


def _require_own(out: Path, name: str, image: Path, probabilities: bool) -> None:
    """Raises ConfigError if there is a file under the name of an output that `_write_outputs` has not written.

    Earlier versions marked no overlay, and at first no picture of classes: such files count if they are the segments of
    this image and these laid over it.
    """
    set_limit()
    classes, overlay, arrays = (out / file for file in _files(name))
    own = {file for file in (classes, overlay) if is_output(file)}
    if overlay not in own and overlay.is_file() and _are_outputs_of(image, classes, overlay):
        own |= {classes, overlay}
    foreign = [file for file in (classes, overlay) if file.is_file() and file not in own]
    if probabilities and arrays.is_file() and not _holds_probabilities(arrays):
        foreign.append(arrays)
    if foreign:
        raise ConfigError(
            f"The output {foreign[0]} would replace a file that prediction did not write, such as a mask; give another "
            "--out."
        )


def _are_outputs_of(image: Path, classes: Path, overlay: Path) -> bool:
    """Returns whether `overlay` is the image with the classes laid over it, in the colours of their palette."""
    try:
        with Image.open(classes) as indices, Image.open(overlay) as picture:
            colors = indices.getpalette() if indices.mode == "P" else None
            if colors is None or picture.mode != "RGB" or picture.size != indices.size:
                return False
            labels, drawn = np.array(indices), np.array(picture).astype(int)
        values, places = np.unique(labels, return_inverse=True)  # a class may have the value 255, which is not ignored
        table = [tuple(colors[3 * value : 3 * value + 3]) or (0, 0, 0) for value in values.tolist()]
        labels = places.reshape(labels.shape).astype(np.uint8)
        laid = (pictures.overlay(read_image(image, channels), labels, table) for channels in (3, 1))
        return any(np.abs(each - drawn).max() <= 1 for each in laid)  # earlier versions rounded otherwise
    except (DataError, OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return False


def _holds_probabilities(file: Path) -> bool:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return set(archive.files) == _ARRAYS
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):  # no file of npz
        return False


def is_output(file: Path) -> bool:
    """Returns whether a picture has the mark of prediction."""
    set_limit()
    return file.is_file() and marks.software(file) == MARK


def _cut(stem: str) -> str:
    encoded = os.fsencode(stem)
    return stem if len(encoded) <= _LONGEST_STEM else encoded[:_LONGEST_STEM].decode(errors="ignore")


def _files(name: str) -> tuple[str, str, str]:
    return f"{name}.png", f"{name}-overlay.png", f"{name}.npz"


def _write_outputs(
    run: Run, image: np.ndarray, result: Segmentation, out: Path, name: str, labels: Image.Image
) -> bool:
    """Writes the outputs of one image, each file atomically; `labels` is the picture of its classes.

    Returns whether the probabilities of an earlier call were removed: those beside its picture of classes.
    """
    classes_file, overlay_file, probabilities_file = (out / file for file in _files(name))
    try:
        earlier = result.probabilities is None and probabilities_file.is_file() and is_output(classes_file)
        stale = earlier and _holds_probabilities(probabilities_file)
        out.mkdir(parents=True, exist_ok=True)
        pictures.save_image(labels, classes_file, software=MARK)
        pictures.save_image(pictures.overlay(image, result.classes, run.colors), overlay_file, software=MARK)
        if result.probabilities is not None:
            shares, classes = result.probabilities, np.array(run.classes)
            write_atomically(probabilities_file, lambda file: np.savez(file, probabilities=shares, classes=classes))
        if stale:
            probabilities_file.unlink()
        return stale
    except OSError as error:
        raise ConfigError(f"The outputs of {name} cannot be written to {out}: {error.strerror or error}.") from error


def _labels_file(classes: np.ndarray, colors: pictures.Colors, values: Sequence[int]) -> Image.Image:
    """Returns classes u8[h,w] as an image of the value of each class, with its colour where 8 bits hold all values."""
    if max(values) > 255:
        return Image.fromarray(np.array(values, np.uint16)[classes])
    palette = np.zeros((max(values) + 1, 3), np.uint8)
    palette[list(values)] = np.asarray(colors, np.uint8)
    image = Image.fromarray(np.array(values, np.uint8)[classes], "P")
    image.putpalette(palette.tobytes())
    return image


def _is_image(path: Path, named: Sequence[str]) -> bool:
    """Returns whether a file that a glob matches counts; `named`, the parts of the glob, may name hidden folders."""
    hidden = any(is_hidden(part) for part in path.parts if part not in (*named, "..", "."))
    return path.suffix.lower() in SUFFIXES and path.is_file() and not hidden


def _nearest_file(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.75)
    return f" Did you mean {path.parent / near[0]}?" if near else ""

"""Which image files are meant, and what their outputs are called."""

import difflib
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxseg.arguments import expanded, located
from jaxseg.data.listing import ARRAYS, SUFFIXES, is_hidden, leads_nowhere, list_images
from jaxseg.data.measured import is_image as is_image_array
from jaxseg.errors import ConfigError, counted, some
from jaxseg.inference.large import is_large
from jaxseg.inference.outputs import Outputs
from jaxseg.inference.regions.world import is_world_file
from jaxseg.inference.video import SUFFIXES as VIDEOS

_LONGEST_STEM = 255 - len("-1234-uncertainty.png")  # bytes; file systems allow names of 255


class Found(NamedTuple):
    """The images that are meant.

    Attributes:
        paths: each image once.
        problems: a sentence for each word that names none, and for each file that cannot be read.
        roots: {image: folder} of those that were found in a folder that was entered with its sub-folders.
        left_out: a sentence for each folder with files that are neither images nor videos.
    """

    paths: list[Path]
    problems: list[str]
    roots: dict[Path, Path]
    left_out: tuple[str, ...] = ()


def find_images(words: Sequence[str], recursive: bool = False, without: Path | None = None) -> Found:
    """Returns the images that files, folders and globs name.

    A folder stands for the image files directly in it, with `recursive` also for those in its sub-folders; a glob for
    the image files that it matches, where `**` matches folders at any depth. Hidden files are left out of both.
    Files in the folder `without`, that of the outputs, are left out of the sub-folders.
    """
    found: dict[Path, Path] = {}
    roots: dict[Path, Path] = {}
    problems: list[str] = []
    left_out: list[str] = []
    for word in words:
        try:
            paths, wrong = _images_of(word, recursive)
        except OSError as error:
            paths, wrong = [], [f"{error.filename or word} cannot be read: {error.strerror or error}."]
        problems += wrong
        left_out += _left_out(word, recursive, without) if paths else []
        entered = recursive and expanded(word).is_dir()
        for p in sorted(paths):
            if entered and without is not None and without.resolve() in p.resolve().parents:
                continue
            if entered and p.resolve() not in found:
                roots[p] = expanded(word)
            found.setdefault(p.resolve(), p)
    return Found(list(found.values()), problems, roots, tuple(left_out))


def _images_of(word: str, recursive: bool) -> tuple[list[Path], list[str]]:
    """Returns the images that one file, folder or glob names, and a sentence for each thing that is wrong there."""
    path, problems = expanded(word), []
    if path.is_dir():
        paths, problems = list_images(path, recursive=recursive, suffixes=(*SUFFIXES, *VIDEOS, *ARRAYS))
        paths = _without_results(paths)
        where = "in it or its sub-folders." if recursive else "directly in it; --recursive enters its sub-folders."
        problem = f"The folder {word} has no images or videos ({', '.join((*SUFFIXES, *VIDEOS))}) {where}"
    elif path.exists() or not glob.has_magic(word):
        paths = [path] if path.exists() else []
        problem = f"There is no file {located(path)}.{_nearest_file(path)}"
    else:
        matched = [Path(name) for name in glob.glob(str(path), recursive=True)]
        paths = _without_results([p for p in matched if _is_image(p, path.parts)])
        problems = [f"{p} is a link to a file that does not exist." for p in matched if leads_nowhere(p)]
        problem = f"The glob {word!r} matches no images or videos ({', '.join((*SUFFIXES, *VIDEOS))})."
    return paths, problems if paths else [*problems, problem]


def _left_out(word: str, recursive: bool, without: Path | None) -> list[str]:
    """Returns a sentence about the files in a folder that are neither images nor videos nor belong to some."""
    folder, out = expanded(word), without.resolve() if without is not None else None
    if not folder.is_dir():
        return []
    endings: list[str] = []
    for file in folder.rglob("*") if recursive else folder.iterdir():
        hidden = any(is_hidden(part) for part in file.relative_to(folder).parts)
        own = out is not None and (out in file.resolve().parents)
        ending = file.suffix.lower()
        read = ending in (*SUFFIXES, *VIDEOS) or (ending in ARRAYS and is_image_array(file))
        if file.is_file() and not (hidden or own or read or is_world_file(file)):
            endings.append(ending or "none")
    if not endings:
        return []
    kinds = some(sorted(set(endings)), 5)
    return [f"{counted(len(endings), 'file')} of other types ({kinds}) in {word} left out."]


def name_outputs(
    paths: Sequence[Path], outputs: Outputs, roots: Mapping[Path, Path] | None = None, suffixes: Sequence[str] = ()
) -> dict[Path, str]:
    """Returns {image: NAME}: its stem, or STEM-2, STEM-3, ... where the outputs of another image have that name.

    A stem is cut where the names of its outputs would be longer than file systems allow.

    Args:
        paths: the images.
        outputs: what is written for each.
        roots: {image: folder} of the images whose NAME begins with the folders between that folder and the image.
        suffixes: what follows NAME in further files.

    Raises:
        ConfigError: if an output would replace an image to segment, or a file that prediction did not write, such as a
            mask.
    """
    inputs = {path.resolve() for path in paths}
    names: dict[Path, str] = {}
    taken: set[str] = set()

    def files(name: str) -> list[str]:
        every = [f"{name}.png", f"{name}-overlay.png", f"{name}.npz", *(f"{name}{suffix}" for suffix in suffixes)]
        return [*every, *(str(file.relative_to(outputs.out)) for file in outputs.files(name).values())]

    for path in paths:
        within = path.parent.relative_to(roots[path]) if roots and path in roots else Path()
        stem = str(within / cut_stem(path.stem))
        name, number = stem, 1
        while any(file.lower() in taken for file in files(name)):
            number += 1
            name = f"{stem}-{number}"
        parts = [f"{name}.tif"] if is_large(path) else []
        for file in [*files(name), *parts]:
            if (outputs.out / file).resolve() in inputs:
                raise ConfigError(
                    f"The output {outputs.out / file} would replace an image to segment; give another --out."
                )
            taken.add(file.lower())
        outputs.require_own(name, path)
        names[path] = name
    return names


def cut_stem(stem: str) -> str:
    """Returns the stem of a file, cut where its outputs would have longer names than file systems allow."""
    encoded = os.fsencode(stem)
    return stem if len(encoded) <= _LONGEST_STEM else encoded[:_LONGEST_STEM].decode(errors="ignore")


def _is_image(path: Path, named: Sequence[str]) -> bool:
    """Returns whether a file that a glob matches counts; `named`, the parts of the glob, may name hidden folders."""
    hidden = any(is_hidden(part) for part in path.parts if part not in (*named, "..", "."))
    return path.suffix.lower() in (*SUFFIXES, *VIDEOS, *ARRAYS) and path.is_file() and not hidden


def _without_results(paths: Sequence[Path]) -> list[Path]:
    """Returns the files without those of NumPy that stand beside a picture of their name, or hold results."""
    pictures = {path.with_suffix("") for path in paths if path.suffix.lower() in SUFFIXES}
    arrays = {path for path in paths if path.suffix.lower() in ARRAYS}
    return [p for p in paths if p not in arrays or (p.with_suffix("") not in pictures and is_image_array(p))]


def _nearest_file(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.75)
    return f" Did you mean {path.parent / near[0]}?" if near else ""

"""Masks with one file for each class, or for each object of an image."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.data.formats.annotated import BACKGROUND, labels_of, require_known
from jaxseg.data.formats.collection import (
    Collection,
    Drawn,
    Lost,
    Options,
    Sample,
    settled,
    split_of_folders,
    split_of_words,
)
from jaxseg.data.images import read_header, read_image
from jaxseg.data.layout import is_split_name
from jaxseg.data.listing import list_images, name_in, sub_folders
from jaxseg.data.pairs import images_of
from jaxseg.errors import DataError, counted
from jaxseg.pictures import default_colors
from jaxseg.types import label_type

_OBJECT = "object"
_NAMED = re.compile(r"([A-Za-z][A-Za-z ]*?)[-_ ]*\d*")  # car, car_1, cell-02: the class, and a number
_HALF = 127  # of a mask with lossy compression, whose 0 is not quite 0


def read_objects(source: Path, options: Options) -> Collection:
    """Returns images with masks of one object or one class each, in any of these layouts (also inside train/, val/):

        ID/images/ID.png   ID/masks/*.png                  a folder for each image
        images/NAME.png    masks/NAME/*.png                a folder of masks for each image
        images/NAME.png    masks/CLASS/NAME.png            a folder of masks for each class

    In the first two, masks named as car_1.png are of the class "car" if all are named so, else all are objects. Of two
    masks, the smaller lies on the larger.

    Raises:
        ConfigError: if the masks have names, and `options.classes` another one.
        DataError: if the folder has none of these layouts.
    """
    found, lost = find_objects(source)
    if not found:
        raise DataError(
            f"{source} has no masks of single objects or classes; expected ID/images and ID/masks, or images/NAME.png "
            "with masks/NAME/*.png or masks/CLASS/NAME.png."
        )
    named = all(name for _, _, _, masks in found for name, _ in masks)
    names = sorted({name for _, _, _, masks in found for name, _ in masks}) if named else [_OBJECT]
    wanted = [name for name in options.classes if name != BACKGROUND]
    if not named and len(wanted) == 1:  # the name of all objects
        names = wanted
    if named:
        require_known(options, names, names, source)
    labels = labels_of(source, names, names, options)
    samples = []
    for split, name, image, masks in found:
        listed = [(labels.indices[n if named else names[0]], mask) for n, mask in masks]
        label = functools.partial(_label, image, listed, len(labels.classes), labels.outside)
        samples.append(Sample(split, name, str(image), image, label))
    kept, without = settled(samples)
    colors = default_colors(len(labels.classes))
    return Collection("masks of objects", kept, labels.classes, colors, (*lost, *labels.lost, *without))


def find_objects(source: Path) -> tuple[list[tuple[str, str, Path, list[tuple[str, Path]]]], list[Lost]]:
    """Returns (split, name, image, [(class or "", mask)]) of each image, and what has no image; [] of other layouts."""
    found, lost, skipped = [], [], []
    bases = [source, *(source / name for name in sub_folders(source) if is_split_name(name))] if source.is_dir() else []
    for base in bases:
        prefix = "" if base == source else f"{base.name}/"
        for name in sub_folders(base):
            inner = base / name
            images, masks = _files(inner / "images"), _files(inner / "masks")
            if len(images) == 1 and masks and not sub_folders(inner / "masks"):
                pairs = [(_class_of(path), path) for path in masks]
                found.append((split_of_words(prefix), f"{prefix}{name}", images[0], pairs))
            elif len(images) > 1 and masks:
                why = f"It has {counted(len(images), 'image')}, where one was expected."
                skipped.append(Lost(str(inner), "image", why))
        if (base / "images").is_dir() and (base / "masks").is_dir():
            more, alone = _beside(base, prefix)
            found, lost = found + more, lost + alone
    if found and not all(_is_named(masks) for _, _, _, masks in found):
        found = [(split, name, image, [("", path) for _, path in masks]) for split, name, image, masks in found]
    return found, lost + skipped if found else lost


def _beside(base: Path, prefix: str) -> tuple[list, list[Lost]]:
    """Returns what `find_objects` does, of masks/NAME/*.png and masks/CLASS/NAME.png."""
    pairs, problems = images_of(base / "images")
    images = {pair.name: pair.image for pair in pairs}
    folders = [name for name in sub_folders(base / "masks") if not is_split_name(name)]
    by_image: dict[str, list[tuple[str, Path]]] = {}
    lost = [Lost(str(base / "images"), "file", problem) for problem in problems]
    for folder in folders:
        for path in _files(base / "masks" / folder, recursive=True):
            name = name_in(base / "masks" / folder, path)
            if folder in images:
                by_image.setdefault(folder, []).append((_class_of(path), path))
            elif name in images:
                by_image.setdefault(name, []).append((folder, path))
            else:
                lost.append(Lost(str(path), "file", f"It belongs to none of the images in {base / 'images'}."))
    if not by_image or _files(base / "masks"):
        return [], []
    split = split_of_words(prefix)
    return [
        (split or split_of_folders(name), f"{prefix}{name}", path, by_image[name] if name in by_image else [])
        for name, path in images.items()
    ], lost


def _files(folder: Path, *, recursive: bool = False) -> list[Path]:
    return list_images(folder, recursive=recursive).files if folder.is_dir() else []


def _class_of(path: Path) -> str:
    match = _NAMED.fullmatch(path.stem)
    return match[1] if match else ""


def _is_named(masks: Sequence[tuple[str, Path]]) -> bool:
    return all(name not in ("", "mask", "masks", "object", "instance") for name, _ in masks)


def _label(image: Path, masks: Sequence[tuple[int, Path]], classes: int, outside: int) -> Drawn:
    size = read_header(image)[:2]
    parts = []
    for index, path in masks:
        header = read_header(path)
        if header[:2] != size:
            raise DataError(
                f"{path} is {header.height} x {header.width} (height x width), but its image is {size[0]} x {size[1]}."
            )
        values = read_image(path, 4 if header.mode in ("LA", "PA", "RGBA") else 1)
        part = _shown(values, _HALF if header.lossy else 0)
        parts.append((np.packbits(part), int(part.sum()), index))
    label = np.full(size, outside, label_type(classes))
    for part, _, index in sorted(parts, key=lambda entry: -entry[1]):
        label[np.unpackbits(part, count=label.size).reshape(size).astype(bool)] = index
    return Drawn(label)


def _shown(values: np.ndarray, above: int) -> np.ndarray:
    """Returns bool[h,w], the pixels that a mask of one object shows; those without opacity are not shown."""
    shown = values[..., :3].max(-1) > above
    return shown & (values[..., 3] > 0) if values.shape[-1] == 4 else shown

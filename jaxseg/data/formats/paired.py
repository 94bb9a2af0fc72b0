"""Masks that are pictures, one for each image: folders of any names, and Cityscapes' folders."""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxseg.data.classes import Labeller, Meaning, find_meaning
from jaxseg.data.classes_file import FILE, read_classes_file
from jaxseg.data.contents import lossy_mask
from jaxseg.data.datasets import cityscapes
from jaxseg.data.formats.collection import (
    Collection,
    Drawn,
    Lost,
    Options,
    Sample,
    settled,
    split_of_folders,
    split_of_words,
    visible,
)
from jaxseg.data.formats.colors import TABLES, nearest_values, read_color_table
from jaxseg.data.images import read_header, read_image, read_mask
from jaxseg.data.listing import SUFFIXES, sub_folders
from jaxseg.data.masks import Palette
from jaxseg.data.naming import find_renaming
from jaxseg.data.pairs import Pair, images_of
from jaxseg.errors import DataError, counted, some
from jaxseg.types import IGNORE

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "inputs", "input", "photos", "original", "leftimg8bit")
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "groundtruth", "gt"),
    *("ground_truth", "targets", "target", "segmentations", "segmentation", "seg", "gtfine"),
)
_WORDS = "masks?|labels?|annot|annotations?|gt|seg|segmentation|groundtruth"
_FOLDER = re.compile(rf"(.+?)[-_ ]?(?:{_WORDS})", re.IGNORECASE)  # trainannot/ beside train/
_FILE = re.compile(rf"(.+?)(?:[-_ ](?i:{_WORDS})|_L)")  # cell.png is no mask of cel.png
_COLORED = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
_WANTED = (
    "expected folders such as images/ and masks/, also inside train/, val/ and test/, or one folder with a.jpg and "
    "a_mask.png"
)


class Found(NamedTuple):
    """split: of a pair, or "". pair: its files; the mask is None for an image without."""

    split: str
    pair: Pair


def read_paired(source: Path, options: Options, *, colored: bool = False) -> Collection:
    """Returns the images and masks in a folder, with one mask for each image.

    Args:
        source: the folder; the names of its folders, or of the masks, may differ from ours.
        options: how to read them.
        colored: whether files with a palette are masks of colours too.

    Raises:
        DataError: if no image has a mask.
    """
    if not source.is_dir():
        raise DataError(f"{source} is no folder; {_WANTED}.")
    found, lost = find_pairs(source)
    return collection_of("masks of colours" if colored else "masks", source, found, lost, options, colored=colored)


def find_pairs(source: Path) -> tuple[list[Found], list[Lost]]:
    """Returns the images of a folder with their masks, the masks without an image, and what cannot be either."""
    found: list[Found] = []
    lost: list[Lost] = []
    for split, images, masks in _folders(source):
        pairs, more = _matched(images, masks)
        prefix = f"{split}/" if split else ""
        known = split_of_words(split)
        found += [Found(known or split_of_folders(p.name), p._replace(name=f"{prefix}{p.name}")) for p in pairs]
        lost += more
    if not any(one.pair.mask is not None for one in found):
        raise DataError(f"{source} has no images with masks; {_WANTED}.")
    return found, lost


def _folders(source: Path) -> list[tuple[str, Path, Path]]:
    """Returns (name of the split, folder of the images, folder of the masks); both may be one folder."""
    result = []
    for base in (source, *(source / name for name in sub_folders(source))):
        names = {name.lower(): name for name in sub_folders(base)}
        images = next((names[key] for key in _IMAGES if key in names), None)
        masks = next((names[key] for key in _MASKS if key in names), None)
        if images is not None and masks is not None:
            result.append((base.name if base != source else "", base / images, base / masks))
    if result:
        return result
    names = sub_folders(source)
    for name in names:  # train/ and train_labels/, trainannot/
        other = next((o for o in names if o != name and (m := _FOLDER.fullmatch(o)) and m[1] == name), None)
        if other is not None:
            result.append((name, source / name, source / other))
    return result or [("", source, source)]


def _matched(images: Path, masks: Path) -> tuple[list[Pair], list[Lost]]:
    """Returns the images with or without masks, the masks without images, and what cannot be either."""
    if images == masks:
        return _in_one_folder(images)
    (with_names, problems), (masks_with_names, more) = images_of(images), images_of(masks)
    of_images = {pair.name: pair.image for pair in with_names}
    of_masks = {pair.name: pair.image for pair in masks_with_names}
    chosen = {name: name for name in of_images if name in of_masks}
    renaming = find_renaming([n for n in of_images if n not in chosen], [n for n in of_masks if n not in chosen])
    chosen |= renaming[1] if renaming is not None else {}
    pairs = [Pair(n, path, of_masks[chosen[n]] if n in chosen else None) for n, path in of_images.items()]
    used = set(chosen.values())
    lost = [Lost(str(images), "file", problem) for problem in problems]
    lost += [Lost(str(masks), "file", problem) for problem in more]
    alone = [path for name, path in of_masks.items() if name not in used]
    return pairs, lost + [Lost(str(path), "file", f"It has no image in {images}.") for path in alone]


def _in_one_folder(folder: Path) -> tuple[list[Pair], list[Lost]]:
    """Returns the pairs as a.jpg and a_mask.png, or a.jpg and a.png, and the files beside one of the same name."""
    files = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in visible(folder, SUFFIXES)]
    stems: dict[str, list[Path]] = {}
    for name, path in files:
        stems.setdefault(name, []).append(path)
    masks: dict[str, Path] = {}
    of_masks: set[str] = set()
    lost: list[Lost] = []

    def leave(others: Sequence[Path], taken: Path) -> None:
        lost.extend(Lost(str(path), "file", f"{taken} is read in its place.") for path in others)

    for name, paths in stems.items():
        base = _FILE.fullmatch(name)
        if base is not None and base[1] in stems and base[1] not in of_masks:
            of_masks.add(name)
            taken = masks.setdefault(base[1], paths[0])
            leave([path for path in paths if path != taken], taken)
    pairs = []
    for name, paths in stems.items():
        if name in of_masks:
            continue
        lossless = [path for path in paths if path.suffix.lower() == ".png"]
        if name not in masks and len(paths) == 2 and len(lossless) == 1:
            other = next(path for path in paths if path != lossless[0])
            pairs.append(Pair(name, other, lossless[0]))
        else:
            pairs.append(Pair(name, paths[0], masks[name] if name in masks else None))
            leave(paths[1:], paths[0])
    return pairs, lost


def collection_of(
    form: str,
    source: Path,
    found: Sequence[Found],
    lost: Iterable[Lost],
    options: Options,
    *,
    colored: bool = False,
    meaning: Meaning | None = None,
    others_ignored: bool = False,
) -> Collection:
    """Returns the collection of pairs, whose masks hold values, or colours of a table beside them.

    Args:
        form: in words.
        source: where they are, with the table of colours or classes.json.
        found: the pairs.
        lost: what could not be paired.
        options: how to read them.
        colored: whether files with a palette are masks of colours too.
        others_ignored: whether values that no class has are ignored; else such a mask is not converted.
        meaning: of the values; None: what classes.json, the table, `options` or the masks themselves say.

    Raises:
        DataError: if the masks hold colours and there is no table, or nothing says what the classes are.
    """
    palette: Palette | None = None
    masks = [one.pair.mask for one in found if one.pair.mask is not None]
    if meaning is None:
        meaning, palette = _meaning(source, masks, options, colored)
    label = functools.partial(
        _label,
        labeller=Labeller(meaning),
        palette=palette,
        tolerance=options.tolerance,
        colored=colored,
        others_ignored=others_ignored,
    )
    samples = [
        Sample(split, p.name, str(p.image), p.image, None if p.mask is None else functools.partial(label, p.mask))
        for split, p in found
    ]
    kept, without = settled(samples)
    info = meaning.info
    return Collection(form, kept, info.classes, info.colors, (*lost, *without))


def _meaning(source: Path, masks: Sequence[Path], options: Options, colored: bool) -> tuple[Meaning, Palette | None]:
    where = source if source.is_dir() else source.parent
    table = options.palette or next((where / name for name in TABLES if (where / name).is_file()), None)
    file = read_classes_file(where) if table is None or table == where / FILE else None
    if file is not None:
        return find_meaning(where, masks, file=file, classes=options.classes, strict=False), file.palette()
    if table is None:
        if colored:
            raise DataError(
                f"{where} has no table of the colours of the classes ({some(TABLES)}); give one with --palette."
            )
        return find_meaning(where, masks, classes=options.classes, strict=False), None
    names, colors = read_color_table(table)
    remedy = " Raise --tolerance, or add the colour to the table."
    palette = Palette(colors, tuple(range(len(colors))), str(table), remedy)
    return find_meaning(where, (), classes=options.classes or names, palette=palette), palette


def _label(
    path: Path, labeller: Labeller, palette: Palette | None, tolerance: float, colored: bool, others_ignored: bool
) -> Drawn:
    header = read_header(path)
    if palette is None or not (header.mode in _COLORED or header.lossy or (colored and header.mode == "P")):
        if header.lossy:
            raise DataError(lossy_mask(path, header.lossy) + " With --palette its colours are read with a tolerance.")
        values = read_mask(path)
        if others_ignored:
            values = np.where(np.isin(values, labeller.values), values, IGNORE)
        return Drawn(labeller(values, path))
    values, far = nearest_values(read_image(path), palette, tolerance)
    lost = [Lost(str(path), counted(far, "pixel"), _far(palette, far / values.size))] if far else []
    return Drawn(labeller(values, path), tuple(lost))


def _far(palette: Palette, share: float) -> str:
    return f"{share:.2%} of the pixels are near no colour of {palette.origin}; they are ignored."


def read_cityscapes(source: Path, options: Options) -> Collection:
    """Returns the images X_leftImg8bit and masks X_gtFine_labelIds (or labelTrainIds) in folders as of Cityscapes.

    The values are those of Cityscapes, of which the 19 evaluated classes are kept, unless a classes.json beside the
    folders, or `options.classes`, says otherwise.

    Raises:
        DataError: if there are no such files.
    """
    files = visible(source, SUFFIXES) if source.is_dir() else []
    masks: dict[str, Path] = {}
    for path in files:
        match = re.fullmatch(r"(.+)_gt(Fine|Coarse)_label(Train)?Ids", path.stem)
        if match and (match[1] not in masks or match[3] is None):
            masks[match[1]] = path
    found = []
    for path in files:
        if path.stem.endswith("_leftImg8bit"):
            name = path.relative_to(source).with_suffix("").as_posix()
            stem = path.stem.removesuffix("_leftImg8bit")
            found.append(Found(split_of_folders(name), Pair(name, path, masks.pop(stem) if stem in masks else None)))
    if not any(one.pair.mask is not None for one in found):
        raise DataError(f"{source} has no images X_leftImg8bit.png with masks X_gtFine_labelIds.png.")
    lost = [Lost(str(path), "file", "It has no image X_leftImg8bit.png.") for path in masks.values()]
    own = (source / FILE).is_file() or bool(options.classes)
    trained = any(one.pair.mask is not None and "TrainIds" in one.pair.mask.stem for one in found)
    meaning = None if own else _of_cityscapes(source, trained)
    return collection_of("Cityscapes", source, found, lost, options, meaning=meaning, others_ignored=not own)


def _of_cityscapes(source: Path, trained: bool) -> Meaning:
    """Returns the meaning of Cityscapes' values: every raw value without a class is ignored."""
    data = cityscapes.DATASET
    raw = dict(data.labels or {})
    values = tuple(range(len(data.classes))) if trained else tuple(sorted(raw, key=lambda value: raw[value]))
    meaning = find_meaning(source, (), classes=data.classes, palette=Palette(data.colors, tuple(range(len(values)))))
    return Meaning(meaning.info, values)

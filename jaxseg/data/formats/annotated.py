"""The files of annotation tools as full masks: COCO, LabelMe, CVAT, Label Studio, VIA and Supervisely."""

import functools
from collections.abc import Collection as Names
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxseg.data.classes_file import FILE
from jaxseg.data.formats.collection import (
    Collection,
    Lost,
    Options,
    Sample,
    settled,
    split_of_folders,
    split_of_words,
    visible,
)
from jaxseg.data.formats.drawing import draw_image
from jaxseg.data.pairs import Pair, images_of
from jaxseg.data.weak.faults import Fault
from jaxseg.data.weak.frames import without_images
from jaxseg.data.weak.marks import AnnotatedImage, Annotations, Mark, merged
from jaxseg.data.weak.reading import Contents, read_file
from jaxseg.data.weak.source import matched
from jaxseg.errors import ConfigError, DataError, counted, nearest, some
from jaxseg.pictures import default_colors
from jaxseg.types import ignore_label

BACKGROUND = "background"
_BACKGROUNDS = (BACKGROUND, "_background_", "__background__", "bg")
_PLURALS = {"point": "points", "line": "lines", "box": "boxes"}


class _Files(NamedTuple):
    """form: of all files. groups: {split: [(file, image)]}. classes: that the files list. lost: what is not read."""

    form: str
    groups: dict[str, list[tuple[Path, AnnotatedImage]]]
    classes: list[str]
    lost: list[Lost]


class Labels(NamedTuple):
    """classes: in their order. indices: label of each name. outside: label outside all objects. lost: unknown names."""

    classes: tuple[str, ...]
    indices: dict[str, int]
    outside: int
    lost: tuple[Lost, ...]


def read_annotated(source: Path, options: Options, form: str = "") -> Collection:
    """Returns the images that the annotation files in `source`, a file or a folder, name.

    Args:
        source: where the annotations are.
        options: how to read them.
        form: the only form to read, such as "COCO"; empty: the one that is found.

    Raises:
        ConfigError: if `options.classes` has a name that is none of the classes.
        DataError: if there are no such files, or none of their images.
    """
    root = options.images or (source if source.is_dir() else source.parent)
    files = _read_files(source, form)
    pairs, problems = images_of(root)
    lost = [*files.lost, *(Lost(str(root), "file", problem) for problem in problems)]
    found: list[tuple[str, Pair, AnnotatedImage, Path]] = []
    failed: list[DataError] = []
    for split, entries in files.groups.items():
        origins: dict[str, Path] = {}
        for path, image in entries:
            origins.setdefault(image.name, path)
        paths = set(origins.values())
        whole = paths.pop() if len(paths) == 1 else source
        annotations = Annotations(whole, files.form, merged(image for _, image in entries))
        inside = [pair for pair in pairs if split and split_of_folders(pair.name) == split]
        try:
            by_name, strange = matched(annotations, inside or pairs, [pair.name for pair in pairs] if inside else ())
        except DataError as error:
            failed.append(error)
            continue
        strange, frames = without_images(annotations, strange)
        lost += [Lost(name, "image", f"It is none of the images in {root}.") for name in strange]
        lost += [Lost(str(whole), "frames", frames)] if frames else []
        chosen = {pair.name: pair for pair in inside or pairs}
        found += [
            (_split(split, chosen[n], image), chosen[n], image, origins[image.name]) for n, image in by_name.items()
        ]
    if failed and not found:
        raise failed[0]
    lost += [Lost(str(source), "file", str(error)) for error in failed]
    marks = [mark for _, _, image, _ in found for mark in image.marks if mark.kind != "tag"]
    names = sorted({mark.name for mark in marks})
    require_known(options, {*names, *files.classes}, names, source)
    labels = labels_of(source, files.classes or names, names, options)
    lost += labels.lost
    samples = [
        Sample(
            split,
            pair.name,
            str(pair.image),
            pair.image,
            functools.partial(
                draw_image,
                pair.image,
                image,
                Annotations(path, files.form, ()),
                labels.indices,
                len(labels.classes),
                outside=labels.outside,
                boxes=options.boxes,
            )
            if image.seen
            else None,
        )
        for split, pair, image, path in found
    ]
    samples += _others(pairs, [pair for _, pair, _, _ in found])
    kept, without = settled(samples)
    return Collection(
        files.form,
        kept,
        labels.classes,
        default_colors(len(labels.classes)),
        (*lost, *without),
        (
            *_on_names(labels.classes, names),
            *_without_pixels(labels.classes, marks, options),
            *_on_tags([image for _, _, image, _ in found]),
        ),
    )


def labels_of(source: Path, listed: Sequence[str], names: Sequence[str], options: Options) -> Labels:
    """Returns the labels of objects.

    Args:
        source: where the annotations are, for what is lost.
        listed: the classes in the order that the form gives.
        names: of all objects.
        options: `classes`, `outside` and `ignored` choose among them.

    Raises:
        DataError: if there are no classes.
    """
    chosen = tuple(name for name in options.classes or listed if name not in options.ignored)
    known = options.outside != "ignore"
    if not known and not chosen:
        raise DataError("No object has a class, so that there are no classes; name them with --classes.")
    classes = (BACKGROUND, *(name for name in chosen if name not in _BACKGROUNDS)) if known else chosen
    ignored = ignore_label(len(classes))
    indices = {name: ignored for name in names} | {name: index for index, name in enumerate(classes)}
    indices |= {name: 0 for name in _BACKGROUNDS if known} | {name: ignored for name in options.ignored}
    unknown = [name for name in names if name not in (*classes, *options.ignored, *_BACKGROUNDS)]
    why = "It is none of --classes; its pixels are ignored."
    lost = tuple(Lost(str(source), f"class {name}", why) for name in unknown)
    return Labels(classes, indices, 0 if known else ignored, lost)


def require_known(options: Options, known: Names[str], names: Sequence[str], source: Path) -> None:
    """Raises ConfigError for a name of `--classes` that is not known, where objects of another name would be ignored.

    `known` are the classes of the data in `source`, and `names` those of its objects.
    """
    chosen = {*options.classes, *options.ignored, *_BACKGROUNDS}
    if all(name in chosen for name in names):
        return  # the list serves other data too
    for name in options.classes:
        if name not in known and name not in _BACKGROUNDS:
            raise ConfigError(f"--classes has {name!r}, which is no class of {source}.{nearest(name, known)}")


def _read_files(source: Path, form: str) -> _Files:
    if not source.exists():
        raise DataError(f"There is no file or folder {source}.")
    paths = visible(source, (".json", ".xml")) if source.is_dir() else [source]
    read: list[tuple[Path, Contents]] = []
    lost, first = [], None
    for path in paths:
        faults: list[Fault] = []
        try:
            contents = read_file(path, source if source.is_dir() else source.parent, masks=True, faults=faults)
            if contents.form == "CSV" or (form and contents.form != form):
                raise DataError(f"{path} is of the form {contents.form}; {form or 'an annotation tool'} was expected.")
        except DataError as error:
            first = first or error
            lost += [Lost(str(path), "file", str(error))] if path.name != FILE else []
            continue
        read.append((path, contents))
        lost += [Lost(*fault) for fault in faults]
    if not any(contents.images for _, contents in read):
        raise first or DataError(f"{source} has no annotations{f' of the form {form}' if form else ''} (.json, .xml).")
    kinds = dict.fromkeys(contents.form for _, contents in read)
    if len(kinds) > 1:
        raise DataError(f"{source} has annotations of several forms ({', '.join(kinds)}); say which with --format.")
    groups: dict[str, list[tuple[Path, AnnotatedImage]]] = {}
    for path, contents in read:
        within = path.relative_to(source).as_posix() if source.is_dir() else path.name
        one_each = contents.form in ("LabelMe", "Supervisely")  # the name is that of the image
        split = split_of_folders(within) or ("" if one_each else split_of_words(PurePosixPath(within).stem))
        groups.setdefault(split, []).extend((path, _stripped(image)) for image in contents.images)
    listed = dict.fromkeys(name.strip() for _, contents in read for name in contents.classes)
    return _Files(next(iter(kinds)), groups, list(listed), lost)


def _stripped(image: AnnotatedImage) -> AnnotatedImage:
    return image._replace(marks=tuple(mark._replace(name=mark.name.strip()) for mark in image.marks))


def _split(of_file: str, pair: Pair, image: AnnotatedImage) -> str:
    return of_file or split_of_words(image.split) or split_of_folders(pair.name)


def _others(pairs: Sequence[Pair], found: Sequence[Pair]) -> list[Sample]:
    """Returns the images beside those that are annotated, as images without labels."""
    folders, taken = {pair.image.parent for pair in found}, {pair.name for pair in found}
    left = [pair for pair in pairs if pair.image.parent in folders and pair.name not in taken]
    return [Sample("", p.name, str(p.image), p.image, None) for p in left]


def _on_names(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns a remark on names that differ in case alone."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys((*classes, *names)):
        alike.setdefault(name.casefold(), []).append(name)
    return [
        f"{' and '.join(same)} differ in upper and lower case alone, and are different names; rename those that are "
        "one class."
        for same in alike.values()
        if len(same) > 1
    ]


def _without_pixels(classes: Sequence[str], marks: Sequence[Mark], options: Options) -> list[str]:
    """Returns a remark on each class that is annotated, but never with what gives it pixels."""
    areas = ("polygon", "brush", "box") if options.boxes else ("polygon", "brush")
    kinds: dict[str, list[str]] = {name: [] for name in classes if name not in _BACKGROUNDS}
    for mark in marks:
        if mark.name in kinds and mark.kind not in kinds[mark.name]:
            kinds[mark.name].append(mark.kind)
    said = "has no pixels: all that is annotated of it is"
    return [
        f"The class {name} {said} {' and '.join(_PLURALS[kind] for kind in found)}."
        for name, found in kinds.items()
        if found and not any(kind in areas for kind in found)
    ]


def _on_tags(images: Sequence[AnnotatedImage]) -> list[str]:
    tags = [mark.name for image in images for mark in image.marks if mark.kind == "tag"]
    if not tags:
        return []
    return [f"{counted(len(tags), 'tag')} of whole images left out ({some(sorted(set(tags)), 5)})."]

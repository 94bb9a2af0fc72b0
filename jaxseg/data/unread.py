"""Names what lies in a folder, or beside it, and is not read although its owner may expect that it is."""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.data.classes_file import FILE
from jaxseg.data.layout import Folders, Layout, holds_parts, is_split_name
from jaxseg.data.listing import ARRAYS, entries_of, is_hidden, list_images, sub_folders
from jaxseg.data.pairs import Pair
from jaxseg.errors import some

_PICTURES = (
    *(".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".exr", ".npy", ".npz", ".dcm", ".nii", ".dng", ".psd"),
)
_LISTS = (".txt", ".csv", ".json", ".lst", ".tsv")
# The names under which other tools store the classes: classes.txt, _classes.csv, label_map.json, data.yaml, obj.names.
_CLASSES = re.compile(
    r"_?(class(es)?|labels?|categories|codes)([-_ ]?(names?|map|list|dict|colou?rs?|info))?\.(json|txt|csv|ya?ml|pbtxt)"
    r"|(data|dataset)\.(ya?ml|json)|.*\.names|palette\.(json|txt|csv)",
    re.IGNORECASE,
)
_FOLD = re.compile(r"(k?-?folds?|cv|splits?|partitions?)[-_ ]?\d+", re.IGNORECASE)
_KINDS = {
    **dict.fromkeys(("train", "training", "trainval", "tr", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation", "vl"), "val"),
    **dict.fromkeys(("test", "testing", "te", "tst"), "test"),
}


def about_unread(
    directory: Path, layout: Layout, folders: Folders, pairs: Sequence[Pair], unlabelled: str = ""
) -> list[str]:
    """Returns a sentence for each kind of file or folder that may be meant to be read, and is not.

    Args:
        directory: the folder, `data.dir`.
        layout: its layout.
        folders: those of the split that is opened.
        pairs: all pairs in `folders`.
        unlabelled: `data.unlabelled`, a folder that is read besides.
    """
    sentences = [*_pictures(folders), *_class_lists(directory, layout)]
    inside = folders.images.parent == directory
    if inside:
        sentences += _other_folders(directory, unlabelled)
    sentences += _splits_of_one_part(directory, layout, unlabelled)
    if layout.undivided is not None:
        sentences += [*_lists(directory), *_named_as_splits(directory, pairs), *_named_as_folds(directory, pairs)]
        sentences += _is_a_split_itself(directory)
    return sentences


def _pictures(folders: Folders) -> list[str]:
    sentences = []
    for folder in folders:
        kinds = [kind for kind in _PICTURES if folder != folders.images or kind not in ARRAYS]
        files = list_images(folder, suffixes=kinds).files
        if files:
            sentences.append(
                f"Files of a type that is not read are left out ({len(files)} in {folder}, such as {files[0].name}); "
                "save them as PNG."
            )
    return sentences


def _class_lists(directory: Path, layout: Layout) -> list[str]:
    """Returns a sentence about lists of classes in other forms, and about a classes.json in another place."""
    places = [directory, directory / "images", directory / "masks"]
    places += [place for name, parts in layout.splits.items() for place in (directory / name, *parts)]
    places = [place for place in dict.fromkeys(places) if place.is_dir()]
    own = directory / FILE
    found = [
        path
        for place in places
        for path in entries_of(place)
        if path != own and _CLASSES.fullmatch(path.name) and path.is_file()
    ]
    if not found:
        return []
    source = "the classes are those of that file" if own.is_file() else "the classes are those found in the masks"
    return [f"Of lists of classes, {own} alone is read; here {source}. Not read: {some(map(str, found), 4)}."]


def _other_folders(directory: Path, unlabelled: str) -> list[str]:
    read = (directory / expanded(unlabelled)).resolve() if unlabelled else None
    names = [n for n in sub_folders(directory) if holds_parts(directory / n) and (directory / n).resolve() != read]
    if not names:
        return []
    return [
        f"{directory} also has images or masks in {some(names, 6)}, which are not read: those directly in "
        f"{directory / 'images'} and {directory / 'masks'} are. For splits, sort all into folders train/, val/, test/."
    ]


def _splits_of_one_part(directory: Path, layout: Layout, unlabelled: str) -> list[str]:
    """Returns a sentence about splits without images or without masks, except for tests, which often have no masks."""
    read = (directory / expanded(unlabelled)).resolve() if unlabelled else None
    names = [
        name
        for name, parts in layout.splits.items()
        if not parts.exist and _kind(_words(name)) != "test" and (directory / name).resolve() != read
    ]
    if not names:
        return []
    return [
        f"{directory} has images or masks of {some(names, 6)}, but not both, so these are not read. Images without "
        "masks are of use only to some methods, which read the folder that data.unlabelled names."
    ]


def _lists(directory: Path) -> list[str]:
    """Returns a sentence about files such as train.txt, which list the images of a split."""
    places = [directory, *(directory / name for name in sub_folders(directory))]
    places += [place / name for place in places[1:] if place.name == "ImageSets" for name in sub_folders(place)]
    files = [
        str(path.relative_to(directory))
        for place in places
        for path in entries_of(place)
        if path.suffix.lower() in _LISTS and not is_hidden(path.name) and _lists_a_split(path.stem) and path.is_file()
    ]
    if not files:
        return []
    return [
        f"{directory} holds {some(files, 6)}, which are not read: the images are divided into train and val by their "
        "names. For the splits of these lists sort the images and masks into folders train/, val/, test/."
    ]


def _lists_a_split(stem: str) -> bool:
    words = _words(stem)
    return is_split_name(stem) or (bool(words) and (words[0] in ("split", "splits") or _kind(words[:1]) != ""))


def _named_as_splits(directory: Path, pairs: Sequence[Pair]) -> list[str]:
    """Returns a sentence if sub-folders, or the first words of the names, are those of several splits."""
    kinds: dict[str, str] = {}
    folders: dict[str, str] = {}
    for pair in pairs:
        folder, _, stem = pair.name.rpartition("/")
        if folder not in folders:
            folders[folder] = next(filter(None, (_kind(_words(part)) for part in folder.split("/"))), "")
        kinds.setdefault(folders[folder] or _kind(_words(stem)[:1]), pair.name)
    kinds.pop("", None)
    if "train" not in kinds or len(kinds) < 2:
        return []
    return [
        f"The names of images in {directory} are like those of splits, such as {' and '.join(kinds.values())}, but are "
        "not read as such: all images are divided into train and val. For splits, sort the images and masks into "
        "folders train/, val/, test/."
    ]


def _named_as_folds(directory: Path, pairs: Sequence[Pair]) -> list[str]:
    """Returns a sentence if sub-folders have the names of the parts of a cross-validation."""
    folders = sorted({part for pair in pairs for part in pair.name.split("/")[:-1] if _FOLD.fullmatch(part)})
    if len(folders) < 2:
        return []
    return [
        f"The folders {some(folders, 6)} in {directory / 'images'} are part of the names: the images of all of them "
        "are divided into train and val. For a cross-validation, sort the images and masks of each of its rounds into "
        "folders train/ and val/ (links to folders will do)."
    ]


def _is_a_split_itself(directory: Path) -> list[str]:
    here = directory.resolve()
    if not is_split_name(here.name):
        return []
    others = [
        n for n in sub_folders(here.parent) if n != here.name and is_split_name(n) and holds_parts(here.parent / n)
    ]
    if not others:
        return []
    return [
        f"data.dir={str(directory)!r} is one split of {here.parent}, which also has {some(others)}: a share of it is "
        f"held out, and the others are not read. To use these splits give --config.data.dir={here.parent}."
    ]


def _words(name: str) -> list[str]:
    """Returns the words of a name in lower case: "Train_01" and "trainSet" give "train"."""
    parts = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return [re.sub(r"(set|split)$", "", part) or part for part in parts if part]


def _kind(words: Sequence[str]) -> str:
    return next((_KINDS[word] for word in words if word in _KINDS), "")

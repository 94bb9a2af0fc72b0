"""Webdataset's tar files: members KEY.jpg with KEY.png, or KEY.png with KEY.seg.png, are an image and its mask.

Members are read at their place in the archive, and nothing is unpacked into files that they name.
"""

import functools
import io
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from jaxseg.data.classes import Labeller, Meaning, find_meaning
from jaxseg.data.classes_file import FILE, read_classes_file
from jaxseg.data.formats.collection import (
    Collection,
    Drawn,
    Lost,
    Options,
    Picture,
    Sample,
    settled,
    split_of_folders,
    split_of_words,
    visible,
)
from jaxseg.data.formats.meanings import meaning_of_values
from jaxseg.data.images import from_pillow
from jaxseg.errors import DataError, first_line
from jaxseg.pictures.opening import open_image, too_large

_IMAGES = ("jpg", "jpeg", "webp", "png")
_MASKS = ("seg.png", "mask.png", "label.png", "segmentation.png", "png")
_LARGEST = 2**28  # bytes of a member
_MOST = 10**7  # members of an archive


class Member(NamedTuple):
    """A file in an archive: the archive, its name in it, and its place there."""

    archive: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def read_tars(source: Path, options: Options) -> Collection:
    """Returns the images and masks in a .tar file, or in those of a folder, such as train-000000.tar.

    Raises:
        DataError: if there are none, or an archive is compressed or damaged.
    """
    archives = visible(source, (".tar",)) if source.is_dir() else [source]
    if not archives:
        raise DataError(f"{source} has no .tar files.")
    lost: list[Lost] = []
    found: list[tuple[str, str, Member, Member | None]] = []
    for archive in archives:
        within = archive.relative_to(source).as_posix() if source.is_dir() else archive.name
        split = split_of_folders(within) or split_of_words(archive.stem)
        for key, parts in _samples(archive, lost).items():
            image = next((parts[end] for end in _IMAGES if end in parts), None)
            mask = next((parts[end] for end in _MASKS if end in parts and parts[end] != image), None)
            if image is None:
                lost.append(Lost(str(archive), key, "It has no image (.jpg, .png or .webp)."))
            else:
                found.append((split or split_of_folders(key), f"{archive.stem}/{key}", image, mask))
                others = [parts[end] for end in dict.fromkeys((*_IMAGES, *_MASKS)) if end in parts]
                lost += [
                    Lost(str(archive), one.name, f"{image.name}{f' and {mask.name}' if mask else ''} are read instead.")
                    for one in others
                    if one not in (image, mask)
                ]
    if not any(mask is not None for _, _, _, mask in found):
        why = f" {lost[0].why}" if lost else ""
        raise DataError(f"{source} has no images with masks; expected KEY.jpg and KEY.png, or KEY.seg.png.{why}")
    twice = len({(split, key.partition("/")[2]) for split, key, _, _ in found}) == len(found)
    masks = [mask for _, _, _, mask in found if mask is not None]
    where = source if source.is_dir() else source.parent
    meaning = _meaning(where, masks, options)
    labeller = Labeller(meaning)
    samples = [
        Sample(
            split,
            name.partition("/")[2] if twice else name,
            f"{image.archive}, {image.name}",
            functools.partial(_picture, image),
            functools.partial(_label, mask, labeller) if mask is not None else None,
        )
        for split, name, image, mask in found
    ]
    kept, without = settled(samples)
    return Collection("webdataset", kept, meaning.info.classes, meaning.info.colors, (*lost, *without))


def _samples(archive: Path, lost: list[Lost]) -> dict[str, dict[str, Member]]:
    """Returns {key: {ending: member}} of an archive."""
    samples: dict[str, dict[str, Member]] = {}
    try:
        with tarfile.open(archive, "r:") as file:
            for number, member in enumerate(file):
                if number >= _MOST:
                    raise DataError(f"{archive} has more than {_MOST:,} members.")
                if not member.isreg() or member.name.startswith("._"):
                    continue
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\0" in member.name or "\\" in member.name:
                    lost.append(Lost(str(archive), member.name[:200], "Its name leads out of the archive."))
                    continue
                if member.issparse() or member.size > _LARGEST:
                    lost.append(Lost(str(archive), member.name[:200], f"It has more than {_LARGEST:,} bytes, or gaps."))
                    continue
                stem, _, ending = path.name.partition(".")
                key = (path.parent / stem).as_posix()
                if not stem:
                    continue
                samples.setdefault(key, {})[ending.lower()] = Member(
                    archive, member.name, member.offset_data, member.size
                )
    except DataError:
        raise
    except Exception as error:  # tarfile raises many classes for a damaged archive
        why = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise DataError(
            f"{archive} cannot be read as a tar archive that is not compressed ({why[:200]}); unpack a .tar.gz first."
        ) from error
    return samples


def _picture(member: Member) -> Picture:
    return member.read(), f".{re.sub(r'.*[.]', '', member.name).lower()}"


def _values(member: Member) -> np.ndarray:
    """Returns the values u8|u16[h,w] of a mask of one channel."""
    what = f"{member.archive}, {member.name}"
    try:
        with open_image(io.BytesIO(member.read())) as image:
            if image.mode == "P":
                return np.array(image)
            if image.mode not in ("1", "L", "I;16", "I"):
                raise DataError(f"{what} holds colours (mode {image.mode}), where class indices were expected.")
            return from_pillow(image, 1, what)[..., 0] if image.mode != "1" else np.array(image).astype(np.uint8)
    except DataError:
        raise
    except Exception as error:  # the classes are those of Pillow's decoders
        if type(error).__name__ == "DecompressionBombError":
            raise too_large(what) from error
        raise DataError(f"{what} cannot be read as an image ({first_line(error)[:200]}).") from error


def _label(member: Member, labeller: Labeller) -> Drawn:
    return Drawn(labeller(_values(member), f"{member.archive}, {member.name}"))


def _meaning(where: Path, masks: list[Member], options: Options) -> Meaning:
    file = read_classes_file(where) if (where / FILE).is_file() else None
    if file is not None:
        return find_meaning(where, (), file=file, classes=options.classes)
    return meaning_of_values((functools.partial(_values, mask) for mask in masks), options.classes, where)

"""Any folder of images and masks as a data set.

    DIR/images/a.jpg  DIR/masks/a.png                      one set: a share of it is held out for validation
    DIR/train/images/a.jpg  DIR/train/masks/a.png  DIR/val/...  DIR/test/...       a folder for each split
    DIR/images/train/a.jpg  DIR/masks/train/a.png  DIR/images/val/...              the same, the other way round
    DIR/classes.json                                       optional: names, values and colours of the classes

An image and its mask have the same name except for the suffix; sub-folders are part of the name.
"""

import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jaxseg.arguments import expanded
from jaxseg.data.base import Example
from jaxseg.data.classes import Labeller, find_meaning
from jaxseg.data.classes_file import read_classes_file
from jaxseg.data.contents import Content, compare_palettes, read_and_keep, read_contents, sample
from jaxseg.data.folds import Groups
from jaxseg.data.headers import check_headers, damage_of, headers_of, orientation, require_same_size
from jaxseg.data.images import read_header, read_image, read_mask
from jaxseg.data.layout import Folders, Layout, choose, existing, find_layout
from jaxseg.data.masks import check_palette
from jaxseg.data.notes import note
from jaxseg.data.pages import takes_pages
from jaxseg.data.pairs import Pair, hold_out, match, note_unused, require_others, without_masks
from jaxseg.data.reading import files_at, note_skipped, raise_first
from jaxseg.data.stamps import require_unchanged, stamps_of
from jaxseg.data.swapped import are_swapped, require_not_swapped
from jaxseg.data.unread import about_unread
from jaxseg.errors import DataError, counted

_OWN_FOLDER = " Images without masks belong into a folder of their own, which data.unlabelled names."
_CHECK = " jaxseg check lists every mask with such a value."
_COLOR_MODES = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")


class FolderSource:
    """One split of a folder; see the module's docstring for the layouts.

    Opening it reads the header of every file, and the values in some hundred masks; an image is decoded, and its mask
    checked, when the example is read.

    Args:
        directory: the folder DIR.
        split: the name of a split folder; without split folders "train" or "val" (the held-out images).
        classes: names of the classes; empty: from `classes.json`, or from the values in the masks.
        ignore: value in the masks that is ignored, besides 255 (65535 of more than 255 classes); -1: none.
        palette: RGB colour of each mask value, for masks that store colours.
        val_fraction: share of the images that is held out if there are no split folders, chosen by a hash of the names.
        division: which images these are. "stable": those whose hash is below the share, so that an image stays where it
            is when others are added; about the share. "former": exactly the share, as before 0.2, which also knew no
            splits inside images/, and did not follow links to folders.
        groups: what is held out whole, see `held_out_groups`; None: every image by itself.
        unlabelled: images whose masks are ignored everywhere are of use to the training: without split folders none of
            them is held out (except by division="former").
        unlabelled_dir: a folder of images without masks, which this split also has; relative to `directory`. Their
            labels are IGNORE everywhere.
        channels: of the images; pictures are converted to 1, 3 or 4.
        limits: `data.range`, the values in the files that become 0 and 1; (): those of their type.
        damaged: what follows from a file whose header cannot be read, or whose size is not that of its partner. "stop":
            it is an error. "others": a mask of another split is left out where the classes are found. "skip": so is an
            own one, which is noted, and reading its example raises the error.
        strict: raise at the first error in the files. Otherwise `problems` lists the files without a partner, and
            palettes that contradict each other, and an error inside a file is raised when its example is read.

    Raises:
        DataError: for a folder, split, file or class list that cannot be used.
    """

    def __init__(
        self,
        directory: str | Path,
        split: str,
        *,
        classes: Sequence[str] = (),
        ignore: int = -1,
        palette: Sequence[Sequence[int]] = (),
        val_fraction: float = 0.1,
        division: str = "stable",
        groups: Groups | None = None,
        unlabelled: bool = False,
        unlabelled_dir: str = "",
        channels: int = 3,
        damaged: Literal["stop", "others", "skip"] = "stop",
        limits: Sequence[float] = (),
        strict: bool = True,
    ):
        self.directory, self.split, self._strict = existing(directory), split, strict
        self._paged = takes_pages(channels, limits)
        self._skip, self._unreadable = damaged == "skip", dict[Pair, str]()
        former, self._groups = division == "former", groups
        layout = find_layout(self.directory, former=former)
        folders = choose(layout, split, self.directory)
        every_pair, problems = match(folders, former=former, advice=_OWN_FOLDER if unlabelled else "")
        without, more = self._without_masks(unlabelled_dir, layout)
        self._problems = (*problems, *more)
        self._unread = self._about_unread(layout, folders, every_pair, unlabelled_dir)
        if strict:
            raise_first(self._problems)
        self.pairs = self._of_split(every_pair, layout, val_fraction, former) + without
        given, self._file = check_palette(palette), read_classes_file(self.directory)
        # Without a palette, the colours of classes.json define masks of colours; palette files are read as indices.
        self._keep_indices = given is None
        self.palette = given or (self._file.palette() if self._file is not None else None)
        names = classes or (self._file.names if self._file is not None else ())
        require_not_swapped(folders, every_pair, self.palette, len(names))
        if strict:
            self._check_headers()
        masks = _every_mask(layout, folders, every_pair, former)
        meaning = find_meaning(
            self.directory,
            masks,
            file=self._file,
            classes=classes,
            ignore=ignore,
            palette=given,
            unlabelled=unlabelled,
            channels=channels,
            strict=strict,
            skip=damaged != "stop",
        )
        self._labeller = Labeller(meaning, _CHECK if strict else "")
        self.info = replace(
            meaning.info,
            values=tuple(meaning.values),
            color_masks=self._holds_colors(masks),
            range=tuple(limits),
        )
        if given is not None and masks and not self._keeps_colors(masks[0]):
            note(f"data.palette has no effect: masks such as {masks[0]} hold indices, not colours.")
        if unlabelled and layout.undivided is not None and not former:
            self.pairs = self._hold_out_labelled(every_pair, val_fraction) + without
            if strict:
                self._check_headers()
        own = {pair.mask for pair in self.pairs}
        others = [mask for mask in masks if mask not in own]
        self._others = others[:1] + others[1:][-1:]  # two masks of the other splits
        self.stamps = stamps_of(self.pairs) if strict else {}
        if strict:
            self._check_masks(unlabelled)

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each file without a partner, and for each palette that contradicts another.

        Where not `strict`, the masks are read at the first use, except those whose examples have been read before.
        """
        return (*self._problems, *self._compared[0])

    @property
    def remarks(self) -> tuple[str, ...]:
        """A sentence for each thing in the folder that may not be as its owner expects; masks are read as above."""
        return (*self._unread, *self._compared[1])

    def _holds_colors(self, masks: Sequence[Path]) -> bool:
        """Returns whether the first mask that can be read is one of colours, which a palette turns into values."""
        if self.palette is None:
            return False
        for mask in masks:
            with contextlib.suppress(DataError):
                mode = read_header(mask).mode
                return mode in _COLOR_MODES or (mode == "P" and not self._keep_indices)
        return False

    @staticmethod
    def _keeps_colors(mask: Path) -> bool:
        """Returns whether a mask holds colours, or a palette of them, or cannot be read."""
        with contextlib.suppress(DataError):
            return read_header(mask).mode in (*_COLOR_MODES, "P")
        return True

    def _without_masks(self, folder: str, layout: Layout) -> tuple[list[Pair], list[str]]:
        """Returns the images of `data.unlabelled`, which are others than those with masks, and what is wrong there."""
        if not folder:
            return [], []
        pairs, problems = without_masks(self.directory / expanded(folder))
        require_others(pairs, layout, self.directory)
        return pairs, problems

    def _about_unread(self, layout: Layout, folders: Folders, pairs: list[Pair], unlabelled: str) -> tuple[str, ...]:
        """Returns, and logs, a sentence for each kind of file or folder that may be meant to be read, and is not."""
        remarks = tuple(about_unread(self.directory, layout, folders, pairs, unlabelled))
        for remark in remarks:
            note(remark)
        return remarks

    def _of_split(self, pairs: list[Pair], layout: Layout, fraction: float, former: bool) -> list[Pair]:
        """Returns the pairs of the split, at least one: those in its folders, or its part of a set that is divided."""
        note_unused(self._groups, layout)
        chosen = (
            pairs
            if layout.undivided is None
            else hold_out(pairs, self.split, fraction, former=former, groups=self._groups)
        )
        if not chosen and self._problems:
            raise DataError(self._problems[0])  # a name without a partner, or a folder that cannot be read
        if not chosen:
            held_out = (
                f"; it has {len(pairs)} in all and data.val_fraction={fraction} holds some out; add images, or divide "
                "them yourself into folders named train and val"
            )
            raise DataError(
                f"The split {self.split!r} of {self.directory} has no images with masks"
                f"{held_out if layout.undivided is not None else ''}."
            )
        return chosen

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        """Returns image u8|u16|f32[h,w,c] and label u8[h,w], or u16[h,w] of more than 255 classes."""
        pair = files_at(index, self.pairs, f"{self.directory} ({self.split})", self._unreadable)
        if not self._strict:  # else every header was checked at the start
            self._check_header(pair)
        image = read_image(pair.image, self.info.channels, self.info.range)
        if pair.mask is None:
            require_unchanged(pair, self.stamps)
            return {"image": image, "label": self.info.ignored_everywhere(image.shape[:2])}
        read = read_mask if self._strict else read_and_keep
        mask = read(pair.mask, self.palette, keep_indices=self._keep_indices)
        require_unchanged(pair, self.stamps)
        require_same_size(pair.image, image.shape[:2], pair.mask, mask.shape)
        return {"image": image, "label": self._labeller(mask, pair.mask)}

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def label_size(self, index: int) -> tuple[int, int]:
        pair = self.pairs[index]
        paged = pair.mask is None and self.info.paged
        height, width = read_header(pair.image if pair.mask is None else pair.mask, paged=paged)[:2]
        return height, width

    def _hold_out_labelled(self, pairs: list[Pair], fraction: float) -> list[Pair]:
        """Returns the train or the held-out pairs, and holds out none without a label if others have one."""
        masks = [pair.mask for pair in pairs if pair.mask is not None]
        contents = read_contents(masks, self.palette, keep_indices=self._keep_indices)
        void = {m for m, c in zip(masks, contents) if not isinstance(c, DataError) and self._labeller.ignores(c.values)}
        labelled = [pair for pair in pairs if pair.mask not in void] or pairs
        held_out = hold_out(labelled, "val", fraction, groups=self._groups)
        if self.split != "train":
            return held_out
        groups = {pair.name: pair.name if self._groups is None else self._groups.of(pair.name) for pair in pairs}
        others = {groups[pair.name] for pair in held_out}
        return [pair for pair in pairs if groups[pair.name] not in others]

    def turned(self) -> list[str]:
        """Returns the names of the images whose EXIF orientation is another than that of their masks."""
        labelled = [(p, p.mask) for p in self.pairs if p.mask is not None]
        return [p.name for p, mask in labelled if orientation(p.image) != orientation(mask)]

    def _check_headers(self) -> None:
        with ThreadPoolExecutor() as pool:  # raises the first error
            headers = functools.partial(headers_of, paged=self._paged)
            damage = functools.partial(damage_of, headers=headers, check=self._check_header)
            check = damage if self._skip else self._check_header
            damages = list(pool.map(check, self.pairs))
        for pair, damage in zip(self.pairs, damages):
            if damage:
                self._unreadable[pair] = damage
                note_skipped(damage)

    def _check_header(self, pair: Pair) -> None:
        mode = check_headers(pair, paged=self._paged)
        if pair.mask is not None and mode in _COLOR_MODES and self.palette is None:
            read_mask(pair.mask)  # raises an error that names the colours

    @functools.cached_property
    def _contents(self) -> dict[Path, Content]:
        """The contents of masks and of two masks of other splits: of some hundred if `strict`, else of all.

        An own mask that cannot be read is an error if `strict`; else it is left out.
        """
        own = [pair.mask for pair in self.pairs if pair.mask is not None and pair not in self._unreadable]
        chosen = sample(own) if self._strict else own
        if len(chosen) < len(own):
            note(
                f"The values in {len(chosen)} of the {counted(len(own), 'mask')} of {self.split} are checked now, "
                "the others when they are read; jaxseg check reads all."
            )
        contents = {}
        chosen = chosen + self._others
        for path, content in zip(chosen, read_contents(chosen, self.palette, keep_indices=self._keep_indices)):
            if not isinstance(content, DataError):
                contents[path] = content
            elif self._skip and path not in self._others:
                note_skipped(str(content))
            elif self._strict and path not in self._others:
                raise content
        return contents

    @functools.cached_property
    def _compared(self) -> tuple[list[str], list[str]]:
        """The problems and the remarks about the palettes of masks; see `compare_palettes`."""
        return compare_palettes(self._contents if self._keep_indices else {}, self._file)

    def _check_masks(self, unlabelled: bool) -> None:
        """Raises DataError for palettes that contradict each other, and values of no class, before a training.

        Logs a note if all masks are ignored everywhere, unless these are of use (`unlabelled`).
        """
        contents = self._contents
        raise_first(self._compared[0])
        own = {path: content for path, content in contents.items() if path not in self._others}
        for path, content in own.items():
            self._labeller.check(content.values, path)
        if own and not unlabelled and all(self._labeller.ignores(content.values) for content in own.values()):
            note(
                f"Every pixel of {counted(len(own), 'mask')} of {self.split}, all that were read now, is ignored: "
                "nothing can be learnt from them or scored on them."
            )


def _every_mask(layout: Layout, folders: Folders, pairs: list[Pair], former: bool) -> list[Path]:
    """Returns the masks of all splits; `pairs` are those of `folders`, which are not listed again."""
    every = [folders] if layout.undivided is not None else [f for f in layout.splits.values() if f.exist]
    matched = [pairs if parts == folders else match(parts, former=former)[0] for parts in every]
    return [pair.mask for of_split in matched for pair in of_split if pair.mask is not None]


def find_faults(directory: str | Path, split: str, *, former: bool = False, paged: bool = False) -> list[str]:
    """Returns a sentence for each file that cannot be used, for a folder that `FolderSource` cannot open.

    It looks at the names and headers of the files of one split; a folder without a known layout has none. `paged` is
    that of `images.read_header`.
    """
    try:
        root = existing(directory)
        pairs, problems = match(choose(find_layout(root, former=former), split, root), former=former)
    except DataError:
        return []
    with contextlib.suppress(DataError):
        file = read_classes_file(root)
        if are_swapped(pairs, *((None, 0) if file is None else (file.palette(), len(file.names)))):
            return []  # the error of `FolderSource` says it
    for pair in pairs:
        try:
            check_headers(pair, paged=paged)
        except DataError as error:
            problems.append(str(error))
    return problems

"""Opens a split of a folder as `config.data` says: with masks, with annotations, or with less than its labels."""

from jaxseg.arguments import expanded
from jaxseg.config import WITHHELD, ConfigDict, differences, held_out_group
from jaxseg.data import folder
from jaxseg.data.base import Source
from jaxseg.data.folds import Groups, parse_group
from jaxseg.data.layout import choose, existing, find_layout
from jaxseg.data.multilabel import MultilabelSource
from jaxseg.data.pairs import images_of, require_others, without_masks
from jaxseg.data.weak.drawing import Drawing
from jaxseg.data.weak.source import AnnotatedSource
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import DataError

_FEWER = (
    " With data.annotations only images of the validation split need masks: sort the others into a folder "
    "train/images, and those with masks into val/images and val/masks."
)


def with_masks(config: ConfigDict, split: str, *, unlabelled: bool, strict: bool) -> folder.FolderSource:
    """Returns a split of a folder of images and masks; see `FolderSource` for the arguments."""
    data = config.data
    trains = split == data.train_split
    return folder.FolderSource(
        data.dir,
        split,
        classes=data.classes,
        ignore=data.ignore,
        palette=data.palette,
        val_fraction=data.val_fraction,
        division=data.division,
        groups=held_out_groups(config),
        unlabelled=unlabelled,
        unlabelled_dir=data.unlabelled if trains else "",
        channels=data.channels,
        damaged="stop" if data.on_error == "stop" else "skip" if trains else "others",
        limits=data.range,
        strict=strict,
    )


def held_out_groups(config: ConfigDict) -> Groups | None:
    """Returns what `data.val_fraction` keeps whole on one side; None: nothing.

    Raises:
        ConfigError, DataError: as `parse_group` does.
    """
    text = held_out_group(config)
    key = "data.group" if config.data.val_group == "group" else "data.val_group"
    if text == WITHHELD:  # an error for a folder that is divided alone, see `hold_out`
        return Groups(text, None, {}, key)
    return None if text is None else parse_group(text, key)


def is_divided(config: ConfigDict) -> bool:
    """Returns whether `data.val_fraction` divides the data; also where the folder cannot be read."""
    if config.data.source != "folder":
        return False
    if config.data.division == "former":
        return True
    try:
        return find_layout(existing(config.data.dir)).undivided is not None
    except DataError:
        return True


def differences_of_runs(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns "key: old -> new" for each key that differs and affects the numbers of a run on the data of `new`."""
    found = differences(old, new)
    return differences(old, new, divided=is_divided(new)) if found else found


def with_sets(config: ConfigDict, split: str, *, strict: bool) -> MultilabelSource:
    """Returns a split of a folder whose pixels may have several classes; see `MultilabelSource`."""
    data = config.data
    return MultilabelSource(
        data.dir,
        split,
        form=data.multilabel,
        classes=data.classes,
        ignore=data.ignore,
        unknown=data.unknown,
        val_fraction=data.val_fraction,
        groups=held_out_groups(config),
        channels=data.channels,
        limits=data.range,
        damaged="skip" if data.on_error == "skip" and split == data.train_split else "stop",
        strict=strict,
    )


def with_annotations(config: ConfigDict, *, possible: bool, unlabelled: bool, strict: bool) -> AnnotatedSource:
    """Returns the training split of a folder with the labels that `data.annotations` gives.

    The masks of the validation split, or classes.json, say what the classes are. With folders for the splits, training
    images need no masks; else the masks divide the images as ever.

    Args:
        config: a configuration.
        possible: as of `Drawing`.
        unlabelled: whether images without annotations are of use.
        strict: raise at the first error.

    Raises:
        DataError: as `FolderSource` and `AnnotatedSource` do.
    """
    data = config.data
    directory = existing(data.dir)
    layout = find_layout(directory, former=data.division == "former")
    try:
        info = with_masks(config, data.val_split, unlabelled=unlabelled, strict=strict).info
        if layout.undivided is not None:
            pairs = with_masks(config, data.train_split, unlabelled=unlabelled, strict=strict).pairs
            problems: list[str] = []
        else:
            pairs, problems = images_of(choose(layout, data.train_split, directory, masks=False).images)
    except DataError as error:
        raise DataError(f"{error}{_FEWER if layout.undivided is not None else ''}") from error
    if layout.undivided is None and data.unlabelled:
        more, wrong = without_masks(directory / expanded(data.unlabelled))
        require_others(more, layout, directory)
        pairs, problems = pairs + more, problems + wrong
    if problems and strict:
        raise DataError(problems[0])
    trained = {pair.name for pair in pairs}
    parts = [layout.undivided] if layout.undivided is not None else layout.splits.values()
    everywhere = [pair.name for part in parts if part.images.is_dir() for pair in images_of(part.images)[0]]
    annotations = directory / expanded(data.annotations)
    return AnnotatedSource(
        pairs,
        annotations,
        info,
        drawing(config, possible),
        problems=problems,
        unlabelled=unlabelled,
        strict=strict,
        directory=directory,
        others=[name for name in everywhere if name not in trained],
    )


def drawing(config: ConfigDict, possible: bool) -> Drawing:
    """Returns how marks become labels; `possible` as of `Drawing`."""
    data = config.data
    target = (data.size[0], data.size[1]) if data.fit == "resize" else None
    return Drawing(data.box_core, data.mark_radius, target, possible=possible)


def weakened(source: Source, config: ConfigDict, possible: bool) -> Source:
    """Returns a training split with what `data.weaken` leaves of its labels; `possible` as of `Drawing`."""
    return WeakenedSource(source, config.data.weaken, drawing(config, possible))

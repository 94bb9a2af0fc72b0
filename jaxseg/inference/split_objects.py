"""Scores the objects of a split: the regions of predictions against true objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxseg.arguments import expanded
from jaxseg.data.images import opened
from jaxseg.errors import ConfigError, DataError, counted
from jaxseg.inference.objects import ObjectScores, ObjectTotal, object_dict, object_table
from jaxseg.inference.other_data import about_other, open_split, require_own_name
from jaxseg.inference.predictor import Predictor, make_predictor
from jaxseg.inference.progress import each
from jaxseg.inference.regions.find import find_regions
from jaxseg.inference.regions.settings import RegionSettings
from jaxseg.run.load import Run, require_one_class
from jaxseg.run.workdir import require_own_json, write_or_refuse

_SUFFIXES = (".png", ".tif", ".tiff")


class SplitObjects(NamedTuple):
    """The scores of the objects of a split; printed, they are a table.

    Attributes:
        scores: see `ObjectScores`.
        split: the split.
        instances: the folder of the true objects; None: they are the connected components of the masks.
        other: what the file says of data that are not those of the training, see `about_other`.
    """

    scores: ObjectScores
    split: str
    instances: Path | None
    other: Mapping[str, str] = {}

    def __str__(self) -> str:
        where = f"those of {self.instances}" if self.instances else "the connected components of the masks"
        s = self.scores
        foot = f"{s.truth} true objects ({where}), {s.predicted} predicted, on {counted(s.images, 'image')}; in percent"
        return f"{object_table(s)}\n\n{foot}"

    def write(self, workdir: Path) -> Path:
        """Writes objects-SPLIT.json into a workdir, atomically; returns its path.

        Raises:
            ConfigError: if it cannot be written, or would replace a file that is not ours, or one on other data.
        """
        file = objects_file(workdir, self.split)
        require_own(file, self.other)
        about = {"split": self.split, **self.other, "instances": self.instances is not None}
        write_or_refuse(file, about | object_dict(self.scores))
        return file


def objects_file(workdir: Path, split: str) -> Path:
    """Returns the path of objects-SPLIT.json."""
    return workdir / f"objects-{''.join(c if c.isalnum() or c in '.-_' else '_' for c in split)}.json"


def require_own(file: Path, other: Mapping[str, str] = {}) -> None:
    """Raises ConfigError if there is a file of the name of the scores that is none of ours, or on other data.

    `other` is what `about_other` returns.
    """
    require_own_json(file, ("split", "average_precision"))
    require_own_name(file, other)


def require_instances(instances: str | Path) -> Path:
    """Returns the folder of the true objects; raises ConfigError if it is none."""
    folder = expanded(instances)
    if not folder.is_dir():
        raise ConfigError(f"The folder of true objects {folder} {_is_missing(folder)}.")
    return folder


def _is_missing(folder: Path) -> str:
    return "is a file" if folder.exists() else "does not exist"


def score_objects(
    run: Run,
    split: str = "val",
    settings: RegionSettings | None = None,
    *,
    instances: str | Path | None = None,
    predictor: Predictor | None = None,
) -> SplitObjects:
    """Returns the scores of the objects of a split, each image at its native size.

    A true object has the class that most of its pixels have in the mask, and matches regions of that class alone.
    Pixels that the mask ignores belong to no object, and true objects of classes that are not wanted do not count.

    Args:
        run: from `load_run`.
        split: see `inference.evaluate`.
        settings: how regions are found; None: the components of all classes, as they are.
        instances: a folder with a picture for each image, of its name, of the number of the object of each pixel; 0
            where there is none. None: the folder `instances` beside that of the images where there is one, and else the
            connected components of the masks.
        predictor: segments the images; None: the run's network.

    Raises:
        ConfigError: if `instances` is no folder.
        DataError: if a picture is missing, or has not the size of its image; see also `inference.evaluate`.
    """
    require_one_class(run, "A score of objects")
    source = open_split(run, split)
    tiles, overlap = run.config.eval.tiles or None, run.config.eval.overlap
    predict = make_predictor([run], tiles=tiles, overlap=overlap) if predictor is None else predictor
    settings = RegionSettings(tuple(range(len(run.classes)))) if settings is None else settings
    folder = _beside(source) if instances is None else require_instances(instances)
    total = ObjectTotal()
    for i in each(range(len(source)), f"objects {split}"):
        example = source[i]
        label, ignored = np.asarray(example["label"]), source.info.ignored
        found = settings.find(predict(np.asarray(example["image"])).classes)
        if folder is None:
            true = find_regions(label, only=settings.only, connectivity=settings.connectivity).labels
        else:
            true = _read(folder, source.name(i), label.shape)
        true, classes = _of_classes(true, label, settings.only, len(source.info.classes))
        predicted = np.where(label == ignored, 0, found.labels)
        kept = np.unique(predicted)
        total.add(true, predicted, true_classes=classes, predicted_classes=found.classes[kept[kept > 0] - 1])
    return SplitObjects(total.scores(), split, folder, about_other(run))


def _beside(source: Any) -> Path | None:
    """Returns the folder `instances` beside the images of a source that reads a folder; None if there is none."""
    pairs = getattr(source, "pairs", ())
    for parent in pairs[0].image.parents if pairs else ():
        if parent.name == "images":
            folder = parent.parent / "instances"
            return folder if folder.is_dir() else None
    return None


def _read(folder: Path, name: str, size: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers i32[h,w] of the true objects of an image."""
    stem = Path(name).with_suffix("")
    file = next((folder / f"{stem}{s}" for s in _SUFFIXES if (folder / f"{stem}{s}").is_file()), None)
    if file is None:
        raise DataError(f"There is no picture of the true objects of {name}: {folder / f'{stem}.png'} was expected.")
    with opened(file) as image:
        numbers = np.array(image)
    if numbers.shape != size or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{file} must hold a whole number for each of the {size[0]}x{size[1]} pixels of {name}, got "
            f"{numbers.dtype} of shape {list(numbers.shape)}."
        )
    return numbers.astype(np.int32)


def _of_classes(
    true: np.ndarray, label: np.ndarray, only: tuple[int, ...], classes_of_data: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the objects of the wanted classes i[h,w], the class of each, by ascending numbers)."""
    true = np.where(label >= classes_of_data, 0, true)
    numbers, place = np.unique(true, return_inverse=True)
    voted = np.minimum(label.ravel().astype(np.int64), classes_of_data)
    votes = np.bincount(place.ravel() * (classes_of_data + 1) + voted, minlength=(classes_of_data + 1) * len(numbers))
    classes = votes.reshape(-1, classes_of_data + 1)[:, :classes_of_data].argmax(-1)
    wanted = (numbers > 0) & np.isin(classes, only)
    return np.where(wanted[place].reshape(true.shape), true, 0), classes[wanted]

"""What a data set is like, in some numbers on which the rules of a plan decide: its fingerprint."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxseg.data.base import Source
from jaxseg.data.batching import cores
from jaxseg.data.folder import FolderSource
from jaxseg.data.images import opened
from jaxseg.data.leaks import Leaks, Place, find_leaks, name_of
from jaxseg.data.near_duplicates import NOTHING, Sketch, sketch
from jaxseg.data.notes import note
from jaxseg.data.rasters import geographic_tags
from jaxseg.data.reading import STOP, Reading
from jaxseg.data.videos import about_videos
from jaxseg.errors import DataError, counted
from jaxseg.plan.facts import ClassSums, ImageFacts, class_sums, difference, facts_of, quantile_of, typical_size

T = TypeVar("T")
_SIZES = 8  # that a fingerprint lists
_NAMED = 20  # pairs of near-duplicates in two splits that it names
_ALIKE = 50  # and within the training split


@dataclass(frozen=True)
class ClassFacts:
    """A class in the training split.

    Attributes:
        name: its name.
        share: of the labelled pixels.
        images: how many have it.
        objects: connected regions of four pixels or more.
        diameters: of the disc of the area of an object, in pixels: not exceeded by 10, 50 and 90 % of the objects.
        typical: the diameter of the object that half of the pixels of the class lie in at most.
        mean, std: of the mean of the channels in its pixels, in [0, 1].
        below: the mean over its objects of how far the centre of mass lies below the middle of the object's box, as a
            share of the height of the box; about 0 where objects are as often upside down.
    """

    name: str
    share: float
    images: int
    objects: int
    diameters: tuple[float, float, float]
    typical: float
    mean: float
    std: float
    below: float = 0.0


@dataclass(frozen=True)
class Fingerprint:
    """A data set; but for `images` and `leaks`, its training split.

    Attributes:
        images: {split: how many}.
        sizes: (height, width, how many images), the commonest first, eight at most.
        num_sizes: how many different sizes there are.
        area: the pixels of all images.
        middle: the median height and width.
        largest: the height and width of the image of the most pixels.
        aspects: width by height, the least and the largest.
        channels: that are read from the files.
        bits: of a stored value, the most of all images; 0 with `data.range`.
        brightest: the largest value, in [0, 1].
        mean, std: of each channel in [0, 1], each image counting the same.
        coloured: the share of images whose channels differ.
        ignored: the share of pixels without a label.
        up_down, left_right: how much the shares of the classes differ between the halves of images, from 0 to 1.
        located: the share of files with tags of their place on the earth.
        resolutions: pixels an inch of files that say so, (value, how many), the commonest first.
        classes: one row each.
        near_duplicates: {split: how many images are nearly the same as another one of it before them}.
        leaks: images that are nearly the same in two splits, as pairs of names; 20 at most.
        num_leaks: how many images of the other splits have such a one in the training split.
        alike: images that are nearly the same within the training split, as pairs of names; 50 at most.
        videos: a sentence for each split that may share videos with the training split.
    """

    images: dict[str, int]
    sizes: tuple[tuple[int, int, int], ...]
    num_sizes: int
    area: int
    middle: tuple[int, int]
    largest: tuple[int, int]
    aspects: tuple[float, float]
    channels: int
    bits: int
    brightest: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    coloured: float
    ignored: float
    up_down: float
    left_right: float
    located: float
    resolutions: tuple[tuple[float, int], ...]
    classes: tuple[ClassFacts, ...]
    near_duplicates: dict[str, int]
    leaks: tuple[tuple[str, str], ...]
    num_leaks: int
    alike: tuple[tuple[str, str], ...] = ()
    videos: tuple[str, ...] = ()

    @property
    def train(self) -> int:
        """The number of training images."""
        return next(iter(self.images.values()))

    @property
    def whole_range(self) -> str:
        """In words, what the largest value that there could be is."""
        return f"what {self.bits} bits hold" if self.bits else "the upper end of data.range"

    @property
    def things(self) -> tuple[ClassFacts, ...]:
        """The classes with objects but the one of the most pixels, which is taken for what is around the others."""
        most = max(self.classes, key=lambda each: each.share, default=None)
        return tuple(each for each in self.classes if each is not most and each.objects)


def fingerprint(splits: Mapping[str, Source], reading: Reading = STOP) -> Fingerprint:
    """Reads every example of some splits, the training split first, each once; keeps some kB of each.

    Args:
        splits: by name.
        reading: what to do about a training image that cannot be read; with "skip" it counts nowhere, and a note names
            it. Of images of the other splits only the limit of time applies.

    Raises:
        DataError: if an example cannot be read.
    """
    (first, source), *others = splits.items()
    sums, train, sketches = None, [], {first: []}
    for found in read(source, lambda each: (facts_of(*each), class_sums(*each, len(source.info.classes))), reading):
        sketches[first].append(NOTHING if found is None else found[0].sketch)
        if found is not None:
            train.append(found[0])
            sums = found[1] if sums is None else sums + found[1]
    if sums is None:
        raise DataError(f"None of the {counted(len(source), 'training image')} can be read.")
    stop = replace(reading, on_error="stop")
    sketches |= {name: [each or NOTHING for each in read(other, _sketch, stop)] for name, other in others}
    leaks = find_leaks(sketches)
    found = summary(train, sums, splits, leaks, *_tags(source))
    names = {split: [each.name(i) for i in range(len(each))] for split, each in splits.items()}
    return replace(found, videos=tuple(about_videos(names, sketches)))


def _sketch(example: tuple[np.ndarray, np.ndarray]) -> Sketch:
    return sketch(example[0])


def read(
    source: Source, function: Callable[[tuple[np.ndarray, np.ndarray]], T], reading: Reading = STOP
) -> Iterator[T | None]:
    """Yields the function of (image, label) for each example of a source, which some threads read.

    With "skip" it is None for an example that cannot be read, which a note names.
    """

    def of_example(index: int) -> T | None:
        try:
            example = reading.example(source, index)
        except DataError as error:
            if reading.on_error != "skip":
                raise
            note(f"{error} data.on_error=skip: it is left out.")
            return None
        return function((example["image"], example["label"]))

    ahead = 4 * cores()
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(source), ahead):
            yield from pool.map(of_example, range(start, min(start + ahead, len(source))))


def summary(
    train: Sequence[ImageFacts],
    sums: ClassSums,
    splits: Mapping[str, Source],
    leaks: Leaks,
    located: float,
    resolutions: tuple[tuple[float, int], ...],
) -> Fingerprint:
    """Returns the fingerprint of the facts of the training images, and the sums of their classes."""
    classes = next(iter(splits.values())).info.classes
    sizes = collections.Counter(each.size for each in train)
    common = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    mean = np.mean([each.mean for each in train], 0)
    std = np.sqrt(np.maximum(np.mean([each.square for each in train], 0) - mean**2, 0))
    labelled = int(sums.pixels.sum())
    if not labelled:
        raise DataError("Every pixel of the training images is ignored: there is nothing to learn.")
    height, width = (int(v) for v in np.median([each.size for each in train], 0))
    aspects = [w / h for h, w in sizes]
    ignored = sum(each.ignored for each in train)
    return Fingerprint(
        images={split: len(of_split) for split, of_split in splits.items()} | {next(iter(splits)): len(train)},
        sizes=tuple((*size, count) for size, count in common[:_SIZES]),
        num_sizes=len(sizes),
        area=sum(h * w * count for (h, w), count in sizes.items()),
        middle=(height, width),
        largest=max(sizes, key=lambda size: (size[0] * size[1], size)),
        aspects=(round(min(aspects), 3), round(max(aspects), 3)),
        channels=len(mean),
        bits=max(each.bits for each in train),
        brightest=round(max(each.largest for each in train), 4),
        mean=tuple(round(float(v), 4) for v in mean),
        std=tuple(round(float(v), 4) for v in std),
        coloured=round(float(np.mean([each.coloured for each in train])), 4),
        ignored=round(ignored / (ignored + labelled), 6),
        up_down=round(difference(sums.upper, sums.lower), 4),
        left_right=round(difference(sums.left, sums.right), 4),
        located=located,
        resolutions=resolutions,
        classes=tuple(_class(sums, i, name, labelled) for i, name in enumerate(classes)),
        near_duplicates=leaks.within,
        leaks=_names(leaks.between[:_NAMED], splits),
        num_leaks=len(leaks.between),
        alike=_names(leaks.alike[:_ALIKE], splits),
    )


def _names(pairs: Sequence[tuple[Place, Place]], splits: Mapping[str, Source]) -> tuple[tuple[str, str], ...]:
    return tuple((name_of(splits[a], i), name_of(splits[b], j)) for (a, i), (b, j) in pairs)


def _class(sums: ClassSums, index: int, name: str, labelled: int) -> ClassFacts:
    pixels, bins = max(int(sums.pixels[index]), 1), sums.sizes[index]
    mean = float(sums.grey[index]) / pixels
    low, middle, high = (quantile_of(bins, share) for share in (0.1, 0.5, 0.9))
    return ClassFacts(
        name=name,
        share=round(int(sums.pixels[index]) / labelled, 6),
        images=int(sums.images[index]),
        objects=int(bins.sum()),
        diameters=(low, middle, high),
        typical=typical_size(bins),
        mean=round(mean, 4),
        std=round(float(np.sqrt(max(float(sums.square[index]) / pixels - mean**2, 0.0))), 4),
        below=round(float(sums.below[index]) / max(int(bins.sum()), 1), 4),
    )


def _tags(source: Source) -> tuple[float, tuple[tuple[float, int], ...]]:
    """Returns the share of files that say where on the earth they lie, and their resolutions in pixels an inch."""
    if not isinstance(source, FolderSource):
        return 0.0, ()
    files = [pair.image for pair in source.pairs]
    with ThreadPoolExecutor(cores()) as pool:
        located = sum(map(bool, pool.map(geographic_tags, files)))
        found = collections.Counter(value for value in pool.map(_pixels_an_inch, files) if value)
    common = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return round(located / len(files), 4), tuple(common[:_SIZES])


def _pixels_an_inch(path: Path) -> float:
    """Returns the horizontal resolution that a file gives; 0 where it gives none."""
    try:
        with opened(path) as image:
            return round(float(image.info["dpi"][0]), 1) if "dpi" in image.info else 0.0
    except (DataError, TypeError, ValueError, IndexError):
        return 0.0

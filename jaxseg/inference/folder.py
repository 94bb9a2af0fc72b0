"""Segments many image files: reading, the device and writing work at the same time."""

import collections
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxseg import pictures, sets
from jaxseg.data.batching import cores
from jaxseg.data.images import read_image
from jaxseg.data.rasters import geographic_tags
from jaxseg.errors import DataError, OutOfMemoryError, counted, printable
from jaxseg.inference.earlier import EarlierFiles, find_earlier
from jaxseg.inference.large import BusyError, is_large, segment_large
from jaxseg.inference.outputs import Extra, Outputs, cannot_write, digest, is_output, would_replace
from jaxseg.inference.predictions_table import TABLE, PredictionsTable, Written
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.segment import Segmentation

Refine = Callable[[np.ndarray, Segmentation], Segmentation]
"""Changes a prediction before it is written: (image u8|u16[h,w,c], prediction) -> prediction."""


@dataclass
class Summary:
    """What a call has done.

    Attributes:
        done: the number of images that were segmented.
        failed: the number of images that could not be.
        large: those of `done` that were segmented by parts, and have a TIFF file of classes.
        files: the files of the whole call.
    """

    done: int = 0
    failed: int = 0
    large: int = 0
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class FolderPrediction:
    """Segments image files and writes the outputs of each.

    Attributes:
        predictor: segments the images.
        outputs: what is written.
        refine: changes each prediction before it is written, one after another; they have probabilities where
            `probabilities` asks for them.
        extras: further files of each image.
        probabilities: whether `refine` needs them.
        batch: the largest number of images that the networks see at once.
        identity: says which networks are used, see `large.segment_large`.
        require: called with the shape (h, w, c) of an image before it is segmented; what it raises is its problem.
    """

    predictor: Predictor
    outputs: Outputs
    refine: Sequence[Refine] = ()
    extras: Sequence[Extra] = ()
    probabilities: bool = False
    batch: int = 1
    identity: str = ""
    require: Callable[[tuple[int, ...]], object] = lambda shape: None

    def __call__(self, names: Mapping[Path, str], kept: Mapping[Path, str] | None = None) -> Summary:
        """Segments the images of `names`, {image: the NAME of its outputs}, and says which cannot be segmented.

        What an earlier call wrote for an image and this call does not is removed, unless its classes are of the same
        networks, options and content of the image; a line says so, and another if pictures of an earlier call stay
        beside the name of an image that fails. `predictions.csv` lists the images, also those of `kept`, which an
        earlier call has segmented.

        Raises:
            ConfigError: if the outputs cannot be written.
        """
        kept = {} if kept is None else kept
        table = PredictionsTable(self.outputs, kept)
        earlier = find_earlier(self.outputs, {**kept, **names}, self._suffixes)
        summary, old, busy = Summary(), 0, False
        try:
            with progress("predict", total=len(names)) as bar:
                for path, outcome in self._results(names, earlier):
                    bar.update()
                    if isinstance(outcome, Exception):
                        summary.failed += 1
                        busy |= isinstance(outcome, BusyError)
                        old += is_output(self.outputs.files(names[path])["classes"])
                        text = _sentence(path, outcome)
                        tqdm.write(f"error: {printable(text)}", file=sys.stderr)
                        table.add(path, names[path], problem=text)
                        for extra in self.extras:
                            extra.leave_out(path)
                    else:
                        summary.done += 1
                        summary.large += outcome.large
                        table.add(path, names[path], outcome)
        except BaseException:  # also of a person who stops it: the tables list no image whose classes are others now
            earlier.prune_tables(())
            raise
        if old:
            failed = counted(summary.failed, "failed image")
            print(f"The files of {old} of {failed} in {self.outputs.out} are those of an earlier call.")
        if busy:
            print(
                f"{TABLE} in {self.outputs.out} is left to the other process, so that it does not list the images of "
                "this call; the same command after that process lists them."
            )
        else:
            table.write()  # first: what follows may fail
        for extra in self.extras:
            summary.files += extra.finish(self.outputs.out)
        earlier.prune_tables(summary.files)
        if text := str(earlier):
            print(text)
        summary.files += [] if busy else [self.outputs.out / TABLE]
        return summary

    @property
    def _suffixes(self) -> list[str]:
        return [suffix for extra in self.extras for suffix in extra.suffixes]

    def _results(
        self, names: Mapping[Path, str], earlier: EarlierFiles
    ) -> Iterator[tuple[Path, "Written | Exception"]]:
        """Yields (image, what was written or why it failed), in the order of `names`."""
        workers = max(2, min(4, cores()))
        with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as writers:
            written: collections.deque[tuple[Path, Future[Written] | Exception]] = collections.deque()
            try:
                for path, image, result in self._segmented(names, earlier, readers, 2 * max(workers, self.batch)):
                    if isinstance(result, Segmentation):
                        written.append((path, writers.submit(self._write, path, names[path], image, result, earlier)))
                    else:
                        written.append((path, result))
                    while written and (len(written) > 2 * workers or _is_done(written[0][1])):
                        yield _outcome(*written.popleft())
                while written:
                    yield _outcome(*written.popleft())
            finally:  # where writing fails, what is not begun is left
                for pool in (readers, writers):
                    pool.shutdown(wait=True, cancel_futures=True)

    def _segmented(
        self, names: Mapping[Path, str], earlier: EarlierFiles, readers: ThreadPoolExecutor, ahead: int
    ) -> Iterator[tuple[Path, Any, Any]]:
        """Yields (path, image, prediction or error or what was written), in the order of `names`."""
        pending: collections.deque[tuple[list[tuple[Path, np.ndarray]], Any]] = collections.deque()
        group: list[tuple[Path, np.ndarray]] = []
        key: Any = None

        def start() -> None:
            nonlocal group
            if group:
                pending.append((group, self._launch([image for _, image in group])))
                group = []

        for path, image in self._images(list(names), readers, ahead):
            if isinstance(image, np.ndarray):
                try:
                    self.require(image.shape)
                    found = self.predictor.batch_key(image, self._wants_probabilities)
                except OutOfMemoryError as error:
                    image = error
                else:
                    if group and (found is None or found != key or len(group) == self.batch):
                        start()
                    group, key = [*group, (path, image)], found
                    while len(pending) > 1:  # the device has the next batch already
                        yield from _waited(*pending.popleft())
                    continue
            start()
            while pending:
                yield from _waited(*pending.popleft())
            yield path, None, self._segment_by_parts(path, names[path], earlier) if image is None else image
        start()
        while pending:
            yield from _waited(*pending.popleft())

    def _images(
        self, paths: Sequence[Path], readers: ThreadPoolExecutor, ahead: int
    ) -> Iterator[tuple[Path, np.ndarray | Exception | None]]:
        """Yields (path, the image, the error of reading it, or None for one that is read by parts)."""
        reading: collections.deque[tuple[Path, Future[Any]]] = collections.deque()
        waiting = iter(paths)
        while True:
            while len(reading) < ahead and (path := next(waiting, None)) is not None:
                reading.append((path, readers.submit(self._read, path)))
            if not reading:
                return
            path, future = reading.popleft()
            try:
                yield path, future.result()
            except (DataError, MemoryError) as error:
                yield path, error

    def _read(self, path: Path) -> np.ndarray | None:
        networks = self.predictor.networks
        if self._by_parts and is_large(path):
            return None
        return read_image(path, networks.channels, networks.limits)

    @property
    def _by_parts(self) -> bool:
        """Whether large images are read by parts: those that are cut into tiles."""
        tiles = self.predictor.tiling.tiles
        resized = any(m.parts.config.data.fit == "resize" for m in self.predictor.networks.members)
        return tiles is not None and not (tiles == "auto" and resized)

    @property
    def _wants_probabilities(self) -> bool:
        return self.outputs.probabilities or self.probabilities or any(e.needs_probabilities for e in self.extras)

    def _launch(self, images: list[np.ndarray]) -> Callable[[], list[Any]]:
        try:
            wait = self.predictor.launch(images, self._wants_probabilities)
        except (DataError, MemoryError) as error:
            if len(images) == 1:
                return lambda error=error: [error]
            alone = [self._launch([image]) for image in images]  # a batch takes more than an image
            return lambda: [wait()[0] for wait in alone]

        def results() -> list[Any]:
            try:
                return wait()
            except (DataError, MemoryError) as error:
                if len(images) == 1:
                    return [error]
                return [self._launch([image])()[0] for image in images]

        return results

    def _write(
        self, path: Path, name: str, image: np.ndarray, result: Segmentation, earlier: EarlierFiles
    ) -> "Written":
        for refine in self.refine:
            result = refine(image, result)
        further = [self.outputs.out / f"{name}{suffix}" for suffix in self._suffixes]
        source = digest(path)
        tags = geographic_tags(path) if self.outputs.form == "tiff" else ()
        try:
            if self.outputs.holds_same_classes(name, source):
                earlier.keep(path, name)
            else:
                earlier.remove(path, name, earlier.beside(name, self.outputs.files(name).values()), further)
            self.outputs.write(name, image, result, source=source, tags=tags)
            for extra in self.extras:
                extra.write(path, self.outputs.out / name, image, result)
        except OSError as error:
            raise cannot_write(name, self.outputs.out, error) from error
        classes = len(self.outputs.classes)
        if self.outputs.multilabel:
            counts = sets.pixel_counts(result.classes, classes)
        else:
            counts = np.bincount(result.classes.ravel(), minlength=classes)
        return Written(result.classes.shape[0], result.classes.shape[1], counts)

    def _segment_by_parts(self, path: Path, name: str, earlier: EarlierFiles) -> "Written | Exception":
        """Segments a TIFF file by parts; writes NAME.tif and the overlay of a reduced image."""
        file = self.outputs.out / f"{name}.tif"
        given = [extra.option for extra in self.extras] + (["--crf"] if self.refine else [])
        if self.outputs.multilabel:
            return DataError(
                f"{path} is so large that it is segmented by parts, to a TIFF file of one class a pixel, and here a "
                "pixel may have several: cut the image, or give --tiles none."
            )
        if self.outputs.probabilities:
            given.append("--top-k" if self.outputs.top_k else "--probabilities")
        if given:
            return DataError(
                f"{path} is so large that it is segmented by parts, which gives its classes alone; leave out "
                f"{' and '.join(sorted(given))}, or cut the image."
            )
        if self.outputs.form in ("color", "npz"):
            return DataError(
                f"{path} is so large that it is segmented by parts, to a TIFF file of class indices; leave out "
                f"--format {self.outputs.form}, or cut the image."
            )
        if file.is_file() and not is_output(file):
            return DataError(would_replace(file))
        overlay, mark = self.outputs.out / f"{name}-overlay.png", self.outputs.mark(digest(path))
        same = self.outputs.holds_same_classes(name, digest(path))
        old = {} if same else earlier.beside(name, [file, overlay] if self.outputs.overlay else [file])
        with progress(path.name, "tile", leave=False) as tiles:

            def count(done: int, total: int) -> None:
                tiles.total = total
                tiles.update(done - tiles.n)

            try:
                result = segment_large(
                    self.predictor,
                    path,
                    file,
                    colors=self.outputs.colors,
                    values=self.outputs.values,
                    software=mark,
                    identity=self.identity,
                    progress=count,
                )
                if same:
                    earlier.keep(path, name)
                else:
                    earlier.remove(path, name, old)
                if self.outputs.overlay:
                    small = pictures.overlay(result.preview, result.preview_classes, self.outputs.colors)
                    pictures.save_image(small, overlay, software=mark)
            except OSError as error:
                raise cannot_write(name, self.outputs.out, error) from error
            except (DataError, OutOfMemoryError) as error:
                return error
        if result.resumed:
            tqdm.write(f"{path}: {100 * result.resumed:.0f} % was finished by an earlier call.")
        return Written(*result.size, result.counts, large=True)


def _waited(group: list[tuple[Path, np.ndarray]], results: Callable[[], list[Any]]) -> Iterator[tuple[Path, Any, Any]]:
    for (path, image), result in zip(group, results()):
        yield path, image, result


def _is_done(outcome: Any) -> bool:
    return not isinstance(outcome, Future) or outcome.done()


def _outcome(path: Path, outcome: Any) -> tuple[Path, Any]:
    if not isinstance(outcome, Future):
        return path, outcome
    try:
        return path, outcome.result()
    except (DataError, MemoryError) as error:  # an overlay, which NumPy makes, may lack memory too
        return path, error


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, DataError) or str(path) in str(error):
        return str(error)
    reason = str(error) if isinstance(error, OutOfMemoryError) else "the machine has too little memory for it"
    return f"{path} cannot be segmented: {reason}."

"""A trained run as Python code uses it: `run = load("runs/camvid")`, `run.predict(image)`, `run.evaluate("test")`."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import jax
import numpy as np
from PIL import Image

from jaxseg.arguments import expanded
from jaxseg.data.images import from_array, from_pillow, read_image
from jaxseg.errors import DataError, counted
from jaxseg.inference.crf import with_crf
from jaxseg.inference.evaluation import Evaluation, evaluate
from jaxseg.inference.options import average_of, require_unseen, with_folds
from jaxseg.inference.predictor import Predictor, Tiling, make_predictor
from jaxseg.inference.samples import sample
from jaxseg.inference.segment import Segmentation
from jaxseg.inference.tiles import TilesLike, parse_tiles
from jaxseg.inference.views import parse_views
from jaxseg.nn.crf import CRF
from jaxseg.run.fold_folder import FOLDS_FILE
from jaxseg.run.load import Run, Which, load_run, require_single

# A file, a Pillow image, or an array u8|u16[h,w], u8|u16[h,w,c] or of floats in [0, 1], RGB where it has colour.
ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedRun(Run):
    """A trained network that predicts and is scored; see `Run` for its attributes."""

    @overload
    def predict(
        self,
        image: ImageLike,
        *,
        probabilities: bool = False,
        tiles: TilesLike = "auto",
        overlap: float = 0.5,
        average: str = "",
        crf: CRF | str | None = None,
    ) -> Segmentation: ...

    @overload
    def predict(
        self,
        image: list[ImageLike] | tuple[ImageLike, ...],
        *,
        probabilities: bool = False,
        tiles: TilesLike = "auto",
        overlap: float = 0.5,
        average: str = "",
        crf: CRF | str | None = None,
    ) -> list[Segmentation]: ...

    def predict(
        self,
        image: Any,
        *,
        probabilities: bool = False,
        tiles: TilesLike = "auto",
        overlap: float = 0.5,
        average: str = "",
        crf: CRF | str | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Returns the classes u8[h,w] of an image at its own size; for a list of images, a list.

        The network is compiled once for each size that it sees.

        Args:
            image: a file, a Pillow image, or an array u8|u16[h,w], u8|u16[h,w,c] or of floats in [0, 1], RGB where it
                has colour; it is converted to the channels of the network and normalised here.
            probabilities: also return f32[h,w,k], those of every class.
            tiles: "auto": an image that does not fit into memory is cut into overlapping tiles; (height, width), a
                number or "256x512": every image is, into tiles of this size; None: none is.
            overlap: the share of a tile's side that is in the next too, in [0, 1).
            average: the views of an image whose probabilities are averaged: "flips", "flips:hv", "scales:.75-1-1.25" or
                both with a comma; "": the image alone.
            crf: refines the probabilities by a dense CRF over the image: the name of a preset such as "deeplab-v1",
                "NAME=VALUE,...", or settings; None: none does.

        Raises:
            ArgumentError: for an invalid `tiles`, `overlap`, `average` or `crf`.
            DataError: if the file cannot be read, or the array has another shape, type or range.
            OutOfMemoryError: if the image is too large for the device.
        """
        segment = self._predictor(tiles, overlap, average, crf)
        data = self.config.data
        if isinstance(image, list | tuple):
            return [segment(read_input(one, data.channels, data.range), probabilities) for one in image]
        return segment(read_input(image, data.channels, data.range), probabilities)

    def sample(self, count: int = 1, seed: int = 0) -> np.ndarray:
        """Returns u8[count,h,w,c]: images that a network with a generator makes from the noise of `seed`.

        Load such a run with which="last": "best" has the best classifier, which is not the best generator.

        Raises:
            ArgumentError: if `count` or `seed` is invalid.
            ConfigError: if the network generates no images.
        """
        require_single(self, "A sample")
        return sample(self.parts, self._on_device, count, seed)

    def evaluate(
        self,
        split: str = "val",
        *,
        boundary: float | bool | None = None,
        tiles: TilesLike = None,
        overlap: float = 0.5,
        average: str = "",
        crf: CRF | str | None = None,
    ) -> Evaluation:
        """Returns the scores on a split of the data, which print as a table; see `jaxseg.inference.evaluate`.

        Args:
            split: "train", "val" or "test"; for TFDS data also a slice, for a folder any split with images and masks.
            boundary: scores boundaries too: those that lie within this many pixels of each other match; True: within
                0.75 % of the image's diagonal.
            tiles, overlap, average, crf: as of `predict`; what is averaged or refined is compared with one view alone.

        Raises:
            ArgumentError: for an invalid argument.
            DataError: if the data is missing or empty, has no such split, or its classes are not those of the run.
        """
        if self.members:
            require_unseen([str(self.workdir)], split)
        asked = parse_tiles(tiles) is not None or len(parse_views(average)) > 1 or crf is not None
        predictor = self._predictor(tiles, overlap, average, crf) if asked else None
        return evaluate(self, split, boundary=boundary, predictor=predictor)

    def __repr__(self) -> str:
        if self.members:
            what = f"{counted(len(self.members), 'network')} {self.config.model.name} ({self.which} checkpoints in "
            return f"the average of {what}{str(self.workdir)!r}), {self._about_classes}"
        return (
            f"{self.config.model.name} after {counted(self.step, 'step')} ({self.which} checkpoint of "
            f"{str(self.workdir)!r}), {self._about_classes}"
        )

    @property
    def _about_classes(self) -> str:
        return f"{counted(len(self.classes), 'class')}: {', '.join(self.classes)}"

    def _predictor(self, tiles: TilesLike, overlap: float, average: str, crf: CRF | str | None) -> Predictor:
        """Returns the predictor for some options; those of the same views share their compiled programs."""
        size, views = parse_tiles(tiles), parse_views(average)
        key = (size is None, views)  # tiles may be split over several devices
        if key not in self._predictors:
            self._predictors[key] = make_predictor([self], tiles=tiles, overlap=overlap, average=views)
        predictor = dataclasses.replace(self._predictors[key], tiling=Tiling(size, overlap))
        settings = CRF.parse(crf) if isinstance(crf, str) else crf
        return predictor if settings is None else with_crf(predictor, settings)

    @functools.cached_property
    def _predictors(self) -> dict[Any, Predictor]:
        return {}

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.variables)


def load(workdir: str | Path, which: Which = "best", **overrides: Any) -> TrainedRun:
    """Returns the run in a workdir, ready to predict and to be scored.

    Args:
        workdir: the workdir of the training run; of a folder of `jaxseg train --folds` the probabilities of all its
            networks are averaged.
        which: "best" by validation mIoU (the last, where nothing was evaluated yet) or "last".
        **overrides: keys of `jaxseg.config.FREE_KEYS`, for data in another place: `**{"data.dir": PATH}`, or
            `data__dir=PATH`.

    Raises:
        ArgumentError: if `workdir` is no path, or `which` neither "best" nor "last".
        ConfigError: if the workdir holds no run, its files cannot be read, a fold has no checkpoint yet, or a key is
            unknown or not free.
        CheckpointError: if there is no checkpoint, or it belongs to another model.
    """
    if isinstance(workdir, str | Path) and (expanded(workdir) / FOLDS_FILE).is_file():
        words = [str(workdir)]
        run = average_of(words, [load_run(fold, which, overrides) for fold in with_folds(words)])
    else:
        run = load_run(workdir, which, overrides)
    return TrainedRun(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})


def read_input(image: Any, channels: int, limits: Sequence[float] = ()) -> np.ndarray:
    """Returns u8|u16|f32[h,w,channels] of whatever `TrainedRun.predict` takes; `limits` as of `images.read_image`."""
    if isinstance(image, str | Path):
        path = expanded(image)
        if path.is_dir():
            files = f'run.predict(sorted(Path({str(image)!r}).glob("*.png")))'
            raise DataError(f"{path} is a folder; give its files: {files}.")
        return read_image(path, channels, limits)
    if isinstance(image, Image.Image):
        return from_pillow(image, channels) if not len(limits) else from_array(from_pillow(image, 0), channels, limits)
    if not hasattr(image, "__array__"):  # an array of NumPy, JAX or another library
        raise DataError(
            f"An image is a file, a Pillow image or an array, got an object of type {type(image).__name__}."
        )
    array = np.asarray(image)
    if array.dtype.kind in "OSU":
        raise DataError(
            f"The array of an image holds numbers, got objects of type {array.dtype.type.__name__}; give several files "
            "as a list."
        )
    return from_array(array, channels, limits)

"""Data sets through TFDS, without TensorFlow: prepared once as array records, then read by index.

CamVid and VOC 2012 have builders here (`jaxseg/data/datasets`); `oxford_iiit_pet`, `cityscapes` and `scene_parse150`
use the builders of TFDS. All of them prepare the data from an unpacked download in `data.dir`.
"""

import functools
import hashlib
import importlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.arguments import expanded, located
from jaxseg.data.base import DataInfo, Example
from jaxseg.data.datasets import Dataset, describe
from jaxseg.errors import ConfigError, DataError, counted, first_line, nearest
from jaxseg.pictures.opening import open_image

DEFAULT_CACHE = "~/.cache/jaxseg/tfds"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class TFDSSource:
    """One split of a TFDS data set: `source[i] -> {image u8[h,w,c], label u8[h,w]}`, see `jaxseg.data.base.Source`.

    The examples are in the order of TFDS, a fixed shuffle of the files.

    Args:
        name: camvid, voc2012, oxford_iiit_pet, cityscapes or scene_parse150.
        split: "train", "val", "test", or a slice or sum of splits: "train[:90%]", "train+val". If a split here is only
            a part of the TFDS split of the same name (pets: train), a slice of it is a slice of the TFDS split.
        data_dir: where the raw data is; empty: the data is already prepared, or TFDS downloads it.
        cache: where prepared data sets are stored; empty: `DEFAULT_CACHE`.
        channels: 1, 3 or 4; images are converted.

    Raises:
        DataError: if the data is missing (saying what to download and where to put it), cannot be prepared, or has no
            such split.
    """

    def __init__(self, name: str, split: str, data_dir: str = "", cache: str = "", channels: int = 3):
        self._dataset = describe(name)
        self._table = self._dataset.label_table()
        self._directory = str(prepare(self._dataset, data_dir, cache))
        self._split = tfds_split(self._dataset, split)
        dataset = self._dataset
        self.info = DataInfo(dataset.classes, dataset.colors, dataset.ignore, channels, dataset.values)
        self._lock = threading.Lock()
        self._records: Any = None
        self._length = len(self._open())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        record = self._open()[index]
        name = self._name(record, index)
        image = _decode(record[self._dataset.image], name).convert(_MODES[self.info.channels])
        image = np.asarray(image).reshape(image.height, image.width, self.info.channels)
        mask = np.asarray(_decode(record[self._dataset.mask], f"the mask of {name}"))
        return {"image": image, "label": self._label(mask, name)}

    def name(self, index: int) -> str:
        """Returns the file name of an example, or its number if the data set stores no names."""
        return self._name(self._open()[index], index)

    def label_size(self, index: int) -> tuple[int, int]:
        """Returns (height, width) of an example's mask, from the header of its file."""
        with open_image(io.BytesIO(self._open()[index][self._dataset.mask])) as image:
            return image.height, image.width

    def _label(self, mask: np.ndarray, name: str) -> np.ndarray:
        raw = mask if mask.ndim == 2 else mask[..., 0]
        label = self._table[raw]
        if label.min(initial=0) < 0:
            raise DataError(
                f"The mask of {name} holds the value {raw[label < 0].max()}; {self._dataset.name} has only "
                f"{', '.join(map(str, sorted(self._dataset.labels)))} and 255."
            )
        return label.astype(np.uint8)

    def _name(self, record: Mapping[str, Any], index: int) -> str:
        key = self._dataset.file_name
        return f"{self._dataset.name}-{index:05d}" if key is None else Path(record[key].decode()).name

    def _open(self) -> Any:
        """Opens the records at the first use in each process."""
        with self._lock:
            if self._records is None:
                self._records = _open_records(self._directory, self._dataset, self._split)
        return self._records

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_records", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _records=None, _lock=threading.Lock())


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = open_image(io.BytesIO(data))
        image.load()
    except Exception as error:  # the classes are those of Pillow's decoders
        raise DataError(f"{name} cannot be decoded: {first_line(error)[:200]}.") from error
    return image


def tfds_split(dataset: Dataset, split: str) -> str:
    """Returns the TFDS name of `split`: "val" becomes the data set's name for it; slices and sums are kept.

    Raises:
        DataError: if the data set has no such split with public masks.
    """
    parts = []
    for part in split.split("+"):
        match = re.fullmatch(r"\s*(\w+)\s*(\[.*\])?\s*", part)
        base, piece = match.groups() if match else (part, None)
        known = {**{value: value for value in dataset.splits.values()}, **dataset.splits}
        whole = known[base] if base in known else None
        if whole is not None and piece and "[" in whole:
            whole = base if any(value.startswith(f"{base}[") for value in dataset.splits.values()) else None
        if whole is None:
            raise DataError(
                f"{dataset.name} has no split {part.strip()!r} with public masks; it has "
                f"{', '.join(dataset.splits)}, and slices of them such as train[:90%]."
                f"{nearest(base, dataset.splits, listing=False)}"
            )
        parts.append(whole + (piece or ""))
    return "+".join(parts)


def _open_records(directory: str, dataset: Dataset, split: str) -> Any:
    import tensorflow_datasets as tfds

    keep = {dataset.image: tfds.decode.SkipDecoding(), dataset.mask: tfds.decode.SkipDecoding()}
    try:
        builder: Any = tfds.builder_from_directory(directory)
        return builder.as_data_source(split=split, decoders=keep)
    except Exception as error:  # TFDS raises many types, e.g. for a bad slice or a file format without random access.
        raise DataError(f"TFDS cannot read the split {split!r} of {dataset.name} in {directory}: {error}") from error


def prepare(dataset: Dataset, data_dir: str, cache: str) -> Path:
    """Prepares `dataset` in the cache, unless it is prepared already, and returns the directory of its records.

    Records made from `data_dir` are stored under a digest of the names, sizes and times of its files, so another folder
    or changed files are prepared again and never confused with the old ones. With an empty `data_dir` the cache must
    hold exactly one prepared copy, or TFDS has to download the data.

    Raises:
        DataError: if the data is missing or cannot be prepared.
    """
    try:
        root = expanded(cache or DEFAULT_CACHE)
    except ConfigError as error:
        raise DataError(f"data.cache: {error} Prepared data need a folder: --config.data.cache=DIR.") from error
    if not data_dir:
        return _without_files(dataset, root)
    folder = expanded(data_dir)
    missing = [f for f in (folder, *(folder / name for name in dataset.folders)) if not f.is_dir()]
    if missing:
        raise DataError(
            f"There is no folder {located(missing[0])}, so data.dir holds no {dataset.name}. {dataset.get_it}"
        )
    return _from_files(dataset, folder, root)


def _without_files(dataset: Dataset, root: Path) -> Path:
    """Returns the only prepared copy in the cache, or lets TFDS download a data set of its own."""
    prepared = [f.parent for f in sorted(root.glob(f"{dataset.name}-*/{dataset.name}/**/dataset_info.json"))]
    if len(prepared) == 1:
        return prepared[0]
    if prepared or not dataset.folders:
        raise DataError(
            f"data.dir is empty and {root} holds {counted(len(prepared), 'prepared copy')}. {dataset.get_it}"
        )
    import tensorflow_datasets as tfds

    return _run(dataset, root, functools.partial(tfds.builder, dataset.name))


def _from_files(dataset: Dataset, folder: Path, root: Path) -> Path:
    import tensorflow_datasets as tfds

    from jaxseg.data.datasets.offline_builders import reading_from

    if dataset.folders:
        files = sorted(f for name in dataset.folders for f in (folder / name).rglob("*") if f.is_file())
        where = root / f"{dataset.name}-{_digest(files, folder)}"
        return _run(
            dataset, where, functools.partial(tfds.builder, dataset.name), lambda b: reading_from(str(folder), b)
        )
    module = importlib.import_module(f"jaxseg.data.datasets.{dataset.name}")
    pairs = module.find_pairs(folder)
    files = [f for split in sorted(pairs) for _, *both in pairs[split] for f in both]
    where = root / f"{dataset.name}-{_digest(files, folder)}"
    return _run(dataset, where, functools.partial(module.Builder, pairs=pairs))


def _run(
    dataset: Dataset, where: Path, make_builder: Callable[..., Any], around: Callable[[Any], Any] = nullcontext
) -> Path:
    """Prepares with a builder in `where`, inside `around(builder)`, unless it is prepared; returns its directory."""
    try:
        builder = make_builder(data_dir=str(where), file_format="array_record")
        if not (Path(builder.data_path) / "dataset_info.json").is_file():
            with around(builder):
                builder.download_and_prepare()
    except Exception as error:  # Whatever failed in TFDS, the message says what the user must provide.
        raise DataError(
            f"TFDS could not prepare {dataset.name} in {where} (data.cache): {type(error).__name__}: {error}. "
            f"{dataset.get_it}"
        ) from error
    return Path(builder.data_path)


def _digest(files: Iterable[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        line = f"{file.relative_to(folder)}|{status.st_size}|{status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]

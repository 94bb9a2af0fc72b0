"""The files of regions that a prediction writes beside its pictures, and the options that ask for them."""

import argparse
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.errors import ConfigError
from jaxseg.inference.outputs import would_replace
from jaxseg.inference.regions import settings
from jaxseg.inference.regions.files import CocoFile, is_own, table_rows, write_geojson, write_table
from jaxseg.inference.regions.settings import RegionSettings
from jaxseg.inference.regions.world import read_world
from jaxseg.inference.segment import Segmentation

TABLE, ANNOTATIONS, OUTLINES = "regions.csv", "regions.json", "-regions.geojson"


@dataclass(frozen=True, eq=False)
class RegionFiles:
    """Writes the regions of each image of a prediction; an `inference.outputs.Extra`.

    NAME-regions.geojson has the outlines of one image; regions.csv and regions.json (COCO) have the regions of all
    images of a call.

    Attributes:
        names: the name of each class.
        settings: how they are found.
        form: of the annotations, "rle" or "polygons".
    """

    names: tuple[str, ...]
    settings: RegionSettings
    form: Any = "rle"
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _rows: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list, repr=False)
    _coco: list[CocoFile] = field(default_factory=list, repr=False)

    @property
    def option(self) -> str:
        """The option of the command that asks for the files."""
        return "--regions"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows NAME in the name of the file of an image."""
        return (OUTLINES,)

    @property
    def needs_probabilities(self) -> bool:
        """The mean probability of each region is in the files."""
        return True

    def require_own(self, out: Path, outputs: Iterable[str]) -> None:
        """Raises ConfigError if a file would be replaced that holds something else.

        Args:
            out: the folder of the outputs.
            outputs: the NAME of each image.
        """
        for file in (out / TABLE, out / ANNOTATIONS, *(out / f"{name}{OUTLINES}" for name in outputs)):
            if file.is_file() and not is_own(file):
                raise ConfigError(would_replace(file))

    def write(self, path: Path, stem: Path, image: np.ndarray, result: Segmentation) -> None:
        """Writes NAME-regions.geojson, and keeps the rows and annotations of the image."""
        regions = self.settings.find(result.classes, result.probabilities)
        world, name = read_world(path), str(path)
        write_geojson(stem.with_name(stem.name + OUTLINES), name, regions, self.names, world)
        rows = table_rows(name, regions, self.names, world)
        with self._lock:
            if not self._coco:
                self._coco.append(CocoFile(self.names, self.settings.only, self.form))
            self._rows.append((name, rows))
        self._coco[0].add(name, regions)

    def leave_out(self, path: Path) -> None:
        """An image that could not be segmented has no lines in the tables."""

    def finish(self, out: Path) -> Sequence[Path]:
        """Writes regions.csv and regions.json; returns them, or nothing if no image was segmented.

        Raises:
            ConfigError: if one cannot be written.
        """
        if not self._rows:
            return ()
        files = out / TABLE, out / ANNOTATIONS
        try:
            write_table(files[0], (row for _, rows in sorted(self._rows, key=lambda each: each[0]) for row in rows))
            self._coco[0].write(files[1], by_name=True, relative=True)
        except OSError as error:
            raise ConfigError(f"The regions cannot be written to {out}: {error.strerror or error}.") from error
        return files


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --regions and what it is done with."""
    parser.add_argument(
        "--regions",
        action="store_true",
        help="also write the connected regions of the classes: regions.csv, regions.json (COCO), NAME-regions.geojson",
    )
    settings.add_options(parser, "--regions")
    parser.add_argument(
        "--coco", choices=("rle", "polygons"), help="of --regions: what regions.json holds (default rle)"
    )


def problem(options: argparse.Namespace) -> str:
    """Returns what is wrong with the options together; "" if nothing is."""
    if options.regions and options.skip_existing:
        return "--regions lists the regions of all images of a call; it cannot be given with --skip-existing"
    return settings.problem(options, "--regions", ["coco"])


def region_files(names: Sequence[str], options: argparse.Namespace) -> RegionFiles:
    """Returns what the options ask for.

    Raises:
        ConfigError: for a name that is no class, or if scikit-image is needed and not installed.
    """
    return RegionFiles(tuple(names), settings.settings_of(names, options), form=options.coco or "rle")

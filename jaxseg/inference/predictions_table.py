"""The table of a call of prediction: predictions.csv."""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxseg.errors import ConfigError
from jaxseg.files import write_atomically
from jaxseg.inference.outputs import Outputs, would_replace

TABLE = "predictions.csv"
_COLUMNS = ("image", "output", "height", "width", "problem")


@dataclass(frozen=True)
class Written:
    """The size of an image, the pixels of each class, and whether it was segmented by parts."""

    height: int
    width: int
    counts: np.ndarray
    large: bool = False


class PredictionsTable:
    """The rows of predictions.csv: each image, its output and its size, and the percentage of each class."""

    def __init__(self, outputs: Outputs, kept: Mapping[Path, str]):
        self._outputs = outputs
        self._file = outputs.out / TABLE
        self._header = [*_COLUMNS[:4], *(f"{name} %" for name in outputs.classes), _COLUMNS[4]]
        earlier = {row[0]: row for row in self._earlier()}
        self._rows: list[list[str]] = []
        for path, name in kept.items():
            if str(path) in earlier:
                self._rows.append(earlier[str(path)])
            else:  # the earlier call was cut off before it wrote the table
                output = os.path.relpath(outputs.files(name)["classes"], outputs.out)
                self._rows.append([str(path), output, "", "", *[""] * len(outputs.classes), ""])

    def add(self, path: Path, name: str, written: Written | None = None, problem: str = "") -> None:
        if written is None:
            self._rows.append([str(path), "", "", "", *[""] * len(self._outputs.classes), problem])
            return
        file = self._outputs.out / f"{name}.tif" if written.large else self._outputs.files(name)["classes"]
        pixels = written.height * written.width if self._outputs.multilabel else written.counts.sum()
        shares = 100 * written.counts[: len(self._outputs.classes)] / max(1, pixels)
        size = [str(written.height), str(written.width)]
        output = os.path.relpath(file, self._outputs.out)
        self._rows.append([str(path), output, *size, *(f"{share:.4f}" for share in shares), problem])

    def write(self) -> Path:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self._header, *self._rows])
        try:
            data = text.getvalue().encode("utf-8", "surrogateescape")  # names may be no UTF-8
            write_atomically(self._file, lambda file: file.write(data))
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be written: {error.strerror or error}.") from error
        return self._file

    def _earlier(self) -> list[list[str]]:
        try:
            with self._file.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                header, *rows = csv.reader(file)
        except (OSError, ValueError, csv.Error):
            return []
        return [row for row in rows if len(row) == len(header)] if header == self._header else []


def require_own_table(out: Path) -> None:
    """Raises ConfigError if `out` has a predictions.csv that prediction did not write."""
    file = out / TABLE
    if not file.is_file():
        return
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            header = next(csv.reader(lines), [])
    except (OSError, ValueError, csv.Error):
        header = []
    if tuple(header[:4]) != _COLUMNS[:4] or header[-1:] != [_COLUMNS[4]]:
        raise ConfigError(would_replace(file))


def images_of_table(out: Path) -> dict[str, Path]:
    """Returns {NAME: image} of the outputs that the table of an earlier call lists; {} where there is none."""
    try:
        with (out / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))[1:]
        return {os.path.splitext(row[1])[0]: Path(row[0]).resolve() for row in rows if len(row) > 1 and row[1]}
    except (OSError, ValueError, csv.Error):
        return {}

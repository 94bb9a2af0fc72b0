"""The log of a run: a file of JSON lines, one for each log step and each evaluation."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.files import parse_json, write_text

LOG_FILE = "log.jsonl"


class Log:
    """Appends records to a file of JSON lines; on a full disk, leaves out the line and warns once."""

    def __init__(self, path: Path, step: int):
        """Opens the log at `step`; removes records of later steps and incomplete lines."""
        self._path = path
        if path.exists():
            kept = "".join(json.dumps(record) + "\n" for record in read_log(path) if record["step"] <= step)
            if kept != path.read_text(encoding="utf-8", errors="replace"):
                write_text(path, kept)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._warned = False

    def append(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
        size = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError("no space for a complete line")
        except OSError as error:
            os.ftruncate(self._handle, size)
            if not self._warned:
                text = f"{self._path}: lines are missing from step {record['step']} on: {error}."
                warnings.warn(text, stacklevel=5)
            self._warned = True

    def close(self) -> None:
        os.close(self._handle)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Returns the records of a `log.jsonl`, oldest first; incomplete lines are left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record["step"] if "step" in record else None, int):
            records.append(record)
    return records


def evaluations(path: str | Path) -> list[dict[str, Any]]:
    """Returns the records of the evaluations in a `log.jsonl`, oldest first; a mIoU that no pixel decides is None."""
    return [record for record in read_log(path) if "split" in record and record["split"] != "train"]


def _plain(value: Any) -> Any:
    """Returns the value with None, which JSON writes as null, in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The names of the files in a workdir that hold the scores of a split."""

import re
from pathlib import Path


def scores_file(workdir: Path, split: str) -> Path:
    """Returns the path of evaluate-SPLIT.json, with a name that every file system accepts."""
    return workdir / f"evaluate-{_file_name(split)}.json"


def picture_file(workdir: Path, split: str) -> Path:
    """Returns the path of confusion-SPLIT.png."""
    return workdir / f"confusion-{_file_name(split)}.png"


def _file_name(split: str) -> str:
    return re.sub(r"[^\w.-]+", "_", split)

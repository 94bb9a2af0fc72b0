"""The names of the files in a workdir that hold the scores of a split."""

import re
from pathlib import Path


def scores_file(workdir: Path, split: str) -> Path:
    """Returns the path of evaluate-SPLIT.json, with a name that every file system accepts."""
    return workdir / f"evaluate-{_file_name(split)}.json"


def picture_file(workdir: Path, split: str) -> Path:
    """Returns the path of confusion-SPLIT.png."""
    return workdir / f"confusion-{_file_name(split)}.png"


def corruptions_file(workdir: Path, split: str) -> Path:
    """Returns the path of corruptions-SPLIT.json."""
    return workdir / f"corruptions-{_file_name(split)}.json"


def of_data(split: str, other: str) -> str:
    """Returns a split as the names of files have it; `other` is the name of data that are not the run's own, or ""."""
    return f"{split}-on-{other}" if other else split


def _file_name(split: str) -> str:
    return re.sub(r"[^\w.-]+", "_", split)

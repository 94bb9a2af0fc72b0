"""The folder of `jaxseg train --folds`, which holds the workdirs of its folds."""

from pathlib import Path

from jaxseg.errors import ConfigError, first_line
from jaxseg.files import read_json

FOLDS_FILE = "folds.json"
"""In the folder, beside the workdirs of its folds."""


def fold_workdirs(folder: Path) -> list[Path]:
    """Returns the workdirs of the folds in a folder of `jaxseg train --folds`; raises ConfigError if it is none."""
    file = folder / FOLDS_FILE
    try:
        return [folder / f"fold-{fold}" for fold in range(1, int(read_json(file)["folds"]) + 1)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no file of jaxseg train --folds: {first_line(error)}.") from error

"""A workdir that a command writes at once, from another run: whole or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.errors import ConfigError


def free_workdir(path: str | Path) -> Path:
    """Returns the absolute path of a workdir to write; raises ConfigError if it is more than an empty folder."""
    path = expanded(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} holds something already; give the name of a new workdir with --out.")
    return path


@contextlib.contextmanager
def written_whole(workdir: Path) -> Iterator[Path]:
    """Yields a folder to fill, which then becomes `workdir`; after an error nothing of it is left.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workdir.parent, prefix=f".{workdir.name[:20]}.") as made:
            folder = Path(made) / "run"
            folder.mkdir()
            yield folder
            folder.rename(workdir)
    except OSError as error:
        raise ConfigError(f"{workdir} cannot be written: {error.strerror or error}.") from error

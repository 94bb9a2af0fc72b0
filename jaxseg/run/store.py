"""The store of the copies of a run, which fsspec opens: its objects, and which copies are complete."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from jaxseg.errors import CheckpointError, ConfigError, first_line
from jaxseg.run.workdir import CONFIG_FILE


@contextlib.contextmanager
def naming_copies(url: str, workdir: Path) -> Iterator[None]:
    """Adds to the error of a save where the copies of the run are, if the workdir is gone.

    Enter it before `Copies`, so that the copy under way is complete when it looks.

    Raises:
        CheckpointError: in place of an error of the system and of that of a save.
    """
    try:
        yield
    except (CheckpointError, OSError) as error:
        if not url or (workdir / CONFIG_FILE).is_file():
            raise
        where = f"The workdir {workdir} is gone; no copy is complete in {url}"
        with contextlib.suppress(Exception):  # of any store: what has ended the run is said all the same
            if steps := copied_steps(*open_store(url)):
                where = (
                    f"The workdir {workdir} is gone; copies are in {url} (steps {', '.join(map(str, steps))}), and the "
                    f"same command makes the workdir again from them and goes on after step {steps[-1]}"
                )
        raise CheckpointError(f"{str(error).rstrip('.')}. {where}.") from error


def copied_steps(files: Any, root: str) -> list[int]:
    """Returns the steps of the complete copies, oldest first."""
    names = names_in(files, root)
    steps = (int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit())
    return sorted(step for step in steps if {f"{step}.json", f"{step}.tar"} <= names)


def names_in(files: Any, root: str) -> set[str]:
    """Returns the names of all objects of a store."""
    files.invalidate_cache()
    try:
        return {PurePosixPath(path).name for path in files.ls(root, detail=False)}
    except FileNotFoundError:
        return set()


def open_store(url: str) -> tuple[Any, str]:
    """Returns the file system of fsspec and the path in it; raises ConfigError if there is none for this address."""
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigError(f"checkpoint.copy_to={url} needs another package: {first_line(error)}.") from error
    except ValueError as error:
        raise ConfigError(f"checkpoint.copy_to={url} names no store that fsspec knows: {first_line(error)}.") from error
    return files, str(root).rstrip("/")

"""Copies of a run outside its workdir, such as in a bucket, from which an empty machine goes on.

A copy of step N is two objects: `N.tar`, the checkpoint with the small files of the workdir, and `N.json`, its size and
SHA-256, written when the other is complete. A copy counts only with both, and is verified when it is read. So nothing
rests on what an object store lacks: folders, renames, appending. fsspec opens the store.

A copy that differs from what was written is damaged, and the one before it counts. A store that cannot be read is an
error: a run that began anew beside its copies would replace them.
"""

import contextlib
import json
import logging
import shutil
import tarfile
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jax

from jaxseg.config import differences
from jaxseg.errors import CheckpointError, ConfigError, first_line
from jaxseg.files import Digest, parse_json, write_atomically
from jaxseg.pictures import marks
from jaxseg.run.checkpoint import CheckpointWarning
from jaxseg.run.lock import hold
from jaxseg.run.provenance import RECORD_FILE
from jaxseg.run.report import GRADIENTS_FILE, LOG_FILE
from jaxseg.run.snapshot import all_processes
from jaxseg.run.store import copied_steps, names_in, open_store
from jaxseg.run.workdir import (
    CHECKPOINTS,
    CONFIG_FILE,
    DIGESTS_FILE,
    FILES_FILE,
    INFO_FILE,
    LABELLED_FILE,
    PROPOSALS_FILE,
    TEACHER_FILE,
    TRACKERS_FILE,
    read_config,
)

_FILES = (
    CONFIG_FILE,
    INFO_FILE,
    FILES_FILE,
    DIGESTS_FILE,
    LABELLED_FILE,
    PROPOSALS_FILE,
    TEACHER_FILE,
    TRACKERS_FILE,
    LOG_FILE,
    GRADIENTS_FILE,
    RECORD_FILE,
)
_MOST_CONFIG = 2**24  # bytes of a configuration
_PAUSE = 0.1  # seconds between two looks whether a checkpoint is complete
_DONE = "done"  # what process 0 sends to the others, or the text of its error
_INCOMING = ".copies."  # begins the name of the folder in the workdir that copies are unpacked in
_logger = logging.getLogger("jaxseg")


class _Damaged(Exception):
    """A copy is not what was written."""


class Copies:
    """Copies the checkpoints of one run in the background; a context manager.

    Only process 0 copies. The store keeps the steps that the workdir keeps.
    """

    def __init__(self, url: str, workdir: Path):
        """Args:
        url: the folder of the copies, as fsspec reads it: gs://BUCKET/RUN, s3://BUCKET/RUN or a path.
        workdir: the directory of the run.

        Raises:
            ConfigError: if fsspec does not know the kind of store, or needs a package for it.
        """
        self._url, self._workdir = url, workdir
        self._files, self._root = open_store(url)
        self._thread: threading.Thread | None = None
        self._leave = threading.Event()
        self._failure = ""

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._leave.set()  # the checkpoints are closed: what is not complete now never will be
        self.settle()

    def start(self, step: int) -> None:
        """Copies the checkpoint of that step once it is complete, without waiting for it."""
        self.settle()
        if jax.process_index() == 0:
            self._thread = threading.Thread(target=self._copy, args=(step,), name="jaxseg-copy", daemon=True)
            self._thread.start()

    def start_missing(self, step: int) -> None:
        """Copies the checkpoint of that step, which is complete, if the store lacks it or cannot say."""
        try:
            if step in copied_steps(self._files, self._root):
                return
        except Exception as error:  # of any store: the copy fails too, and says why
            _logger.debug("%s cannot be listed: %s", self._url, error)
        self.start(step)

    def settle(self) -> str:
        """Waits for the copy under way; returns why it failed, empty if it did not.

        Call it when the checkpoint is complete, or has failed and the context ends.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._failure

    def require_last(self) -> None:
        """Waits for the copy under way; with several processes, all call it.

        Raises:
            CheckpointError: if it failed, in all processes.
        """
        failure = all_processes(self.settle())[0]
        if failure:
            raise CheckpointError(
                f"{failure} The checkpoint in {self._workdir} is complete; the same command copies it again."
            )

    def _copy(self, step: int) -> None:
        try:
            folder = self._workdir / CHECKPOINTS
            while not (folder / str(step)).is_dir():
                if self._leave.wait(_PAUSE):
                    return
            if not (self._workdir / CONFIG_FILE).is_file():
                raise FileNotFoundError(f"{self._workdir / CONFIG_FILE} is gone")
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.open(f"{self._root}/{step}.tar", "wb") as out:
                digest = Digest(out)
                with tarfile.open(fileobj=digest, mode="w|") as archive:  # type: ignore[call-overload]
                    for path in self._contents(step):
                        archive.add(path, path.relative_to(self._workdir).as_posix(), recursive=False)
            self._files.pipe_file(f"{self._root}/{step}.json", json.dumps(digest.about()).encode())
            self._failure = ""
        except Exception as error:  # of any store, of its client, or of the network
            self._failure = f"The checkpoint of step {step} could not be copied to {self._url} ({first_line(error)})."
            return
        self._remove_old(step, folder)

    def _contents(self, step: int) -> list[Path]:
        checkpoint = sorted(p for p in (self._workdir / CHECKPOINTS / str(step)).rglob("*") if p.is_file())
        return [*(path for name in _FILES if (path := self._workdir / name).is_file()), *checkpoint]

    def _remove_old(self, step: int, folder: Path) -> None:
        """Removes copies of earlier steps that are not in `folder` any more, and what is left of incomplete ones."""
        try:
            kept = {path.name for path in folder.iterdir()}
            for ending in ("json", "tar"):  # in this order: a copy without its description does not count
                for name in names_in(self._files, self._root):
                    number = name.removesuffix(f".{ending}")
                    if name != number and number.isdigit() and int(number) < step and number not in kept:
                        self._files.rm_file(f"{self._root}/{name}")
        except Exception as error:
            _logger.warning("Old copies in %s cannot be removed (%s).", self._url, first_line(error))


def bring_back(url: str, workdir: Path) -> list[int]:
    """Reads the copies that are newer than the checkpoints in `workdir` into it; returns their steps.

    With several processes, which share the workdir, process 0 reads and all call this function. A copy that is
    incomplete or damaged is left out with a `CheckpointWarning`.

    Raises:
        ConfigError: if the store cannot be opened or read, holds another run than the workdir, the workdir cannot be
            written, or another process trains there.
    """
    all_processes("")  # connects them now: some wait for the first exchange for seconds alone
    answer, read = _DONE, []
    if jax.process_index() == 0:
        try:
            read = _bring_back(url, workdir)
        except ConfigError as error:
            answer = str(error)
        except Exception as error:  # of any store, of its client, or of the network
            answer = f"The copies of the run in {url} cannot be read ({first_line(error)}); see checkpoint.copy_to."
    answer = all_processes(answer)[0]
    if answer != _DONE:
        raise ConfigError(answer)
    return read


def small_files(workdir: Path) -> dict[str, bytes]:
    """Returns {name: content} of the files in a workdir that copies replace; {} in all processes but the first."""
    names = _FILES if jax.process_index() == 0 else ()
    return {name: (workdir / name).read_bytes() for name in names if (workdir / name).is_file()}


@contextlib.contextmanager
def taking_back(url: str, workdir: Path, steps: Collection[int], before: Mapping[str, bytes]) -> Iterator[None]:
    """Of a ConfigError of the body, says that the run in the workdir is that of the store, if `steps` were read, and
    leaves the workdir as it was: these are removed again, and the small files are those of `before` (`small_files`).
    """
    try:
        yield
    except ConfigError as error:
        if not steps:
            raise
        if jax.process_index() == 0:
            for step in steps:
                shutil.rmtree(workdir / CHECKPOINTS / str(step), ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds checkpoints of before
                (workdir / CHECKPOINTS).rmdir()
            for name in _FILES:
                if name not in before:
                    (workdir / name).unlink(missing_ok=True)
            for name, content in before.items():
                write_atomically(workdir / name, lambda file, content=content: file.write(content))
        raise ConfigError(
            f"{error} This run has just been read from checkpoint.copy_to={url} and is removed from the workdir again; "
            "give a new run another checkpoint.copy_to."
        ) from error


def _bring_back(url: str, workdir: Path) -> list[int]:
    files, root = open_store(url)
    folder = workdir / CHECKPOINTS
    mine = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    stored = copied_steps(files, root)
    if mine and stored:
        _require_same_run(files, root, stored[-1], workdir, url)
    newer = [step for step in stored if step > max(mine, default=-1)]
    if not newer:
        return []
    read: list[int] = []
    with contextlib.ExitStack() as stack:
        hold(workdir, stack)
        for left in workdir.glob(f"{_INCOMING}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        made = stack.enter_context(tempfile.TemporaryDirectory(dir=workdir, prefix=_INCOMING))
        for step in newer:  # the newest last, so that the small files are those of the newest
            place = Path(made) / str(step)
            try:
                _unpack(files, root, step, place)
            except _Damaged as damage:
                text = f"The copy of step {step} in {url} is damaged ({damage}); it is left out."
                warnings.warn(text, CheckpointWarning, stacklevel=2)
                continue
            _require_own(workdir, place, mine)
            folder.mkdir(exist_ok=True)
            for name in _FILES:
                if (place / name).exists():
                    (place / name).replace(workdir / name)
            (place / CHECKPOINTS / str(step)).rename(folder / str(step))
            read.append(step)
            mine.append(step)
    return read


def _require_own(workdir: Path, place: Path, mine: Collection[int]) -> None:
    """Raises ConfigError if a copy in `place` would replace a file of someone else in a workdir without checkpoints.

    Its files are those of a run where its configuration is beside them; a list of images may be of a person even then.
    """
    if mine:
        return
    for name in (LABELLED_FILE,) if (workdir / CONFIG_FILE).exists() else _FILES:
        file = workdir / name
        if file.exists() and (place / name).exists() and file.read_bytes() != (place / name).read_bytes():
            raise marks.refusal(file, "move it out of the workdir")


def _require_same_run(files: Any, root: str, step: int, workdir: Path, url: str) -> None:
    """Raises ConfigError if a copy is of a run with another configuration than that in `workdir`."""
    with tempfile.TemporaryDirectory() as made:
        try:
            with (
                files.open(f"{root}/{step}.tar", "rb") as stored,
                tarfile.open(fileobj=stored, mode="r|") as archive,
            ):
                first = archive.next()  # the configuration comes first
                content = archive.extractfile(first) if first is not None and first.name == CONFIG_FILE else None
                if content is None:
                    return
                (Path(made) / CONFIG_FILE).write_bytes(content.read(_MOST_CONFIG))
            config = read_config(workdir)
            from jaxseg.data.folders import is_divided  # imports Pillow

            differing = differences(read_config(made), config, divided=is_divided(config))
        except (tarfile.TarError, EOFError, ConfigError):  # a damaged copy, which its digest shows
            return
    if differing:
        raise ConfigError(
            f"{url} holds copies of another run than {workdir}; give each run its own checkpoint.copy_to. The keys "
            f"that differ: {'; '.join(differing)}."
        )


def _unpack(files: Any, root: str, step: int, place: Path) -> None:
    """Reads one copy into the folder `place` and verifies it.

    Raises:
        _Damaged: if it is not what was written, or holds anything but the files of a run.
    """
    allowed = PurePosixPath(CHECKPOINTS, str(step))
    about = _about(files.cat_file(f"{root}/{step}.json"))
    with files.open(f"{root}/{step}.tar", "rb") as stored:
        digest = Digest(stored, limit=about["bytes"])
        try:
            with tarfile.open(fileobj=digest, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = PurePosixPath(member.name)
                    expected = str(name) in _FILES or (allowed in name.parents and ".." not in name.parts)
                    if not member.isfile() or not expected:
                        raise _Damaged(f"it holds {member.name[:200]!r}, which is no file of this checkpoint")
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    with (place / name).open("wb") as out:
                        shutil.copyfileobj(content, out)
            while digest.read(1 << 20):  # what follows the last file
                pass
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise _Damaged(first_line(error)) from error
    if digest.about() != about:
        raise _Damaged("its content differs from what was written")
    if not (place / allowed).is_dir() or not (place / CONFIG_FILE).is_file():
        raise _Damaged(f"it lacks the checkpoint or {CONFIG_FILE}")


def _about(text: bytes) -> dict[str, Any]:
    """Returns what `N.json` holds; raises _Damaged if that is no size and digest."""
    try:
        about = parse_json(text.decode())
    except ValueError as error:
        raise _Damaged(f"its description cannot be read: {first_line(error)}") from error
    fits = isinstance(about, dict) and set(about) == {"bytes", "sha256"} and isinstance(about["sha256"], str)
    if not fits or type(about["bytes"]) is not int:
        raise _Damaged("its description is not one of a copy")
    return about

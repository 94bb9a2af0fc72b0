"""Videos: the overlay of each frame of one, or of images that are frames in order.

imageio-ffmpeg reads and writes them, with the ffmpeg that it brings; `pip install -e '.[video]'` installs it.
"""

import contextlib
import os
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg import pictures
from jaxseg.data.images import to_channels
from jaxseg.errors import ConfigError, DataError, OutOfMemoryError, counted, first_line, printable
from jaxseg.inference.outputs import MARK, would_replace
from jaxseg.inference.predictor import Predictor
from jaxseg.inference.progress import progress
from jaxseg.inference.segment import Segmentation

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
"""The suffixes of files that are taken as videos, in lower case."""


def require_ffmpeg() -> Any:
    """Returns the package imageio_ffmpeg; raises ConfigError where it, or an ffmpeg for it, is absent."""
    try:
        import imageio_ffmpeg

        with _starting():
            imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            "Videos are read and written with ffmpeg, which is not installed; pip install -e '.[video]' brings it."
        ) from error
    return imageio_ffmpeg


def require_own_video(path: Path) -> None:
    """Raises ConfigError if there is a video at a path that prediction did not write."""
    if not path.exists():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16))  # the mark is among the tags at the end
        if MARK.encode() in file.read():
            return
    raise ConfigError(would_replace(path))


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Starts a program without JAX's warning of forks, which are harmless where another program follows at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
        yield


def segment_video(
    predictor: Predictor,
    path: Path,
    out: Path,
    colors: pictures.Colors,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Writes the overlays of the frames of a video to `out`, an MP4 file of its rate; returns how many there are.

    The device works on a frame while the one before is drawn and written.

    Args:
        predictor: segments the frames.
        path: the video.
        out: the file; it is written atomically.
        colors: the (r, g, b) of each class.
        progress: called with the numbers of finished frames and of all, as the video's header says.

    Raises:
        ConfigError: if ffmpeg is absent, or the file cannot be written.
        DataError: if the video cannot be read.
    """
    require_own_video(out)
    rate, total, frames = _read(path)
    waiting: list[tuple[np.ndarray, Callable[[], list[Segmentation]]]] = []
    done = 0
    with FrameWriter(out, rate) as writer:

        def finish() -> None:
            frame, wait = waiting.pop(0)
            writer.add(np.asarray(pictures.overlay(frame, wait()[0].classes, colors)))

        for frame in frames:
            waiting.append((frame, predictor.launch([to_channels(frame, predictor.networks.channels)])))
            if len(waiting) > 1:
                finish()
                done += 1
                progress(done, total)
        while waiting:
            finish()
            done += 1
        if not done:
            raise DataError(f"{path} has no frames.")
    return done


def segment_videos(
    predictor: Predictor, videos: Sequence[Path], out: Path, colors: pictures.Colors, network: str
) -> int:
    """Writes NAME-overlay.mp4 for each video; prints which cannot be read, and returns how many.

    `network` is its name in the message.
    """
    failed = 0
    taken: set[str] = set()
    for path in videos:
        stem, number = path.stem, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        file = out / f"{stem}-overlay.mp4"
        try:
            if file.resolve() in {each.resolve() for each in videos}:
                raise DataError(f"The output {file} would replace a video to segment; give another --out.")
            with progress(path.name, "frame") as bar:

                def count(done: int, total: int, bar: Any = bar) -> None:
                    bar.total = max(done, total)
                    bar.update(done - bar.n)

                frames = segment_video(predictor, path, file, colors, progress=count)
            print(f"{counted(frames, 'frame')} of {path} segmented by {network}: {file}")
        except (DataError, OutOfMemoryError) as error:
            failed += 1
            print(f"error: {printable(str(error))}", file=sys.stderr)
    return failed


def _read(path: Path) -> tuple[float, int, Iterator[np.ndarray]]:
    """Returns (frames a second, number of frames by the header, the frames u8[h,w,3] upright)."""
    ffmpeg = require_ffmpeg()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        reader = ffmpeg.read_frames(str(path))
        with _starting():
            header = next(reader)
    except (OSError, RuntimeError, StopIteration) as error:
        raise DataError(f"{path} cannot be read as a video: {first_line(error)[:200] or 'it is empty'}.") from error
    width, height = header["size"]

    def frames() -> Iterator[np.ndarray]:
        try:
            for data in reader:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read to its end: {first_line(error)[:200]}.") from error
        finally:
            reader.close()

    duration = header["duration"] if "duration" in header else 0.0
    return float(header["fps"]) or 25.0, round(duration * float(header["fps"])), frames()


class FrameWriter:
    """Writes frames u8[h,w,3] of one size to an MP4 file, which is there once the body has ended without an error."""

    def __init__(self, path: Path, rate: float):
        self._path, self._rate, self._writer, self._size = path, rate, None, (0, 0)
        self._part = path.with_name(f".{uuid.uuid4().hex[:12]}.part.mp4")

    def __enter__(self) -> "FrameWriter":
        self._ffmpeg = require_ffmpeg()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame; a row or column is repeated where a side is odd, which the codec does not take.

        Raises:
            DataError: if the frame has another size than the first.
            ConfigError: if it cannot be written.
        """
        h, w = frame.shape[:2]
        if self._writer is None:
            self._size = h, w
            size = (w + w % 2, h + h % 2)
            self._writer = self._ffmpeg.write_frames(
                str(self._part),
                size,
                fps=self._rate,
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-metadata", f"comment={MARK}"],
            )
            with _starting():
                self._writer.send(None)
        if (h, w) != self._size:
            raise DataError(f"A frame of the video is {h}x{w}, the first {self._size[0]}x{self._size[1]}.")
        try:
            self._writer.send(np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge").tobytes())
        except (OSError, StopIteration) as error:
            raise ConfigError(f"{self._path} cannot be written: {first_line(error)[:200]}.") from error

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if self._writer is not None:
                with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext():
                    self._writer.close()
            if error is None and self._part.is_file():
                os.replace(self._part, self._path)
        except OSError as failure:
            raise ConfigError(f"{self._path} cannot be written: {failure.strerror or failure}.") from failure
        finally:
            self._part.unlink(missing_ok=True)


class VideoOfFrames:
    """A further file of a call of predict: the overlays of its images, in their order, as a video.

    It is an `outputs.Extra`; `close` removes what is unfinished.

    Args:
        path: the MP4 file.
        rate: frames a second.
        order: the images, in the order of the frames.
        colors: the (r, g, b) of each class.
    """

    option = "--video"
    suffixes: tuple[str, ...] = ()
    needs_probabilities = False

    def __init__(self, path: Path, rate: float, order: Sequence[Path], colors: pictures.Colors):
        self._path, self._colors, self._order = path, colors, list(order)
        self._next, self._held, self._lock = 0, dict[Path, np.ndarray | None](), threading.Lock()
        self._problem: DataError | None = None
        self._closed = False
        require_own_video(path)
        self._writer = FrameWriter(path, rate).__enter__()

    def require_own(self, out: Path, outputs: Iterable[str]) -> None:
        """Nothing is left to check: the file was, at the start."""

    def write(self, path: Path, stem: Path, image: np.ndarray, result: Segmentation) -> None:
        """Adds the frame of one image once those before it are there."""
        self._hold(path, np.asarray(pictures.overlay(image, result.classes, self._colors)))

    def leave_out(self, path: Path) -> None:
        """Goes on without the frame of an image that could not be segmented."""
        self._hold(path, None)

    def finish(self, out: Path) -> Sequence[Path]:
        """Writes the file; returns it, or nothing where there is no frame."""
        with self._lock:
            for path in [path for path in self._order[self._next :] if path in self._held]:
                self._add(self._held.pop(path))
        if self._problem is not None:
            self.close()
            print(f"error: {self._path} is not written: {self._problem}", file=sys.stderr)
            return []
        self._closed = True
        self._writer.__exit__(None, None, None)
        return [self._path] if self._path.is_file() else []

    def close(self) -> None:
        """Stops, and removes an unfinished video; nothing after `finish`."""
        if not self._closed:
            self._closed = True
            self._writer.__exit__(GeneratorExit, GeneratorExit(), None)

    def _hold(self, path: Path, frame: np.ndarray | None) -> None:
        with self._lock:
            self._held[path] = frame
            while self._next < len(self._order) and self._order[self._next] in self._held:
                self._next += 1
                self._add(self._held.pop(self._order[self._next - 1]))

    def _add(self, frame: np.ndarray | None) -> None:
        if frame is None or self._problem is not None:
            return
        try:
            self._writer.add(frame)
        except DataError as error:  # frames of several sizes: the images themselves are well
            self._problem = error

"""What tests plant in a training: a full disk, a clock that goes back, moves that are not atomic, hanging decoders."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from helpers.full_disk import filled


def full_disk(number: int, folder: str, listing: str) -> None:
    """Does as `filled` until the end of the process; the uses are then the lines of the file `listing`."""
    stack = contextlib.ExitStack()
    disk = stack.enter_context(filled(number, folder))
    leave = os._exit

    def leave_with_listing(status: int) -> None:
        stack.close()
        Path(listing).write_text("".join(f"{use}\n" for use in disk.uses))
        leave(status)

    os._exit = leave_with_listing


def clock_back(days: float) -> None:
    """Sets the clock that Python reads back by some days, two seconds from now."""
    now, now_ns, began = time.time, time.time_ns, time.monotonic()

    def late() -> float:
        return days * 86400 * (time.monotonic() - began > 2)

    time.time = lambda: now() - late()
    time.time_ns = lambda: now_ns() - int(late() * 1e9)


def slow_moves(seconds: float) -> None:
    """Makes every move of a folder a copy file by file with a pause after each, and then a removal."""

    def copy(source: str, target: str) -> str:
        time.sleep(seconds)
        return shutil.copy2(source, target)

    def move(source: str, target: str, **_: object) -> None:
        if not os.path.isdir(source):
            return replace(source, target)
        shutil.copytree(source, target, copy_function=copy)
        shutil.rmtree(source)
        return None

    replace = os.replace
    os.rename = move
    Path.rename = lambda self, target: move(str(self), str(target)) or Path(target)


def hang(number: int) -> None:
    """Makes the decoder of images hang at its call of this number."""
    from jaxseg.data import folder

    read, calls = folder.read_image, []

    def slow(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == number:
            time.sleep(3600)
        return read(*arguments)

    folder.read_image = slow

"""The last words of a process that JAX's runtime ends: a helper process says them, since Python runs nothing then.

Where a process of a run is lost, the coordination service of JAX aborts the others (SIGABRT) from a thread of its own
(jax 0.10.2; a callback in its place takes a status that its bindings cannot convert). The fault handler of Python then
writes a traceback, which this module sends through a pipe to the helper. The pipe holds one page, less than such a
traceback has, so that the process waits until the helper has read it, and so has spoken.
"""

import faulthandler
import fcntl
import os
import subprocess
import sys

_HELPER = r"""
import os
words, data = b"", b""
while more := os.read(0, 256):
    data += more
    while b"\0" in data:
        words, _, data = data.partition(b"\0")
    if data.startswith(b"Fatal Python error: Aborted") and words:
        os.write(2, b"\n" + words + b"\n")
        words = b""
    elif len(data) > 4096:
        data = data[:64]
"""
_PAGE = 4096  # bytes: the smallest pipe that Linux makes
_pipe: int | None = None


def start() -> None:
    """Starts the helper, once for each process. It ends with this process; the signals of its group are not for it."""
    global _pipe
    if _pipe is not None:
        return
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PAGE)
    words = [sys.executable, "-I", "-S", "-c", _HELPER]
    subprocess.Popen(words, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(reading)
    faulthandler.enable(writing)
    _pipe = writing


def say(sentence: str) -> None:
    """Sets what the helper says if this process is aborted; nothing happens where none was started."""
    if _pipe is not None:
        os.write(_pipe, f"error: {sentence}".encode(errors="replace").replace(b"\0", b"") + b"\0")

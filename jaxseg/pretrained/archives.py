"""Opens a zip archive of weights that anybody may have made: what it may unpack to is bounded.

A few bytes of a compressed archive can stand for any number of zeros, and several of its members or tensors for the
same bytes. Weights hardly shrink, so that an archive which unpacks to many times its size is not one of weights.
"""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxseg.errors import WeightsError, first_line, printable

FREE = 2**28
"""Bytes that the arrays of any file may take."""
RATIO = 32
"""How many times the bytes of the file they may take beyond that."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of torch and NumPy
_ENCRYPTED = 1  # a bit of the flags of a member


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive after checking its list of members; no member gives more bytes than the list says.

    Raises:
        WeightsError: if its members unpack to too many bytes, or are compressed or encrypted as those of no weights.
            Other errors of a damaged archive are those of `zipfile`, of many classes.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            name = printable(member.filename[:100])
            if member.flag_bits & _ENCRYPTED:
                raise WeightsError(f"its member {name} is encrypted, which no file of weights is")
            if member.compress_type not in _METHODS:
                raise WeightsError(f"the compression method of its member {name} is not supported")
        require_bounded(sum(member.file_size for member in members), file)
        yield archive


def require_bounded(taken: int, file: BinaryIO) -> None:
    """Raises WeightsError if arrays of `taken` bytes are too many for the open file that they are read from."""
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(place)
    if taken > FREE + RATIO * size:
        raise WeightsError(
            f"its {size:,} bytes unpack to {taken:,}, more than {RATIO} times as many, as in files made to fill the "
            "memory; if you trust the file, save its arrays without compression (numpy.savez) and each once"
        )


def damaged(path: Path, kind: str, error: Exception) -> WeightsError:
    """Returns the error for a file that its reader gave up on; `kind` says what was expected."""
    return WeightsError(f"{path} is damaged, or not {kind}: {printable(first_line(error)[:200])}.")

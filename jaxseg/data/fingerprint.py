"""What a split holds, in a few digests: whether two machines train on the same data."""

import hashlib
import time
from typing import Any

import numpy as np

from jaxseg.data.base import Source
from jaxseg.data.notes import note
from jaxseg.data.reading import STOP, Reading
from jaxseg.errors import DataError

_EXAMPLES = 16  # whose pixels are read, at most


def fingerprint(source: Source, seconds: float = 5.0, reading: Reading = STOP) -> dict[str, Any]:
    """Returns the number of examples, a digest of all their names, and digests of the pixels of some.

    The pixels are those of image and label as training gets them, of up to 16 examples that are spread over the split,
    and fewer where reading them takes longer than `seconds`. So a changed pixel in another example is not seen; a
    changed order, an added, a removed or a renamed example is.

    Args:
        source: a split.
        seconds: after which no further example is read.
        reading: within which time each is read, and what follows if it cannot be: with "skip" it is left out.

    Raises:
        DataError: if an example cannot be read, unless `reading` skips it.
    """
    began = time.monotonic()
    names = hashlib.sha256()
    for index in range(len(source)):
        names.update(f"{source.name(index)}\n".encode(errors="surrogateescape"))
    digests: dict[str, str] = {}
    places = np.unique(np.linspace(0, len(source) - 1, min(_EXAMPLES, len(source))).round().astype(int)).tolist()
    for number, index in enumerate(places):
        if number and time.monotonic() - began > seconds:
            break
        try:
            example, pixels = reading.example(source, index), hashlib.sha256()
        except DataError as error:
            if reading.on_error != "skip":
                raise
            note(f"{error} data.on_error=skip: the record of the data leaves it out.")
            continue
        for array in (example["image"], example["label"]):
            pixels.update(f"{array.shape} {array.dtype}".encode())
            pixels.update(np.ascontiguousarray(array).data)
        digests[str(index)] = pixels.hexdigest()[:16]
    return {"images": len(source), "names": names.hexdigest()[:16], "pixels": digests}

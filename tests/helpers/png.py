"""Writes PNG files of the forms that Pillow does not write: few bits a pixel, and 16 bits a channel."""

import struct
import zlib
from pathlib import Path

import numpy as np

GREY, GREY_AND_ALPHA = 0, 4  # colour types of the format


def write_png(
    path: Path, array: np.ndarray, kind: int, extra: tuple[tuple[bytes, bytes], ...] = (), bits: int = 16
) -> Path:
    """Writes [h,w,c] as a PNG file of 1, 2, 4 or 16 bits a value; fewer than 8 bits must fill whole bytes.

    `kind` is the colour type of the format, and `extra` has further chunks (name, content).
    """
    height, width, channels = array.shape
    lines = array.reshape(height, width * channels)
    if bits < 8:
        places = 1 << np.arange(8 - bits, -1, -bits)
        lines = lines.reshape(height, -1, 8 // bits).astype(np.uint8) @ places.astype(np.uint8)
    rows = b"".join(b"\0" + line.astype(">u2" if bits == 16 else np.uint8).tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path

"""Small pictures inside JSON, as text of base 64: the masks of objects of LabelMe and Supervisely."""

import base64
import io
import zlib

import numpy as np

from jaxseg.pictures.opening import open_image

_LARGEST = 2**26  # bytes of a picture; a mask of 10,000 x 10,000 pixels has far fewer


def picture_in(text: str, *, packed: bool = False) -> np.ndarray:
    """Returns the pixels bool[h,w] that a picture shows: not 0, or not transparent where it has an opacity.

    Args:
        text: the file of the picture, in base 64.
        packed: whether zlib has compressed the file again.

    Raises:
        ValueError: if it is too large, or no picture.
    """
    data = base64.b64decode(text, validate=True)
    if packed:
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(data, _LARGEST)
        except zlib.error as error:
            raise ValueError(f"a mask is damaged ({error})") from error
        if unpacker.unconsumed_tail:
            raise ValueError(f"a mask is unpacked to more than {_LARGEST:,} bytes")
    with open_image(io.BytesIO(data)) as image:
        if "A" in image.getbands() or "transparency" in image.info:
            return np.array(image.convert("RGBA"))[..., 3] > 0
        return np.array(image.convert("L")) > 0 if image.mode != "P" else np.array(image) > 0

"""TIFF files of several pages, as microscopes write them: each page is an image, and that of another its mask."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.bands import beyond_mode
from jaxseg.data.classes import Labeller
from jaxseg.data.formats.collection import Collection, Drawn, Lost, Options, Sample, settled
from jaxseg.data.formats.meanings import meaning_of_values
from jaxseg.data.formats.paired import find_pairs
from jaxseg.data.images import from_pillow
from jaxseg.errors import DataError, counted, first_line
from jaxseg.pictures.opening import open_image, require_pixels

_MOST = 100_000  # pages


def read_stacks(source: Path, options: Options) -> Collection:
    """Returns the pages of TIFF files with those of their masks: images/a.tif and masks/a.tif, or a.tif and a_mask.tif.

    Raises:
        DataError: if there are no such files, or nothing says what the classes are.
    """
    found, lost = find_pairs(source)
    samples: list[tuple[str, str, Path, Path, int]] = []
    for split, pair in found:
        if pair.mask is None:
            lost.append(Lost(str(pair.image), "image", "It has no mask."))
            continue
        try:
            pages, of_mask = count_pages(pair.image), count_pages(pair.mask)
        except DataError as error:
            lost.append(Lost(str(pair.image), "image", str(error)))
            continue
        if pages != of_mask:
            why = f"It has {counted(pages, 'page')}, but its mask {pair.mask} has {of_mask}."
            lost.append(Lost(str(pair.image), "image", why))
            continue
        samples += [(split, f"{pair.name}-{page:04d}", pair.image, pair.mask, page) for page in range(pages)]
    if not samples:
        raise DataError(f"{source} has no TIFF files with masks.{f' {lost[0].why}' if lost else ''}")
    masks = (functools.partial(_values, mask, page) for _, _, _, mask, page in samples)
    meaning = meaning_of_values(masks, options.classes, source)
    labeller = Labeller(meaning)
    kept, without = settled(
        Sample(
            split,
            name,
            f"{image}, page {page}",
            functools.partial(read_page, image, page),
            functools.partial(_label, mask, page, labeller),
        )
        for split, name, image, mask, page in samples
    )
    return Collection("TIFF stacks", kept, meaning.info.classes, meaning.info.colors, (*lost, *without))


def _opened(path: Path, use: Callable[[Any], Any]) -> Any:
    try:
        with path.open("rb") as file, open_image(file) as image:
            return use(image)
    except DataError:
        raise
    except Exception as error:  # the classes are those of Pillow's decoders
        raise DataError(f"{path} cannot be read as an image ({first_line(error)[:200]}).") from error


def count_pages(path: Path) -> int:
    """Returns the number of pages of a TIFF file; raises DataError if it is damaged."""
    pages: int = _opened(path, lambda image: int(getattr(image, "n_frames", 1)))
    if pages > _MOST:
        raise DataError(f"{path} has more than {_MOST:,} pages.")
    return pages


def read_page(path: Path, page: int) -> np.ndarray:
    """Returns a page u8|u16[h,w,c] of a TIFF file, with its 1, 3 or 4 channels.

    Raises:
        DataError: if it is damaged, too large, or of a form of which Pillow drops a part.
    """

    def read(image: Any) -> np.ndarray:
        image.seek(page)
        require_pixels(path, image.size[1], image.size[0])
        form = beyond_mode(image)
        if form is not None:
            raise DataError(f"{path} holds {form} in page {page}; save the pages as files of their own.")
        bands = 3 if image.mode == "P" else len(image.getbands())
        return from_pillow(image.copy(), 1 if bands == 2 else bands, path)

    return _opened(path, read)


def _values(path: Path, page: int) -> np.ndarray:
    values = read_page(path, page)
    if values.shape[-1] != 1:
        raise DataError(f"{path} holds colours in page {page}, where class indices were expected.")
    return values[..., 0]


def _label(path: Path, page: int, labeller: Labeller) -> Drawn:
    return Drawn(labeller(_values(path, page), path))

"""TFDS builders for data sets that the user has as files on disk.

They pass the *paths* of the files to TFDS, which then stores the files unchanged. Preparing and reading therefore do
not need TensorFlow.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from jaxseg.data.listing import list_images, name_in
from jaxseg.errors import DataError

Pair = tuple[str, Path, Path]
"""Name, image file, mask file."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class LocalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores {file_name, image, mask} of the pairs of each split. Subclasses set `name`, `VERSION` and `HOMEPAGE`."""

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = ""
    # TFDS looks this up with a package (importlib_resources) that it does not always install.
    code_path = epath.Path(__file__)

    def __init__(self, *, pairs: dict[str, list[Pair]], **arguments: Any):
        self._pairs = pairs
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "file_name": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, 3)),
                "mask": tfds.features.Image(shape=(None, None, 1)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, homepage=self.HOMEPAGE)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(pairs) for split, pairs in self._pairs.items()}

    def _generate_examples(self, pairs: list[Pair]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, image, mask in pairs:
            yield name, {"file_name": image.name, "image": image, "mask": mask}


def pair_folders(images: Path, masks: Path) -> list[Pair]:
    """Pairs the files of two folders by name without suffix, in order of their names.

    Raises:
        DataError: if a folder is missing or empty, or an image or a mask has no partner.
    """
    found = {}
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}; expected the {folder.name} of the data set there.")
        files, problems = list_images(folder, recursive=False, suffixes=SUFFIXES)
        if problems:
            raise DataError(problems[0])
        found[folder] = {name_in(folder, f): f for f in files}
    alone = sorted(found[images].keys() ^ found[masks].keys())
    if alone:
        have, lack = (images, masks) if alone[0] in found[images] else (masks, images)
        more = f" ({len(alone) - 1} more like it)" if len(alone) > 1 else ""
        raise DataError(f"{found[have][alone[0]]} has no partner of the same name in {lack}{more}.")
    if not found[images]:
        raise DataError(f"{images} holds no images; expected {', '.join(SUFFIXES)} files.")
    return [(stem, found[images][stem], found[masks][stem]) for stem in found[images]]

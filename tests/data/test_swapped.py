"""Images under masks/ and masks under images/."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, update
from jaxseg.data import FolderSource
from jaxseg.data.survey import survey
from jaxseg.errors import DataError


def make(root: Path, photo: str, mode: str, images: str, masks: str) -> Path:
    random = np.random.default_rng(0)
    for number in range(4):
        picture = random.integers(0, 256, (24, 24, 3), np.uint8)
        mask = (np.arange(24 * 24).reshape(24, 24) // 200 % 3).astype(np.uint8)
        for folder, array, suffix in ((images, picture, photo), (masks, mask, "png")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(array)
            (image.convert(mode) if folder == images else image).save(root / folder / f"{number}.{suffix}")
    return root


@pytest.mark.parametrize(("photo", "mode"), [("jpg", "RGB"), ("png", "RGB"), ("png", "L")])
def test_swapped_folders_are_recognised(tmp_path: Path, photo: str, mode: str) -> None:
    make(tmp_path, photo, mode, "masks", "images")
    with pytest.raises(DataError, match=r"masks holds photographs, such as .*masks/\d.* to be swapped\. Give each"):
        FolderSource(tmp_path, "train")
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path))
    assert len(survey(config, "train").problems) == 1
    (tmp_path / "classes.json").write_text('{"classes": [{"name": "a", "colour": [0, 0, 0]}, "b", "c"]}')
    assert ["swapped" in problem for problem in survey(config, "train").problems] == [True]


@pytest.mark.parametrize(("photo", "mode"), [("jpg", "RGB"), ("png", "RGB"), ("png", "L")])
def test_folders_in_their_places_are_not(tmp_path: Path, photo: str, mode: str) -> None:
    assert len(FolderSource(make(tmp_path, photo, mode, "images", "masks"), "train")) == 3


def test_masks_of_many_classes_beside_plain_images_are_in_their_places_if_the_classes_are_named(tmp_path: Path) -> None:
    for number in range(3):
        for folder, array in (("images", np.zeros((24, 24))), ("masks", np.arange(24 * 24).reshape(24, 24) % 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
    with pytest.raises(DataError, match=r"seem to be swapped\. .* that many classes, name them in a classes\.json"):
        FolderSource(tmp_path, "train")
    assert len(FolderSource(tmp_path, "train", classes=[f"class {i}" for i in range(200)]).info.classes) == 200
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [str(i) for i in range(200)]}))
    assert len(FolderSource(tmp_path, "train").info.classes) == 200


def test_dark_photographs_among_others_are_recognised(tmp_path: Path) -> None:
    make(tmp_path, "png", "RGB", "masks", "images")
    dark = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24) % 50  # 50 grey values, as in a microscope's image
    for number in (0, 3):
        Image.fromarray(np.stack([dark] * 3, -1)).save(tmp_path / "masks" / f"{number}.png")
    with pytest.raises(DataError, match="the two folders seem to be swapped"):
        FolderSource(tmp_path, "train")

"""Masks under other names than those of their images: one sentence for one cause."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, update
from jaxseg.data import FolderSource
from jaxseg.data.naming import Renaming, find_renaming
from jaxseg.data.survey import survey
from jaxseg.errors import DataError


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("a b c", "a_mask b_mask c_mask", Renaming("", "_mask", False)),
        ("img_001 img_002 img_010", "mask_001 mask_002 mask_010", Renaming("img", "mask", True)),
        ("x/a_leftImg8bit y/b_leftImg8bit", "x/a_gtFine y/b_gtFine", Renaming("leftImg8bit", "gtFine", False)),
        ("1 2 3 4", "01 02 03 04", Renaming("", "0", True)),
        ("a b c d", "b_mask c_mask extra", Renaming("", "_mask", False)),
        ("1 2 3 4", "11 12 31 99", None),
        ("000 001 002", "100 101 102", None),  # of two splits, not of one
        ("2020-1 2020-2 2020-3", "2021-1 2021-2 2021-3", None),
        ("10 20 30", "11 21 31", None),
        ("1 2 3", "10 20 30", None),
        ("a b c", "x y z", None),
        ("a", "a_mask", None),
        ("a", "", None),
    ],
)
def test_the_rule_between_names(images: str, masks: str, expected: Renaming | None) -> None:
    found = find_renaming(images.split(), masks.split())
    assert (found and found[0]) == expected


def test_masks_all_under_other_names_are_one_problem(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        for folder, file in (("images", f"{name}.jpg"), ("masks", f"{name}_mask.png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / file)
    with pytest.raises(DataError) as raised:
        FolderSource(tmp_path, "train")
    said = str(raised.value)
    assert said.startswith(
        f"4 of 4 images in {tmp_path / 'images'} have a mask of another name in {tmp_path / 'masks'}"
    )
    assert "(a.jpg and a_mask.png, b.jpg and b_mask.png, c.jpg and c_mask.png and 1 more)" in said
    assert "the names of the masks end with '_mask'" in said and "more such" not in said
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path))
    problems = [problem for split in ("train", "val") for problem in survey(config, split).problems]
    assert set(problems) == {said}
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "images" / "e.png")
    with pytest.raises(DataError, match=r"^4 of 5 images .* \(1 more such; jaxseg check lists"):
        FolderSource(tmp_path, "train")

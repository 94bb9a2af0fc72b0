"""The files that people really have: each is read as it looks, through the folder that training and prediction read."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxseg.data.convert import main as convert
from jaxseg.data.folder import FolderSource
from jaxseg.data.images import read_image
from jaxseg.errors import DataError
from jaxseg.inference.images import find_images, name_outputs
from jaxseg.inference.outputs import Outputs

RED, BLUE = (255, 0, 0), (0, 0, 255)
LOOKS = np.array([[RED, RED, BLUE], [BLUE, RED, BLUE]], np.uint8)  # 2 x 3 pixels
LABEL = np.array([[0, 0, 1], [1, 0, 1]], np.uint8)


def _turned(path):
    """Stored lying on its side, with the EXIF tag that makes it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(LOOKS)).save(path.with_suffix(".PNG"), exif=exif)


def _cmyk(path):
    Image.fromarray(LOOKS).convert("CMYK").save(path.with_suffix(".tif"))


def _cmyk_jpeg(path):
    Image.fromarray(LOOKS.repeat(16, 0).repeat(16, 1)).convert("CMYK").save(path.with_suffix(".JPG"), quality=100)


def _palette_with_alpha(path):
    image = Image.fromarray(LABEL)
    image.putpalette([*RED, *BLUE])
    image.save(path.with_suffix(".png"), transparency=bytes([255, 0]))  # the blue is transparent, and blue


def _one_bit(path):
    Image.fromarray(LABEL > 0).save(path.with_suffix(".bmp"))


def _grey_and_alpha(path):
    Image.fromarray(np.stack([LABEL * 255, np.full_like(LABEL, 7)], -1)).save(path.with_suffix(".png"))


@pytest.mark.parametrize("save", [_turned, _cmyk, _cmyk_jpeg, _palette_with_alpha, _one_bit, _grey_and_alpha])
def test_each_is_read_as_it_looks(tmp_path, save):
    save(tmp_path / "a")
    (path,) = tmp_path.iterdir()
    black_and_white = LABEL[..., None].repeat(3, -1) * np.uint8(255)
    expected = black_and_white if save in (_one_bit, _grey_and_alpha) else LOOKS
    found = read_image(path)
    if save is _cmyk_jpeg:
        assert np.abs(found[8::16, 8::16].astype(int) - LOOKS).max() <= 4
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def folder(tmp_path):
    """Upper-case endings, nested and linked folders, accents in two spellings, hidden files, and blanks in names."""
    root = tmp_path / "set"
    other = tmp_path / "elsewhere"
    names = ["A.PNG", "deep/er/b c.Png", unicodedata.normalize("NFD", "é.png"), "日本.png"]
    for name in names:
        image, mask = root / "images" / name, root / "masks" / unicodedata.normalize("NFC", name)
        for path, array in ((image, LOOKS), (mask, LABEL)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, format="PNG")
    for kind, array in (("images", LOOKS), ("masks", LABEL)):
        (other / kind).mkdir(parents=True)
        Image.fromarray(array).save(other / kind / "l.png")
        (root / kind / "linked").symlink_to(other / kind, target_is_directory=True)
        shutil.copyfile(root / kind / "A.PNG", other / f"{kind}.png")
        (root / kind / "file.png").symlink_to(other / f"{kind}.png")
        (root / kind / ".hidden.png").write_bytes(b"no picture")
        (root / kind / "._A.PNG").write_bytes(b"no picture")
        (root / kind / "Thumbs.db").write_bytes(b"no picture")
    return root


EXPECTED = {"A", "deep/er/b c", "é", "日本", "linked/l", "file"}


def test_a_folder_of_such_names_is_read_and_keeps_its_folders_in_predict(folder, tmp_path):
    source = FolderSource(folder, "train", val_fraction=0.01)
    held = FolderSource(folder, "val", val_fraction=0.01)
    assert {s.name(i) for s in (source, held) for i in range(len(s))} == EXPECTED
    for index in range(len(source)):
        np.testing.assert_array_equal(source[index]["image"], LOOKS)
        np.testing.assert_array_equal(source[index]["label"], LABEL)
    found = find_images([str(folder / "images")], recursive=True)
    outputs = Outputs(tmp_path / "out", ("a", "b"), (RED, BLUE))
    names = name_outputs(found.paths, outputs, found.roots)
    assert {unicodedata.normalize("NFC", name) for name in names.values()} == EXPECTED


def test_masks_named_after_their_images_are_converted(tmp_path, capsys):
    for number in range(3):
        for kind, name, array in (("images", f"{number}.JPG", LOOKS), ("masks", f"{number}_mask.png", LABEL)):
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "in" / kind / name, format="JPEG" if kind == "images" else "PNG")
    with pytest.raises(DataError, match=r"the names of the masks end with '_mask'.* jaxseg convert"):
        FolderSource(tmp_path / "in", "train")
    assert convert([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    source = FolderSource(tmp_path / "out", "train")
    np.testing.assert_array_equal(source[0]["label"], LABEL)
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {"0.png", "1.png", "2.png"}
    assert "3 images with masks" in capsys.readouterr().out

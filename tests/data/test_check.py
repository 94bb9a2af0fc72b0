"""`python -m jaxseg.data.check`, on good data and on bad."""

import collections
import contextlib
import functools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxseg.audit import outputs
from jaxseg.data import check, check_page, contents
from jaxseg.data import folder as folder_module

EXPERIMENT = """
from jaxseg.config import default_config, update

def get_config(arg=None):
    config = default_config()
    update(config, data__shapes_train=6, data__shapes_val=3)
    if arg == "folder":
        update(config, data__source="folder", data__size=(8, 8))
    return config
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve images in split folders, nothing wrong with them."""
    rng = np.random.default_rng(0)
    for i in range(12):
        part = tmp_path / "data" / ("val" if i < 3 else "train")
        for kind, array in (("images", rng.integers(0, 256, (16, 24, 3))), ("masks", rng.integers(0, 3, (16, 24)))):
            (part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(part / kind / f"{i:02d}.png")
    (tmp_path / "data" / "classes.json").write_text('{"classes": ["sky", "road", "car", "dog"]}')
    return tmp_path / "data"


def test_a_picture_in_two_splits_is_named(experiment, folder, tmp_path, capsys):
    with Image.open(folder / "train" / "images" / "05.png") as image:
        image.point(lambda value: value * 0.8).save(folder / "val" / "images" / "01.png")
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--images", "0"]
    assert check.main(arguments) == 0
    one, other = folder / "val" / "images" / "01.png", folder / "train" / "images" / "05.png"
    out = capsys.readouterr().out
    assert f"{one} (val) and {other} (train) are nearly the same picture" in out and out.count("nearly the same") == 1


def test_pictures_twice_in_the_training_split_are_remarked(experiment, folder, capsys):
    with Image.open(folder / "train" / "images" / "05.png") as image:
        image.point(lambda value: value * 0.8).save(folder / "train" / "images" / "07.png")
    assert check.main([str(folder), "--images", "0"]) == 0
    one, other = (folder / "train" / "images" / name for name in ("07.png", "05.png"))
    assert f"{one} and {other} are nearly the same picture, both in train" in capsys.readouterr().out


def test_a_folder_is_checked_without_an_experiment(folder, capsys):
    assert check.main([str(folder), "--images", "0"]) == 0
    assert "train: 9 images read" in capsys.readouterr().out
    for name in ("04", "06"):
        (folder / "train" / "images" / f"{name}.png").write_bytes(b"no picture")
    assert check.main([str(folder), "--images", "0"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("2 problems") and "04.png" in said and "06.png" in said


def test_shapes_are_in_order(experiment, tmp_path, capsys, drawn):
    assert check.main(["--config", experiment, "--out", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "train: 6 images read; height x width: 64 x 64 (6)" in out and "val: 3 images read" in out
    assert "Nothing is wrong." in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_the_page_of_a_check(experiment, folder, tmp_path, capsys):
    nasty = folder / "train" / "images" / "<img src=x onerror=alert(1)>.png"
    (folder / "train" / "images" / "05.png").rename(nasty)
    (folder / "classes.json").write_text('{"classes": ["sky", "road", "car", "<script>"]}')
    page = tmp_path / "check.html"
    words = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--report", str(page), "--images", "0"]
    assert check.main(words) == 1  # an image without a mask, and a mask without an image
    text = page.read_text()
    assert text.count("<article") == 11 and text.count("<script") == 1 and "<img src=x" not in text
    assert text.count('data-v="problem"') == 2 and "&lt;img src=x onerror=alert(1)&gt;.png" in text
    assert "&lt;script&gt;" in text and 'data-v="to look at"' in text  # a class that never occurs
    assert f"A page to open in a browser: {page}" in capsys.readouterr().out
    page.write_text("mine")
    assert check.main(words) == 1 and "jaxseg did not write" in capsys.readouterr().err and page.read_text() == "mine"


def test_the_page_shows_the_likeliest_wrong_labels_of_an_audit(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_page, "IMAGES", 4)
    monkeypatch.setattr(check_page, "SUSPECTS", 2)
    table = tmp_path / "audit" / "audit.csv"
    table.parent.mkdir()
    columns = ",".join(outputs.IMAGE_COLUMNS)
    blanks = "," * (len(outputs.IMAGE_COLUMNS) - 2)
    scores = {"07": 0.25, "06": 1.5, "gone": 0.5}
    table.write_text(f"{columns}\n" + "".join(f"{name},{score}{blanks}\n" for name, score in scores.items()))
    page = tmp_path / "check.html"
    words = [str(folder), "--images", "0", "--report", str(page), "--audit"]
    assert check.main([*words, str(table.parent)]) == 0
    text = page.read_text()
    assert "evenly spaced over each split: 2 of 9 of train, 2 of 3 of val, and those of the 2 likeliest" in text
    assert "audit: 1.500" in text and "not in the audit" in text and "not read" in text
    rows = text.split("Images by how likely their label is wrong")[2].split("</table>")[0].split("<tr>")[2:]
    assert [[name in row for row in rows] for name in ("06", "gone", "07")] == np.eye(3, dtype=bool).tolist()
    table.write_text("image,score\n06,much\n")
    assert check.main([*words, str(table)]) == 1
    assert "cannot be read as audit.csv of jaxseg audit, or its folder" in capsys.readouterr().err
    assert check.main([str(folder), "--audit", str(table)]) == 1
    assert "give --report FILE.html too" in capsys.readouterr().err


def test_a_doubted_name_in_two_splits_is_shown_with_both():
    source = SimpleNamespace(name=str)
    reports = [SimpleNamespace(split=split, readable=[split == "val", 3], source=source) for split in ("train", "val")]
    page = check_page._suspects(reports, {"3": 0.5, "True": 1.0, "gone": 2.0})  # type: ignore[arg-type]
    assert page.count(">train, val<") == 1 and page.count(">not read<") == 1


def test_small_splits_leave_their_share_of_the_page_to_others():
    assert check_page._numbers_of([500, 10]) == [62, 10] and check_page._numbers_of([500, 400]) == [36, 36]
    assert check_page._numbers_of([5, 300, 300]) == [5, 33, 34] and sum(check_page._numbers_of([1] * 100)) == 100


def test_mirrored_masks_and_shared_videos_are_to_look_at(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, first in (("train", 0), ("val", 6)):
        for i in range(first, first + 6):
            label = np.zeros((48, 64), np.uint8)
            top, left = rng.integers(4, 20, 2)
            label[top : top + 20, left : left + 9] = label[top + 14 : top + 20, left : left + 24] = 1
            ramp = np.linspace(0, 90, 64)[:, None] if i % 2 else np.linspace(0, 90, 48)[:, None, None]  # of two scenes
            image = 30 + ramp + 120 * label[..., None] + rng.normal(0, 9, (48, 64, 3))
            image = np.clip(image, 0, 255).astype(np.uint8)
            for kind, picture in (("images", image), ("masks", label[:, ::-1] if i == 3 else label)):
                path = tmp_path / split / kind / f"{'ab'[i % 2]}_{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(picture)).save(path)
    assert check.main([str(tmp_path), "--images", "0"]) == 0
    said = capsys.readouterr().out
    mask = tmp_path / "train" / "masks" / "b_003.png"
    assert f"The mask {mask} (train) fits the edges in its image better mirrored left to right" in said
    assert said.count("fits the edges") == 1
    assert (
        "6 images of val and images of train have names that differ in a number alone, such as a_006 and a_004" in said
    )


def test_a_good_folder(experiment, folder, tmp_path, capsys):
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 0
    out = capsys.readouterr().out
    assert "train: 9 images read; height x width: 16 x 24 (9)" in out
    assert "dog" in out and "never occurs" in out


def test_every_problem_is_listed_and_the_good_images_are_drawn(experiment, folder, tmp_path, capsys):
    images, masks = folder / "train" / "images", folder / "train" / "masks"
    (masks / "03.png").unlink()  # image without mask
    (images / "04.png").unlink()  # mask without image
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "05.png")  # another size
    Image.fromarray(np.full((16, 24), 77, np.uint8)).save(masks / "06.png")  # outside the classes
    (images / "07.png").write_bytes((images / "07.png").read_bytes()[:300])  # truncated
    Image.fromarray(np.full((16, 24, 3), 9, np.uint8)).save(masks / "08.png")  # colours
    Image.fromarray(np.full((16, 24), 255, np.uint8)).save(masks / "09.png")  # nothing but ignored
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "7 problems:" in err
    for text in (
        "03.png has no mask",
        "04.png has no image",
        "is 9 x 9",
        "holds the values 77",
        "cannot be read",
        "this file has ((9,9,9),)",
        "Every pixel of 09 (train) is ignored",
    ):
        assert text in err
    assert "train: 3 images read" in out and "val: 3 images read" in out
    assert (tmp_path / "s.png").is_file()


def test_a_stray_value_hides_no_other_problem(experiment, folder, tmp_path, capsys):
    (folder / "classes.json").unlink()
    masks = folder / "train" / "masks"
    Image.fromarray(np.full((16, 24), 77, np.uint8)).save(masks / "06.png")
    (masks / "03.png").unlink()
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "2 problems:" in err and "06.png holds the values 77" in err and "03.png has no mask" in err
    assert "train: 7 images read" in out


def test_what_may_be_wrong_is_named(experiment, tmp_path, capsys):
    """Dark 16-bit images, a turned image, a gap and a class of a few pixels: no errors, but to look at."""
    for i in range(3):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        image, mask = np.full((40, 50), 4000, np.uint16), np.zeros((40, 50), np.uint8)
        image[:, 25:], mask[:, 25:], mask[0, 0] = 1000, 3, 2 * (i == 0)
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png", **({"exif": exif} if i == 0 else {}))
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={tmp_path}", "--images", "0"]
    assert check.main(arguments) == 0
    out = capsys.readouterr().out
    mean, std = 2500 / 65535, 1500 / 65535
    assert f"mean {mean:.3f}, {mean:.3f}, {mean:.3f}; std {std:.3f}" in out and "data.mean 0.485, 0.456, 0.406" in out
    assert "16-bit images of train is 4000 of 65535, which becomes 0.061 in [0, 1]" in out
    assert "The EXIF orientation of 1 of 2 images of train" in out
    assert "Classes that no mask of train and val holds: class 1. If" in out
    assert "less than a thousandth of the labelled pixels of train and val: class 2 (1 pixel, 0.0167%)" in out
    assert "Nothing is wrong" not in out and "look at the points above" in out


def test_every_bad_file_is_listed_where_the_folder_cannot_be_opened(experiment, folder, tmp_path, capsys):
    (folder / "classes.json").write_text('{"classes": ["a"], "ignore": 255}')
    masks = folder / "train" / "masks"
    (masks / "03.png").unlink()
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(masks / "04.png", format="JPEG")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "05.png")
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    err = capsys.readouterr().err
    assert "4 problems:" in err
    for text in ("unknown key 'ignore'", "03.png has no mask", "04.png is a JPEG file", "is 9 x 9"):
        assert text in err


def test_palettes_links_and_one_class_are_problems(experiment, folder, tmp_path, capsys):
    masks = folder / "train" / "masks"
    for name, colors in (("03", [0, 0, 0, 9, 0, 0]), ("04", [0, 0, 0, 0, 9, 0])):
        image = Image.fromarray(np.resize(np.array([0, 1], np.uint8), (16, 24)), "P")
        image.putpalette(colors)
        image.save(masks / f"{name}.png")
    (masks / "99.png").symlink_to("/nowhere")
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    err = capsys.readouterr().err
    assert "2 problems:" in err and "99.png is a link to /nowhere" in err
    assert "04.png shows the index 1 in (0, 9, 0), but that of" in err
    (folder / "classes.json").write_text('{"classes": [{"index": 7, "name": "a"}]}')
    assert check.main(arguments) == 1
    assert "has the one class 'a', so there is nothing to distinguish" in capsys.readouterr().err


def test_masks_that_number_objects_are_remarked(experiment, folder, tmp_path, capsys):
    (folder / "classes.json").unlink()
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--images", "0"]
    for count, said in ((lambda i: 16, False), (lambda i: 16 if i < 5 else 6, True)):
        for mask in folder.glob("*/masks/*.png"):
            values = np.arange(16 * 24).reshape(16, 24) % count(int(mask.stem))
            Image.fromarray(values.astype(np.uint8)).save(mask)
        assert check.main(arguments) == 0
        assert ("Of 16 classes, each occurs in at most" in capsys.readouterr().out) is said


def test_problems_of_one_cause_are_counted(experiment, folder, tmp_path, capsys):
    for name in range(3, 11):
        (folder / "train" / "masks" / f"{name:02d}.png").unlink()
    (folder / "val" / "masks" / "00.png").unlink()
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    err = capsys.readouterr().err
    assert "9 problems:" in err
    assert err.count("has no mask") == 3 and "... and 6 more of this kind" in err


def test_classes_are_found_although_a_mask_is_broken(experiment, folder, tmp_path, capsys):
    (folder / "classes.json").unlink()
    mask = folder / "train" / "masks" / "05.png"
    mask.write_bytes(mask.read_bytes()[:60])
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "1 problem:" in err and "05.png cannot be read" in err
    assert "class 2" in out and "train: 8 images read" in out


def test_a_folder_that_cannot_be_opened(experiment, tmp_path, capsys):
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={tmp_path / 'none'}", "--out", "unused.png"]
    assert check.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "does not exist" in err and "train: no image could be read" in out


def test_the_cause_is_printed_before_that_no_image_could_be_read(experiment, tmp_path, capfd):
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={tmp_path / 'none'}"]
    with contextlib.redirect_stderr(sys.stdout):
        assert check.main(arguments) == 1
    said = capfd.readouterr().out
    assert said.index("does not exist") < said.index("train: no image could be read.")


def test_notes_are_among_what_to_look_at(experiment, folder, tmp_path, capsys, caplog):
    """What a training only logs: names of classes that start with numbers, and masks of 0 and 255."""
    for mask in folder.rglob("masks/*.png"):
        Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8) * 255).save(mask)
    (folder / "classes.json").write_text('{"classes": ["1: sky", "2: road"]}')
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--images", "0"]
    assert check.main(arguments) == 0
    said = capsys.readouterr().out.partition("To look at:")[2]
    assert "start with numbers, such as '1: sky'" in said and "255 is taken as the class '2: road'" in said
    assert said.count("start with numbers") == 1 and not caplog.text and "Nothing is wrong" not in said


@pytest.mark.parametrize(("listed", "times"), [(True, 1), (False, 2)])
def test_files_are_decoded_once_and_masks_again_where_they_define_the_classes(
    experiment, folder, tmp_path, monkeypatch, listed, times
):
    decoded = collections.Counter()
    for name in ("read_image", "read_mask", "read_mask_and_colors"):
        for module in (folder_module, contents):
            if hasattr(module, name):
                original = getattr(module, name)
                count = functools.partial(
                    lambda f, path, *a, **k: (decoded.update([str(path)]), f(path, *a, **k))[1], original
                )
                monkeypatch.setattr(module, name, count)
    if not listed:
        (folder / "classes.json").unlink()
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--out", str(tmp_path / "s.png")]
    assert check.main(arguments) == 0
    kinds = {kind: [n for path, n in decoded.items() if f"/{kind}/" in path] for kind in ("images", "masks")}
    assert kinds["images"] == [1] * 12 and len(kinds["masks"]) == 12
    # Two masks of val are read with those of train, whose palettes are compared with theirs.
    assert sum(kinds["masks"]) == times * 12 + 2 * listed and max(kinds["masks"]) == 2


def test_a_wrong_configuration_is_one_sentence(experiment, capsys):
    assert check.main(["--config", experiment, "--config.data.siz=(8,8)"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Did you mean 'data.size'" in error and error.count("\n") == 1


def test_names_that_are_no_plain_text_and_a_home_folder(experiment, folder, tmp_path, capsys, monkeypatch):
    for kind in ("images", "masks"):
        (file,) = (folder / "train" / kind).glob("05.*")
        file.rename(file.with_name(f"$5_to_$10\udce9{file.suffix}"))
    classes = folder / "classes.json"
    classes.write_text(classes.read_text().replace('"sky"', '"a$b_$\\u001b[31m"'))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder.name}"]
    assert check.main([*arguments, "--out=~/s.png"]) == 0
    assert r"a$b_$\x1b[31m" in capsys.readouterr().out and (tmp_path / "s.png").is_file()
    monkeypatch.setattr("jaxseg.pictures.overlay_sheet", lambda *_, **__: 1 / 0)
    assert check.main([*arguments, "--out=~/s.png"]) == 0
    said = capsys.readouterr()
    assert "s.png cannot be drawn: division by zero." in said.err and "dog" in said.out
    monkeypatch.chdir(folder)
    assert check.main([*arguments, "--out=~/s.png"]) == 1
    assert f"data.dir='{folder.name}' (relative to {folder}, the folder of this command)" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written(experiment, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert check.main(["--config", experiment, "--out", str(tmp_path / "file" / "sheet.png")]) == 1
    assert "sheet.png cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["there", "new/"])
def test_the_picture_may_be_put_into_a_folder(experiment, folder, tmp_path, drawn, out):
    (tmp_path / "there").mkdir()
    arguments = ["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--images", "1"]
    assert check.main([*arguments, f"--out={tmp_path}/{out}"]) == 0
    assert (tmp_path / out / "check.png").is_file()


def test_an_image_that_memory_does_not_hold_is_a_problem_that_names_it(experiment, folder, monkeypatch, capsys):
    read = folder_module.read_image

    def full(path, channels, limits):
        if path.stem == "05":
            raise MemoryError
        return read(path, channels, limits)

    monkeypatch.setattr(folder_module, "read_image", full)
    assert check.main(["--config", f"{experiment}:folder", f"--config.data.dir={folder}", "--images", "0"]) == 1
    said = capsys.readouterr()
    assert "1 problem:\n  05 does not fit into the memory of this machine." in said.err
    assert "train: 8 images read" in said.out


def test_the_picture_replaces_no_other_file(experiment, tmp_path, capsys, drawn):
    out, own = tmp_path / "a.png", tmp_path / "check.png"
    arguments = ["--config", experiment, "--images", "1"]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(out)
    before = out.read_bytes()
    assert check.main([*arguments, "--out", str(out)]) == 1
    assert f"{out} would replace a file that jaxseg did not write" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert check.main([*arguments, "--out", str(own)]) == 0
    with Image.open(own) as picture:
        picture.load()
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "Matplotlib version3.10.0, https://matplotlib.org/")  # as an earlier version left it
    picture.save(own, pnginfo=info, dpi=picture.info["dpi"])
    assert check.main([*arguments, "--out", str(own)]) == check.main([*arguments, "--out", str(own)]) == 0
    picture.save(own, pnginfo=info, dpi=(100, 100))  # by which matplotlib draws
    assert check.main([*arguments, "--out", str(own)]) == 1
    assert "would replace a figure of matplotlib without the mark" in capsys.readouterr().err
    picture.save(out, pnginfo=info, dpi=picture.info["dpi"])  # under another name it may be that of another program
    assert check.main([*arguments, "--out", str(out)]) == 1
    assert (
        "give another file with --out, or delete it if an earlier version of jaxseg drew it" in capsys.readouterr().err
    )


def test_the_command_line(experiment, tmp_path):
    command = [sys.executable, "-m", "jaxseg.data.check", "--config", experiment, "--splits", "val", "--images", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("val: 3 images read") and result.stderr == ""

"""`predict --regions`: the files of a call, the options, and what it refuses."""

import csv
import json
import os

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg.inference import load_run
from jaxseg.inference.regions import find_regions
from jaxseg.predict import main


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "crop", tiny_config(data__fit="crop"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images of one size, the second with a world file."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("b", "a"):
        Image.fromarray(np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)).save(
            folder / f"{name}.png"
        )
    (folder / "a.pgw").write_text("2\n0\n0\n-2\n1\n-1\n")
    return folder


def predict(workdir, images, out, *words):
    return main(["--workdir", str(workdir), str(images), "--out", str(out), "--no-overlay", *words])


def test_the_regions_of_all_images_are_written(workdir, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(workdir, images, out, "--regions", "--min-area", "3", "--connectivity", "4", "--fill-holes") == 0
    said = capsys.readouterr().out
    assert f"table:         {out / 'regions.csv'}" in said and f"annotations:   {out / 'regions.json'}" in said
    assert (
        f"outlines:      {out / 'NAME-regions.geojson'} (2 images)" in said
        and "world" not in said
        and ".pgw" not in said
    )
    with (out / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((out / "regions.json").read_text())
    names = [str(images / f"{name}.png") for name in "ab"]
    assert [each["file_name"] for each in content["images"]] == [os.path.relpath(name, out) for name in names]
    classes = load_run(workdir).classes
    only = [i for i, name in enumerate(classes) if name != "background"]
    assert [each["id"] for each in content["categories"]] == only
    start = 0
    for name, image in zip("ab", names):
        labels = np.array(Image.open(out / f"{name}.png"))
        expected = find_regions(labels, only=only, min_area=3, connectivity=4, fill=True)
        mine = [row for row in rows if row["image"] == image]
        assert [int(row["area"]) for row in mine] == expected.area.tolist() and len(expected) > 0
        assert [row["name"] for row in mine] == [classes[c] for c in expected.classes]
        assert all(0 < float(row["confidence"]) <= 1 for row in mine)
        assert all((row["world_x"] != "") == (name == "a") for row in mine)
        features = json.loads((out / f"{name}-regions.geojson").read_text())["features"]
        assert len(features) == len(mine)
        of_image = content["annotations"][start : start + len(mine)]
        assert [each["area"] for each in of_image] == expected.area.tolist()
        start += len(mine)
    assert [each["id"] for each in content["annotations"]] == list(range(1, start + 1))
    assert predict(workdir, images, out, "--regions") == 0  # its own files are replaced


def test_classes_and_form_are_chosen(workdir, images, tmp_path):
    out, classes = tmp_path / "out", load_run(workdir).classes
    words = ["--regions", "--region-classes", f"{classes[0]}, {classes[1]}", "--coco", "polygons", "--split-touching"]
    assert predict(workdir, images / "a.png", out, *words) == 0
    content = json.loads((out / "regions.json").read_text())
    assert [each["name"] for each in content["categories"]] == list(classes[:2])
    assert {each["category_id"] for each in content["annotations"]} <= {0, 1}


@pytest.mark.parametrize("name", ["regions.csv", "regions.json", "a-regions.geojson"])
def test_a_file_of_another_kind_is_not_replaced(workdir, images, tmp_path, name, capsys):
    (tmp_path / name).write_text("{}")
    assert predict(workdir, images, tmp_path, "--regions") == 1
    assert f"{name} would replace a file that prediction did not write" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "{}" and len(list(tmp_path.iterdir())) == 1


def test_a_class_that_there_is_not_is_named(workdir, images, tmp_path, capsys):
    assert predict(workdir, images, tmp_path, "--regions", "--region-classes", "disk") == 1
    assert "--region-classes: 'disk' is no class of the run." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-area", "3"], "--min-area belongs to --regions; give that too"),
        (["--coco", "rle"], "--coco belongs to --regions"),
        (["--regions", "--skip-existing"], "cannot be given with --skip-existing"),
        (["--regions", "--min-area", "-1"], "--min-area must be at least 0, got -1"),
        (["--regions", "--fill-holes", "0"], "--fill-holes must be at least 1, got 0"),
        (["--regions", "--split-touching", "0"], "--split-touching must be above 0, got 0.0"),
    ],
)
def test_options_that_do_not_fit_are_a_sentence(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", "x", "i.png", *words])
    assert message in capsys.readouterr().err

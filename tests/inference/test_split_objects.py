"""`evaluate --objects`: the objects of a split against pictures of instances, and against the masks' components."""

import json

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg.errors import ConfigError, DataError
from jaxseg.evaluate import main
from jaxseg.inference import load_run, make_segmenter
from jaxseg.inference.objects import ObjectTotal
from jaxseg.inference.regions import find_regions
from jaxseg.inference.regions.settings import RegionSettings
from jaxseg.inference.split_objects import score_objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two classes whose second class has two objects that touch in each image; some pixels are ignored."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks", "instances"):
            (root / split / kind).mkdir(parents=True)
        for name in "ab":
            numbers = np.zeros((16, 16), np.uint16)
            numbers[2:9, 2:14], numbers[9:14, 2:14] = 400, 7
            mask = (numbers > 0).astype(np.uint8)
            mask[:, 13] = 255
            for kind, image in (("images", rng.integers(0, 256, (16, 16, 3), np.uint8)), ("masks", mask)):
                Image.fromarray(image).save(root / split / kind / f"{name}.png")
            Image.fromarray(numbers).save(root / split / "instances" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    config = tiny_config(data__source="folder", data__dir=str(folder), data__fit="crop")
    return make_run(tmp_path_factory.mktemp("runs") / "folder", config, {12: 0.5})  # a seed that predicts both classes


def test_the_regions_are_matched_with_the_instances(folder, workdir):
    run = load_run(workdir)
    found = score_objects(run, settings=RegionSettings((1,), min_area=2))
    assert found.scores.truth == 4 and found.instances == folder / "val" / "instances"
    segment, total = make_segmenter(run.parts), ObjectTotal()
    for name in "ab":
        image = np.array(Image.open(folder / "val" / "images" / f"{name}.png"))
        regions = find_regions(segment(run.variables, image).classes, only=(1,), min_area=2).labels
        truth = np.array(Image.open(folder / "val" / "instances" / f"{name}.png")).astype(int)
        truth[:, 13] = regions[:, 13] = 0
        total.add(truth, regions)
    assert found.scores.predicted == total.scores().predicted > 0
    np.testing.assert_allclose(found.scores.average_precision, total.scores().average_precision)


def test_without_instances_the_components_of_the_masks_are_the_objects(workdir, folder):
    run = load_run(workdir)
    (folder / "val" / "instances").rename(folder / "val" / "kept")
    try:
        found = score_objects(run, settings=RegionSettings((1,)))
        assert found.scores.truth == 2 and "components of the masks" in str(found)
        both = score_objects(run)  # the ignored column divides the background in two
        assert both.scores.truth == 6
        with pytest.raises(DataError, match=r"no picture of the true objects of .*a.*: .*a\.png was expected"):
            score_objects(run, instances=folder)
        with pytest.raises(ConfigError, match="does not exist"):
            score_objects(run, instances=folder / "nowhere")
    finally:
        (folder / "val" / "kept").rename(folder / "val" / "instances")


def test_the_command_prints_and_writes_the_scores(workdir, capsys):
    assert main(["--workdir", str(workdir), "--objects", "--region-classes", "1", "--fill-holes"]) == 1
    assert "'1' is no class of the run" in capsys.readouterr().err
    assert main(["--workdir", str(workdir), "--objects", "--instances", str(workdir / "config.json")]) == 1
    said = capsys.readouterr()
    assert "config.json is a file" in said.err and "IoU" not in said.out, "before the split is scored"
    name = load_run(workdir).classes[1]
    assert main(["--workdir", str(workdir), "--objects", "--region-classes", name, "--fill-holes"]) == 0
    out = capsys.readouterr().out
    assert "| IoU " in out and "4 true objects" in out and f"objects:    {workdir / 'objects-val.json'}" in out
    content = json.loads((workdir / "objects-val.json").read_text())
    assert content["truth"] == 4 and content["instances"] is True and len(content["average_precision"]) == 10
    (workdir / "objects-val.json").write_text("{}")
    assert main(["--workdir", str(workdir), "--objects"]) == 1
    assert "would replace a file that jaxseg did not write" in capsys.readouterr().err


def test_options_of_objects_alone_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", "x", "--min-area", "3"])
    assert "--min-area belongs to --objects; give that too" in capsys.readouterr().err

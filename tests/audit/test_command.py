"""`jaxseg audit`: who judges an image, the rankings, the files, and its answers to wrong use."""

import csv
import itertools

import numpy as np
import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image

from jaxseg.audit import audit
from jaxseg.audit.__main__ import main
from jaxseg.audit.confident import class_sums, thresholds
from jaxseg.audit.judges import make_judges
from jaxseg.audit.outputs import IMAGE_COLUMNS, MARK, REGION_COLUMNS
from jaxseg.audit.scores import image_scores, pixel_scores
from jaxseg.config import set_key
from jaxseg.data import make_source
from jaxseg.data.folds import fold_of
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference import load_run, make_segmenter
from jaxseg.inference.predictor import make_predictor
from jaxseg.pictures.marks import software
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Two runs with a fold each, of other parameters, and one without."""
    root = tmp_path_factory.mktemp("runs")
    of = {"1": "1/2", "2": "2/2", "whole": ""}
    changes = {name: {"data__fold": fold, "data__shapes_train": 7} for name, fold in of.items()}
    made = {}
    for step, (name, values) in enumerate(changes.items(), 10):
        config = tiny_config()
        for key, value in values.items():
            set_key(config, key.replace("__", "."), value)
        made[name] = make_run(root / name, config, {step: 0.5})
    return made


@pytest.fixture(scope="module")
def found(workdirs):
    return audit([load_run(workdirs["1"]), load_run(workdirs["2"])])


def call(out, *words):
    return main(["--out", str(out), *map(str, words)])


def rows_of(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_each_image_is_judged_by_the_run_without_it(workdirs, found):
    runs = [load_run(workdirs[name]) for name in ("1", "2")]
    config = runs[0].config.copy_and_resolve_references()
    set_key(config, "data.fold", "")
    source = make_source(config, "train")
    shares, sums = [], None
    for i in range(len(source)):
        run = runs[fold_of(source.name(i), 2) - 1]
        shares.append(make_segmenter(run.parts)(run.variables, source[i]["image"], True).probabilities)
        more = class_sums(shares[-1], source[i]["label"])
        sums = more if sums is None else sums + more
    np.testing.assert_allclose(found.thresholds, thresholds(sums), rtol=1e-4)
    assert len(found.images) == 7 and found.left_out == found.unlabelled == 0
    for row in found.images:
        label = source[row.index]["label"]
        expected = image_scores(pixel_scores(shares[row.index], label, found.thresholds), shares[row.index], label)
        assert row.judges == 1 and row.name == source.name(row.index) and row.scores.gradient > 0
        np.testing.assert_allclose(row.scores[:-2], expected[:-2], rtol=2e-3, atol=1e-5)
    scores = [row.scores.score for row in found.images]
    assert scores == sorted(scores, reverse=True) and 0 < found.wrong_share < 1


def test_regions_are_ranked_over_all_images_and_few_are_kept(workdirs, found):
    scores = [row.doubt.score for row in found.regions]
    assert scores == sorted(scores, reverse=True) and len(scores) > 3
    few = audit([load_run(workdirs["1"]), load_run(workdirs["2"])], regions=3, gradient=False)
    assert [r[:2] for r in few.regions] == [r[:2] for r in found.regions[:3]]
    assert [r.doubt[:-1] for r in few.regions] == [r.doubt[:-1] for r in found.regions[:3]]
    assert all(np.isnan(row.scores.gradient) for row in few.images)


def test_a_run_with_a_fold_judges_that_fold_alone(workdirs):
    one = audit([load_run(workdirs["1"])], gradient=False)
    assert {fold_of(row.name, 2) for row in one.images} == {1} and one.left_out + len(one.images) == 7
    assert "left out: every run was trained on them" in str(one)
    val = audit([load_run(workdirs["1"]), load_run(workdirs["2"])], "val", gradient=False)
    assert len(val.images) == 5 and {row.judges for row in val.images} == {2}


def test_runs_that_do_not_fit_together_are_refused(workdirs):
    runs = [load_run(workdirs["1"]), load_run(workdirs["whole"])]
    with pytest.raises(ConfigError, match=r"whole was trained on all images, and others without a fold"):
        make_judges(runs, make_predictor(runs), "train")
    set_key(runs[1].config, "data.train_split", "test")
    with pytest.raises(ConfigError, match=r"have the same data: .*whole has data\.train_split=test, and .*1 train"):
        make_judges(runs, make_predictor(runs), "train")
    with pytest.raises(ArgumentError, match="at least one run"):
        audit([])


def test_the_command_writes_tables_pictures_masks_and_maps(workdirs, tmp_path, capsys):
    out = tmp_path / "audit"
    words = ["--workdir", workdirs["1"], workdirs["2"], "--top", "2", "--suggest", "--maps", "--no-gradient"]
    assert call(out, *words) == 0
    said = capsys.readouterr()
    assert "an estimated" in said.out and "| image" in said.out and "note" not in said.err
    images, regions = rows_of(out / "audit.csv"), rows_of(out / "regions.csv")
    assert tuple(images[0]) == IMAGE_COLUMNS and tuple(regions[0]) == REGION_COLUMNS
    assert len(images) == 7 and images[0]["gradient"] == "" and "disc" in {r["given"] for r in regions} | {"disc"}
    pictures = sorted((out / "pictures").iterdir())
    assert [p.name for p in pictures] == [f"{i:04d}-{images[i - 1]['image']}.png" for i in (1, 2)]
    assert software(pictures[0]) == MARK and software(out / "sheet.png") == "jaxseg"
    mask = np.asarray(Image.open(out / "masks" / pictures[0].name))
    with np.load(out / "maps" / f"{pictures[0].stem}.npz") as maps:
        label = make_source(load_run(workdirs["whole"]).config, "train")[int(images[0]["image"][-6:])]["label"]
        np.testing.assert_array_equal(mask, np.where(maps["doubted"] == IGNORE, label, maps["doubted"]))
        assert maps["probability"].dtype == np.float16 and maps["odds"].shape == label.shape
    assert call(out, *words) == 0  # its own files are replaced


def test_no_file_of_someone_else_is_replaced(workdirs, tmp_path, capsys):
    (tmp_path / "audit.csv").write_text("mine\n")
    assert call(tmp_path, "--workdir", workdirs["1"]) == 1
    assert "would replace a file that jaxseg audit did not write" in capsys.readouterr().err
    assert call(tmp_path / "audit.csv", "--workdir", workdirs["1"]) == 1
    assert "is a file; give a folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["audit.csv"]
    with pytest.raises(SystemExit):
        call(tmp_path, "--workdir", workdirs["1"], "--top", "0")
    assert "must be a whole number of at least 1, got 0" in capsys.readouterr().err


def test_a_folder_with_values_ignored_masks_and_images_of_many_sizes(tmp_path, capsys):
    data = make_folder(tmp_path / "data", [(20, 28), (17, 16), (24, 19)], split="train")
    make_folder(data, [(16, 16)])
    Image.fromarray(np.full((17, 16), 255, np.uint8)).save(data / "train" / "masks" / "1.png")
    config = tiny_config(data__source="folder", data__dir=str(data), data__fit="crop")
    workdir = make_run(tmp_path / "run", config)
    assert call(tmp_path / "out", "--workdir", workdir, "--suggest", "--regions", "4") == 0
    said = capsys.readouterr()
    assert "judged by networks that were trained on them" in said.err and "no pixel is labelled" in said.out
    images = rows_of(tmp_path / "out" / "audit.csv")
    assert {row["image"] for row in images} == {"0", "2"} and all(float(row["gradient"]) > 0 for row in images)
    sizes = {Image.open(file).size for file in (tmp_path / "out" / "masks").iterdir()}
    assert sizes == {(28, 20), (19, 24)} and len(rows_of(tmp_path / "out" / "regions.csv")) <= 4
    for mask in itertools.islice((tmp_path / "out" / "masks").iterdir(), 2):
        assert set(np.unique(np.asarray(Image.open(mask)))) <= {0, 1, 2, 255}

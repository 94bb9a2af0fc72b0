"""The command on folders: formats, sub-folders, what earlier calls left, and the table of predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg.errors import DataError
from jaxseg.inference import load, progress
from jaxseg.inference.folder import FolderPrediction
from jaxseg.inference.outputs import Outputs
from jaxseg.inference.predictions_table import TABLE
from jaxseg.inference.predictor import make_predictor
from jaxseg.predict import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {fit: load(make_run(root / fit, tiny_config(data__fit=fit))) for fit in ("resize", "crop")}


@pytest.fixture
def tree(tmp_path):
    """A folder of images in sub-folders."""
    for number, name in enumerate(("a.png", "x/a.png", "x/y/b.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (12 + number, 16, 3), np.uint8)).save(path)
    return tmp_path / "in"


def predict(run, *words):
    return main(["--workdir", str(run.workdir), *map(str, words)])


def rows(out):
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_formats_hold_the_same_classes(runs, tree, tmp_path):
    run, image = runs["resize"], np.asarray(Image.open(tree / "a.png"))
    expected, out = run.predict(image).classes, tmp_path / "out"
    for form, file in (("png", "a.png"), ("color", "a.png"), ("tiff", "a.tif"), ("npz", "a.npz")):
        for _ in range(2):  # a later call may replace what an earlier one wrote
            assert predict(run, tree / "a.png", "--out", out, "--format", form, "--no-overlay") == 0
        if form == "npz":
            with np.load(out / file) as arrays:
                np.testing.assert_array_equal(arrays["labels"], expected)
                assert tuple(arrays["classes"]) == run.classes
            continue
        with Image.open(out / file) as picture:
            assert picture.mode == ("RGB" if form == "color" else "P")
            stored = np.asarray(picture)
        np.testing.assert_array_equal(stored, np.array(run.colors)[expected] if form == "color" else expected)
    assert not list(out.glob("*-overlay.png"))


def test_sub_folders_are_kept(runs, tree, capsys):
    out = tree / "preds"  # inside the folder of the images
    for _ in range(2):
        assert predict(runs["resize"], tree, "--out", out, "--recursive") == 0
        assert "3 of 3 images segmented" in capsys.readouterr().out
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    names = {"a", "x/a", "x/y/b"}
    assert written == {f"{name}{end}" for name in names for end in (".png", "-overlay.png")} | {"predictions.csv"}
    assert [row["output"] for row in rows(out)] == ["a.png", "x/a.png", "x/y/b.png"]
    # the first alone, to look at some
    assert predict(runs["resize"], tree, "--out", out, "--recursive", "--limit", "2") == 0
    said = capsys.readouterr().out
    assert "The first 2 of 3 files, as --limit asks." in said and "2 of 2 images segmented" in said
    assert [row["output"] for row in rows(out)] == ["a.png", "x/a.png"]


def test_what_an_earlier_call_has_written_is_left_out(runs, tree, tmp_path, capsys):
    run, out = runs["resize"], tmp_path / "out"
    assert predict(run, tree, "--out", out) == 0
    before, table = (out / "a.png").stat().st_mtime_ns, rows(out)
    assert predict(run, tree, tree / "x", "--out", out, "--skip-existing") == 0
    assert "1 of 1 image segmented" in (said := capsys.readouterr().out) and "1 image left out" in said
    assert (out / "a.png").stat().st_mtime_ns == before and (out / "a-2.png").is_file()
    assert rows(out)[0] == table[0] and len(rows(out)) == 2
    for words in (
        ["--format", "color"],
        ["--probabilities"],
        ["--format", "npz", "--no-overlay"],
    ):  # others
        assert predict(run, tree, "--out", out, "--skip-existing", *words) == 0
        assert "1 of 1 image segmented" in capsys.readouterr().out
        assert predict(run, tree, "--out", out, "--skip-existing", *words) == 0
        assert "0 of 0 images segmented" in capsys.readouterr().out
    assert predict(run, tree, "--out", out) == 0
    assert predict(run, tree / "x" / "a.png", "--out", out, "--skip-existing") == 0  # another image of this name
    assert "1 of 1 image segmented" in capsys.readouterr().out
    assert predict(run, tree, "--out", out) == 0
    (out / "a-overlay.png").unlink()  # half of the outputs are not all
    assert predict(run, tree, "--out", out, "--skip-existing") == 0
    assert "1 of 1 image segmented" in capsys.readouterr().out


def test_what_an_earlier_call_wrote_for_an_image_does_not_stay_beside_its_new_classes(runs, tree, tmp_path, capsys):
    run, other, out = runs["resize"], runs["crop"], tmp_path / "out"
    (tree / "x" / "y" / "b.png").rename(tree / "b.png")
    every = ["--regions", "--uncertainty", "entropy", "--probabilities"]
    assert predict(run, tree, "--out", out, "--format", "tiff", *every) == 0
    table = {name: len((out / name).read_text().splitlines()) for name in ("regions.csv", "uncertainty.csv")}
    foreign = out / "a-uncertainty.npz.txt"
    foreign.write_text("mine")
    before = {file.name for file in out.iterdir()}
    assert predict(other, tree / "a.png", "--out", out, "--no-overlay") == 0
    ends = (".tif", ".npz", "-overlay.png", "-regions.geojson", "-uncertainty.npz", "-uncertainty.png")
    assert {file.name for file in out.iterdir()} == before - {f"a{end}" for end in ends} | {"a.png"}
    assert "1 NAME-overlay.png, 1 NAME-regions.geojson" in (said := capsys.readouterr().out)
    assert "1 entry of regions.json" in said and said.count("Removed, since") == 1
    assert "with other networks or options, or of other content" in said
    images = json.loads((out / "regions.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in images] == ["b.png"]
    assert len((out / "uncertainty.csv").read_text().splitlines()) == table["uncertainty.csv"] - 1
    assert 1 < len((out / "regions.csv").read_text().splitlines()) < table["regions.csv"]
    (tree / "b.png").rename(tree / "a-uncertainty.png")  # an image of the name of an output
    for images in ([tree / "a.png", tree / "a-uncertainty.png"], [tree / "a.png"]):
        assert predict(run, *images, "--out", out) == 0
    assert {"a.png", "a-overlay.png", "a-uncertainty.png", "b.tif", foreign.name} <= {f.name for f in out.iterdir()}
    (tree / "a-uncertainty.png").rename(tree / "b.png")
    capsys.readouterr()
    assert predict(other, tree / "b.png", "--out", out) == 0
    assert "regions.csv, regions.json, uncertainty.csv." in capsys.readouterr().out


def test_what_an_earlier_call_wrote_stays_beside_the_same_classes(runs, tree, tmp_path, capsys):
    """The same networks, options and content give the same classes, to which the files of earlier calls belong."""
    run, out = runs["resize"], tmp_path / "out"
    assert predict(run, tree, "--out", out, "--regions", "--uncertainty", "entropy") == 0
    capsys.readouterr()
    names = ("regions.csv", "regions.json", "uncertainty.csv", "a-regions.geojson", "a-uncertainty.npz")
    before = {name: (out / name).read_bytes() for name in names}
    for words in (["--probabilities"], ["--no-overlay"], ["--format", "tiff"], ["--values", "masks"]):
        assert predict(run, tree, "--out", out, *words) == 0
        assert "Removed" not in capsys.readouterr().out, words
        assert {name: (out / name).read_bytes() for name in names} == before
    assert (out / "a.npz").is_file() and (out / "a-overlay.png").is_file()
    (out / "a-regions.geojson").unlink()  # as a call with other networks leaves it that was killed
    assert predict(run, tree, "--out", out) == 0
    assert "regions.csv" in capsys.readouterr().out and not (out / "regions.csv").exists()
    assert (out / "uncertainty.csv").read_bytes() == before["uncertainty.csv"]
    assert predict(run, tree, "--out", out, "--average", "flips") == 0  # other options
    assert "NAME-uncertainty.npz" in capsys.readouterr().out and not (out / "a.npz").exists()


def test_a_call_that_stops_leaves_no_lines_of_former_classes(runs, tree, tmp_path, monkeypatch):
    run, out = runs["resize"], tmp_path / "out"
    assert predict(run, tree, "--out", out, "--regions") == 0
    write = Outputs.write

    def stopped(self, *arguments, **options):
        write(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Outputs, "write", stopped)
    assert predict(runs["crop"], tree, "--out", out) != 0
    assert (out / "a.png").is_file() and not (out / "a-regions.geojson").exists()
    assert not (out / "regions.csv").exists() and not (out / "regions.json").exists()


def test_a_line_now_and_then_says_how_far_it_is(runs, tree, tmp_path, capsys, monkeypatch):
    words = [tree, "--recursive", "--out", tmp_path / "out", "--no-overlay"]
    assert predict(runs["resize"], *words) == 0
    assert capsys.readouterr().err == "", "nothing of a call that is over soon"
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert predict(runs["resize"], *words) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" after ")[0] for line in said] == [f"predict: {i} of 3 images" for i in (1, 2, 3)]
    assert list(progress.each([7, 8], "fit", "run")) == [7, 8]
    assert "fit: 2 of 2 runs after 0 s" in capsys.readouterr().err


def test_an_image_with_new_content_is_not_left_out(runs, tree, tmp_path, capsys):
    run, out = runs["resize"], tmp_path / "out"
    arguments = (tree / "a.png", tree / "x" / "a.png", "--out", out, "--skip-existing")
    assert predict(run, *arguments) == 0
    changed = np.asarray(Image.open(tree / "a.png"))[::-1]
    Image.fromarray(changed).save(tree / "a.png")
    capsys.readouterr()
    assert predict(run, *arguments) == 0
    assert "1 of 1 image segmented" in (said := capsys.readouterr().out) and "1 image left out" in said
    np.testing.assert_array_equal(Image.open(out / "a.png"), run.predict(changed).classes)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_what_other_networks_or_options_have_written_is_not_left_out(runs, tree, tmp_path, capsys, form):
    image, out = tree / "a.png", tmp_path / "out"

    def segmented(run, *words):
        assert predict(run, image, "--out", out, "--format", form, "--skip-existing", *words) == 0
        return "1 of 1 image segmented" in capsys.readouterr().out

    first, second = runs["resize"], runs["crop"]
    for run, words in ((first, []), (second, []), (second, ["--tiles", "16"]), (second, ["--average", "flips"])):
        assert segmented(run, *words) and not segmented(run, *words)
    assert segmented(first) and segmented(first, "--values", "masks") and not segmented(first, "--values", "masks")


def test_the_table_has_the_share_of_each_class_and_each_problem(runs, tree, tmp_path):
    run, out = runs["resize"], tmp_path / "out"
    (tree / "bad.png").write_text("no image")
    assert predict(run, tree, "--out", out) == 1
    good, bad = rows(out)
    classes = np.asarray(Image.open(out / "a.png"))
    for index, name in enumerate(run.classes):
        assert float(good[f"{name} %"]) == pytest.approx(100 * np.mean(classes == index), abs=1e-4)
    assert (good["height"], good["width"], good["problem"]) == ("12", "16", "")
    assert bad["output"] == "" and "bad.png cannot be read as an image" in bad["problem"]


def test_a_table_of_another_program_is_not_replaced(runs, tree, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("id,class\n1,cat\n")
    assert predict(runs["resize"], tree, "--out", out) == 1
    assert "predictions.csv would replace a file that prediction did not write" in capsys.readouterr().err
    assert (out / "predictions.csv").read_text() == "id,class\n1,cat\n" and not (out / "a.png").exists()


@pytest.mark.parametrize(("fit", "batch"), [("resize", 3), ("crop", 2)])
def test_images_of_like_size_are_batched_and_come_in_order(runs, tmp_path, fit, batch):
    run, sizes = runs[fit], [(12, 16), (12, 16), (20, 16), (12, 16), (9, 30)]
    names = {}
    for number, (h, w) in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (h, w, 3), np.uint8)).save(path)
        names[path] = str(number)
    (tmp_path / "7.png").write_text("no image")
    names[tmp_path / "7.png"] = "7"
    predictor, seen = make_predictor([run], tiles="auto"), []
    launch = predictor.launch
    object.__setattr__(predictor, "launch", lambda images, shares: seen.append(len(images)) or launch(images, shares))
    order = []
    outputs = Outputs(tmp_path / "out", run.classes, run.colors)
    prediction = FolderPrediction(
        predictor,
        outputs,
        refine=[lambda image, result: order.append(image.shape[:2]) or result],
        batch=batch,
    )
    summary = prediction(names)
    assert (summary.done, summary.failed) == (5, 1)
    assert seen == ([3, 2] if fit == "resize" else [2, 1, 1, 1])
    for path, name in names.items():
        if name != "7":
            expected = run.predict(path).classes
            np.testing.assert_array_equal(Image.open(tmp_path / "out" / f"{name}.png"), expected)
    assert [row["image"] for row in rows(tmp_path / "out")] == list(map(str, names))
    assert sorted(order) == sorted(sizes)


def test_an_extra_that_fails_for_one_image_leaves_the_others(runs, tree, tmp_path):
    left_out = []

    class Extra:
        suffixes = ("-note.txt",)
        option = "--extra"
        needs_probabilities = True

        def write(self, path, stem, image, result):
            assert result.probabilities is not None
            if path.name == "b.png":
                raise DataError(f"{path} has no note.")
            stem.with_name(stem.name + "-note.txt").write_text("note")

        def require_own(self, out, outputs):
            pass

        def leave_out(self, path):
            left_out.append(path.name)

        def finish(self, out):
            return [out / "notes.csv"]

    run = runs["crop"]
    outputs = Outputs(tmp_path / "out", run.classes, run.colors)
    prediction = FolderPrediction(make_predictor([run], tiles="auto"), outputs, extras=[Extra()])
    summary = prediction({tree / "a.png": "a", tree / "x" / "y" / "b.png": "b"})
    assert (summary.done, summary.failed) == (1, 1) and left_out == ["b.png"]
    assert summary.files == [tmp_path / "out" / "notes.csv", tmp_path / "out" / TABLE]
    assert (tmp_path / "out" / "a-note.txt").read_text() == "note"


def test_further_words_after_the_workdir_are_images_or_runs(runs, tree, tmp_path, capsys):
    out = tmp_path / "out"
    a, b = (runs[fit].workdir for fit in ("resize", "crop"))
    assert main(["--workdir", str(a), str(b), str(tree / "a.png"), "--out", str(out), "--average", "flips"]) == 0
    assert "1 of 1 image segmented by cnn after 10 steps and 1 other run." in capsys.readouterr().out
    expected = make_predictor([runs["resize"], runs["crop"]], average="flips")
    np.testing.assert_array_equal(Image.open(out / "a.png"), expected(np.asarray(Image.open(tree / "a.png"))).classes)
    for words, said in (
        (["--overlap", "1"], "overlap must be at least 0 and below 1"),
        (["--tiles", "none", "--overlap", ".25"], "--overlap 0.25 is that of tiles, and images are not cut into any"),
        (["--tiles", "big"], "tiles must be auto, or the height and width"),
        (["--average", "turns"], "'turns' is no way to view an image"),
    ):
        assert predict(runs["resize"], tree / "a.png", "--out", out, *words) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["a.png", "--skip-existing", "--video", "5"],
            "--video shows all images of a call",
        ),
        (["a.png", "--skip-existing", "--regions"], "it cannot be given with --skip-existing"),
        (["--samples", "2", "--average", "flips"], "--samples makes images from noise; it takes no --average"),
        (["--samples", "2", "--skip-existing"], "it takes no --skip-existing"),
        (["--samples", "2", "--limit", "2"], "it takes no --limit"),
        (["a.png", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["--samples", "2", "--format", "npz"], "it takes no --format"),
        (["--samples", "2", "--tiles", "64"], "it takes no --tiles"),
        (["--samples", "2", "--no-overlay"], "it takes no --no-overlay"),
    ],
)
def test_options_that_do_not_go_together_are_refused(runs, capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        predict(runs["resize"], *words)
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_a_video_takes_no_options_of_images(runs, tmp_path, capsys):
    (tmp_path / "film.mp4").write_bytes(b"")
    assert predict(runs["resize"], tmp_path / "film.mp4", "--out", tmp_path / "out", "--probabilities") == 1
    assert "is a video, of which the overlays alone are written; leave out --probabilities." in capsys.readouterr().err

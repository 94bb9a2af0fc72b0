"""`predict --uncertainty`: the maps, the picture and the table of each way, and what it refuses."""

import csv
import json
import re

import numpy as np
import pytest
from helpers.tiny_run import TINY, make_run, tiny_config
from PIL import Image

from jaxseg import pictures
from jaxseg.inference import load_run
from jaxseg.inference.uncertainty import combine, members
from jaxseg.metrics.uncertainty import SCORES
from jaxseg.predict import main


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Two runs, and one with dropout."""
    root = tmp_path_factory.mktemp("runs")
    config = tiny_config(model__args={**TINY, "dropout": 0.5})
    runs = {name: make_run(root / name, tiny_config(), {step: 0.5}) for name, step in (("one", 10), ("two", 20))}
    return {**runs, "dropout": make_run(root / "dropout", config)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def predict(workdir, images, out, *words):
    folders = workdir if isinstance(workdir, list) else [workdir]
    return main(["--workdir", *map(str, folders), str(images), "--out", str(out), "--no-overlay", *words])


def read(out, name):
    with np.load(out / f"{name}-uncertainty.npz") as maps:
        return dict(maps)


def test_the_entropy_of_the_prediction(workdirs, images, tmp_path, capsys):
    assert predict(workdirs["one"], images, tmp_path, "--uncertainty", "entropy", "--probabilities") == 0
    maps = read(tmp_path, "a")
    with np.load(tmp_path / "a.npz") as arrays:
        p = arrays["probabilities"].astype(np.float64)
    np.testing.assert_allclose(maps["entropy"], -(p * np.log(np.maximum(p, 1e-30))).sum(-1), atol=1e-5)
    assert set(maps) == {"entropy"} and maps["entropy"].dtype == np.float32
    picture = np.array(Image.open(tmp_path / "a-uncertainty.png"))
    np.testing.assert_array_equal(picture, pictures.shades(maps["entropy"], np.log(6)))
    with (tmp_path / "uncertainty.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["uncertainty_percent"]) for row in rows]
    assert {row["image"] for row in rows} == {str(images / f"{name}.png") for name in "ab"}
    assert values == sorted(values, reverse=True) and rows[0]["variance"] == ""
    entropies = {str(images / f"{name}.png"): read(tmp_path, name)["entropy"] for name in "ab"}
    for row in rows:
        entropy = entropies[row["image"]]
        assert float(row["entropy"]) == pytest.approx(entropy.mean(), rel=1e-4)
        assert float(row["uncertainty_percent"]) == pytest.approx(100 * entropy.mean() / np.log(6), rel=1e-3)
        assert float(row["unsure_pixels_percent"]) == pytest.approx(100 * (entropy > np.log(6) / 2).mean(), abs=1e-3)
    assert f"table:         {tmp_path / 'uncertainty.csv'}" in capsys.readouterr().out
    assert predict(workdirs["one"], images, tmp_path, "--uncertainty", "entropy") == 0  # its own files are replaced


def test_draws_of_dropout_are_those_of_the_function(workdirs, images, tmp_path):
    assert predict(workdirs["dropout"], images / "a.png", tmp_path, "--uncertainty", "dropout:2") == 0
    expected = combine(members(load_run(workdirs["dropout"]), images / "a.png", 2))
    found = read(tmp_path, "a")
    assert set(found) == set(SCORES)
    for name in SCORES:
        np.testing.assert_allclose(found[name], getattr(expected, name), atol=1e-6)
    assert found["mutual_information"].max() > 0.001


def test_runs_and_views_are_members(workdirs, images, tmp_path):
    both = [workdirs["one"], workdirs["two"]]
    assert predict(both, images / "a.png", tmp_path, "--uncertainty", "members") == 0
    for workdir in both:
        assert predict(workdir, images / "a.png", tmp_path / workdir.name, "--probabilities") == 0
    shares = [np.load(tmp_path / workdir.name / "a.npz")["probabilities"] for workdir in both]
    expected = combine(shares)
    for name, values in read(tmp_path, "a").items():
        np.testing.assert_allclose(values, getattr(expected, name), atol=1e-5)
    views = ["--average", "flips", "--uncertainty", "members"]
    assert predict(both[0], images / "a.png", tmp_path / "views", *views) == 0
    assert read(tmp_path / "views", "a")["variance"].max() > 1e-6


def test_draws_are_divided_by_the_temperature_where_it_is_asked_for(workdirs, images, tmp_path):
    run = load_run(workdirs["dropout"])
    file = run.workdir / "temperature.json"
    file.write_text(json.dumps({"temperature": 50.0, "step": run.step}))
    words = ["--uncertainty", "dropout:2", "--temperature"]
    assert predict(workdirs["dropout"], images / "a.png", tmp_path, *words) == 0
    file.unlink()
    assert read(tmp_path, "a")["entropy"].min() > 0.9 * np.log(6)  # hardly anything is left of the logits


@pytest.mark.parametrize("name", ["uncertainty.csv", "a-uncertainty.npz", "a-uncertainty.png"])
def test_a_file_of_another_kind_is_not_replaced(workdirs, images, tmp_path, name, capsys):
    (tmp_path / name).write_bytes(b"{}")
    assert predict(workdirs["one"], images, tmp_path, "--uncertainty", "entropy") == 1
    assert f"{name} would replace a file that prediction did not write" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"{}" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("runs", "words", "message"),
    [
        (["one"], ["members"], "--uncertainty members needs several runs .* or several views"),
        (["one", "two"], ["dropout"], "draws the dropout of one run, got 2 runs"),
        (["one"], ["dropout"], "has no dropout or stochastic depth"),
    ],
)
def test_what_has_no_members_is_a_sentence(workdirs, images, tmp_path, runs, words, message, capsys):
    assert predict([workdirs[run] for run in runs], images, tmp_path, "--uncertainty", *words) == 1
    assert re.search(message, capsys.readouterr().err) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["dropout:0", "dropout:x", "entropy:3", "spread"])
def test_other_values_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", "x", "i.png", "--uncertainty", text])
    assert f"dropout:N with N of at least 1, got {text}" in capsys.readouterr().err


def test_it_lists_all_images_of_a_call(capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", "x", "i.png", "--uncertainty", "entropy", "--skip-existing"])
    assert "cannot be given with --skip-existing" in capsys.readouterr().err

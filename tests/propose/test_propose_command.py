"""`jaxseg propose`: orders, files, second calls, wrong use, and training with what was kept."""

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image

from jaxseg.config import set_key
from jaxseg.data.folds import fold_of
from jaxseg.data.images import read_image
from jaxseg.data.labelled import choose_labelled, labelled_indices
from jaxseg.data.proposals import COLUMNS, DECISIONS, MADE_BY, PAGE, TABLE, digest_of, read_kept, require_apart
from jaxseg.data.sources import make_source, training_source
from jaxseg.data.survey import survey
from jaxseg.errors import ConfigError, DataError
from jaxseg.inference import load_run
from jaxseg.inference.predictor import make_predictor
from jaxseg.pictures.marks import software
from jaxseg.propose import ORDERS, criteria, rank
from jaxseg.propose.__main__ import labelled_images, main
from jaxseg.propose.proposing import Embedder
from jaxseg.run.lists import record_proposals


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs on a folder of three classes, one of them with dropout, and four images without masks."""
    root = tmp_path_factory.mktemp("propose")
    data = make_folder(root / "data", [(16, 16), (16, 16)], split="train")
    make_folder(data, [(16, 16)], split="val")
    make_folder(root / "more", [(16, 16)] * 4, split="new")
    for step, (name, dropout) in enumerate({"a": 0.0, "b": 0.5}.items(), 10):
        config = tiny_config(data__source="folder", data__dir=str(data))
        set_key(config, "model.args", {**config.model.args, "dropout": dropout})
        make_run(root / name, config, {step: 0.5})
    return root


@pytest.fixture(scope="module")
def images(place):
    return place / "more" / "new" / "images"


@pytest.fixture
def proposed(place, images, tmp_path):
    assert call(place, tmp_path / "out", images, "--order", "entropy") == 0
    return tmp_path / "out"


def call(place, out, *words, runs="a"):
    return main(["--workdir", *(str(place / run) for run in runs), "--out", str(out), *map(str, words)])


def rows_of(out):
    with (out / TABLE).open(newline="") as lines:
        return list(csv.DictReader(lines))


def on_page(out):
    """What the page has of each proposal."""
    text = (out / PAGE).read_text().partition('type="application/json">')[2].partition("</script>")[0]
    return json.loads(text)["proposals"]


CLASSES = ("class 0", "class 1", "class 2")


def decide(out, classes=CLASSES, **decisions):
    """Writes decisions as the page does."""
    found = {
        name.lstrip("_"): {"decision": word, "note": "", "mask": digest_of(out / "masks" / f"{name.lstrip('_')}.png")}
        for name, word in decisions.items()
    }
    (out / DECISIONS).write_text(json.dumps({"made_by": MADE_BY, "classes": classes, "decisions": found}))


def config_of(place, out, **values):
    config = tiny_config(data__source="folder", data__dir=str(place / "data"), data__proposals=str(out))
    for key, value in values.items():
        set_key(config, key.replace("__", "."), value)
    return config


def test_the_files_are_those_of_the_prediction_in_the_order_of_entropy(place, images, proposed):
    run = load_run(place / "a")
    predictor = make_predictor([run], tiles="auto")
    rows = rows_of(proposed)
    assert tuple(rows[0]) == COLUMNS and [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        assert row["image"] == str((images / f"{row['name']}.png").resolve())
        found = predictor(read_image(row["image"]), True)
        assert criteria.entropy(found.probabilities) == pytest.approx(float(row["score"]), rel=1e-5)
        with Image.open(proposed / row["mask"]) as mask, Image.open(proposed / row["confidence_map"]) as sure:
            assert mask.mode == "P" and sure.mode == "L" and np.array_equal(mask, found.classes)
            largest = found.probabilities.max(-1)
            assert np.array_equal(sure, np.round(255 * largest)) and software(proposed / row["mask"]) == MADE_BY
            assert float(row["confidence"]) == pytest.approx(largest.mean(), rel=1e-5)
    assert (proposed / PAGE).read_text().count("data:image/png;base64") == 12  # an image of 16 pixels is exact


def test_every_order_ranks_all_images(place, images):
    runs = {name: load_run(place / name) for name in ("a", "b")}
    paths = sorted(images.iterdir())
    for order in ORDERS:
        several = order == "mutual_information"
        chosen = list(runs.values()) if several else [runs["a"]]
        found = rank(paths, chosen, make_predictor(chosen), order, labelled=[paths[0]])
        assert sorted(path for path, _ in found) == paths
        if order in ("core_set", "badge"):
            assert found[-1] == (paths[0], 0.0)  # nothing is new in an image with labels
    drawn = rank(paths, [runs["b"]], make_predictor([runs["b"]]), "mutual_information", draws=3, number=2)
    assert len(drawn) == 2 and drawn[0].score >= drawn[1].score > 0
    with pytest.raises(ConfigError, match="has no dropout"):
        rank(paths, [runs["a"]], make_predictor([runs["a"]]), "mutual_information")


def test_tiles_have_the_mean_of_their_rows(place, images):
    run, path = load_run(place / "a"), sorted(images.iterdir())[1]
    image = read_image(path)
    cut = Embedder(run, make_predictor([run], tiles=8, overlap=0.0), "badge")
    grid = cut.predictor.grid_for(image)
    tiles = [image[y : y + grid.tile[0], x : x + grid.tile[1]] for y in grid.tops for x in grid.lefts]
    rows = [cut._row(tile, whole=False) for tile in tiles]
    assert len(rows) == 4
    np.testing.assert_allclose(cut(image), np.mean(rows, 0), rtol=1e-5)


def test_a_second_call_keeps_what_was_decided(place, images, proposed):
    first, second = rows_of(proposed)[:2]
    decide(proposed, **{f"_{first['name']}": "keep", f"_{second['name']}": "reject"})
    before = {p: p.read_bytes() for p in (proposed / "masks").iterdir()}
    decisions = (proposed / DECISIONS).read_bytes()
    assert call(place, proposed, images, "--number", "1", "--order", "random", runs="b") == 0
    rows = rows_of(proposed)
    assert len(rows) == 3 and [row["name"] for row in rows[1:]] == [first["name"], second["name"]]
    assert rows[0]["name"] not in (first["name"], second["name"]) and rows[0]["score"] == ""
    for row in rows[1:]:
        assert (proposed / row["mask"]).read_bytes() == before[proposed / row["mask"]]
    assert (proposed / DECISIONS).read_bytes() == decisions
    assert [p.name for p in read_kept(proposed, CLASSES)] == [first["name"]]


def test_a_note_about_a_mask_that_left_the_table_is_no_stranger(place, images, proposed):
    first, second = (row["name"] for row in rows_of(proposed)[:2])
    decide(proposed, **{f"_{first}": "keep", f"_{second}": ""})  # of the second a note alone
    others = [path for path in images.iterdir() if path.stem not in (first, second)]
    assert call(place, proposed, *others, "--order", "random") == 0
    assert second not in [row["name"] for row in rows_of(proposed)]
    assert [p.name for p in read_kept(proposed, CLASSES)] == [first]


@pytest.mark.parametrize("content", [None, b"no image", "a class too many"])
def test_a_mask_that_stays_and_cannot_be_read_is_named(place, images, proposed, capsys, content):
    decide(proposed, _1="keep", _2="reject")
    mask = proposed / "masks" / "1.png"
    mask.unlink()
    if isinstance(content, bytes):
        mask.write_bytes(content)
    elif content:
        Image.new("L", (16, 16), 3).save(mask)
    capsys.readouterr()
    assert call(place, proposed, images, "--order", "random") == 1
    err = capsys.readouterr().err
    assert "The proposal '1', which was decided about, is not on the page: " in err and str(mask) in err
    assert sorted(row["name"] for row in rows_of(proposed)[2:]) == ["1", "2"]
    names = [p["name"] for p in on_page(proposed)]
    assert len(names) == 3 and "1" not in names


def test_names_that_the_order_gives_replace_no_file_of_others(place, images, tmp_path, capsys):
    """Of a, a and a-2, in this order, none becomes a-3; if a-2 is first, the second a does."""
    files = [tmp_path / folder / f"{stem}.png" for folder, stem in (("x", "a"), ("y", "a"), ("z", "a-2"))]
    for file in files:
        file.parent.mkdir()
        shutil.copy(images / "1.png", file)
    seed = next(s for s in range(99) if np.random.default_rng(s).permutation(3)[0] == 2)
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    Image.new("L", (16, 16)).save(out / "masks" / "a-3.png")
    assert call(place, out, *files, "--order", "random", "--seed", seed) == 1
    assert "masks/a-3.png would replace a file that jaxseg propose did not write" in capsys.readouterr().err
    assert sorted(p.name for p in out.rglob("*")) == ["a-3.png", "masks"]


def test_a_table_with_an_endless_line_is_one_sentence(proposed):
    with (proposed / TABLE).open("a") as lines:
        lines.write("x" * 200_000 + "\n")
    with pytest.raises(DataError, match=r"is not a table that jaxseg propose wrote: field larger than"):
        read_kept(proposed, CLASSES)


def test_it_replaces_no_file_of_others(place, images, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "masks" / "2.png")
    assert call(place, tmp_path, images) == 1
    assert "masks/2.png would replace a file that jaxseg propose did not write" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["2.png", "masks"]
    for name, content in ((PAGE, "<html>"), (TABLE, "a,b\n")):
        other = tmp_path / f"of-{name}"
        other.mkdir()
        (other / name).write_text(content)
        assert call(place, other, images) == 1
        assert f"{name} would replace" in capsys.readouterr().err and (other / name).read_text() == content


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((), "There are no IMAGES"),
        (("IMAGES", "--order", "entropy", "--labelled", "train"), "--labelled is of use to --order core_set and badge"),
        (("nowhere.png",), "There is no file"),
    ],
)
def test_wrong_use_is_one_sentence(place, images, tmp_path, capsys, words, answer):
    assert call(place, tmp_path / "out", *(images if word == "IMAGES" else word for word in words)) == 1
    assert answer in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_read_is_left_out(place, images, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert call(place, tmp_path / "out", tmp_path / "broken.png", images / "1.png") == 1
    assert "broken.png" in capsys.readouterr().err
    assert [row["name"] for row in rows_of(tmp_path / "out")] == ["1"]


def test_core_set_knows_the_training_images(place, images, tmp_path):
    assert call(place, tmp_path, images, "--order", "core_set", "--labelled", "train", "--number", "2") == 0
    assert all(float(row["score"]) > 0 for row in rows_of(tmp_path))  # the first has a nearest one too


def test_core_set_finds_training_images_that_have_moved(place, images, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "train" / "images" / "0.png").rename(tmp_path / "0.png")
    wanted = ["--order", "core_set", "--labelled", "train", "--config.data.dir", tmp_path / "elsewhere"]
    assert call(place, tmp_path / "out", *wanted, images) == 1
    assert str(tmp_path / "elsewhere") in capsys.readouterr().err  # where a mask has no image now
    (tmp_path / "0.png").rename(tmp_path / "elsewhere" / "train" / "images" / "0.png")
    assert call(place, tmp_path / "out", *wanted, images) == 0
    assert len(rows_of(tmp_path / "out")) == 4
    assert call(place, tmp_path / "out", images, "--config.model.name=unet") == 1
    assert "model.name" in capsys.readouterr().err


def test_training_images_without_labels_are_not_labelled(place, images):
    chosen = choose_labelled(make_source(config_of(place, ""), "train"), 0.5, 0)
    config = config_of(place, "", data__labelled=0.5, data__unlabelled=str(images), semi__method="fixmatch")
    first, *others = labelled_images(config, ["train", str(images / "2.png")], False, print)
    assert len(chosen) == 1 and others == [images / "2.png"]
    assert np.array_equal(first, read_image(place / f"data/train/images/{chosen[0]}.png"))


def test_training_reads_what_was_kept(place, proposed):
    decide(proposed, _1="keep", _2="reject", _3="keep")
    source = training_source(config_of(place, proposed))  # data.proposals
    assert [source.name(i) for i in range(4)] == ["0", "1", "1", "3"] and len(source) == 4
    for index, name in ((2, "1"), (3, "3")):
        example = source[index]
        assert np.array_equal(example["image"], read_image(place / "more/new/images" / f"{name}.png"))
        assert np.array_equal(example["label"], Image.open(proposed / "masks" / f"{name}.png"))
        assert source.label_size(index) == (16, 16)
    assert labelled_indices(source) == (0, 1, 2, 3)


def test_a_kept_image_leaves_those_without_labels(place, images, proposed):
    decide(proposed, _1="keep", _2="reject")
    config = config_of(place, proposed, data__unlabelled=str(images), semi__method="fixmatch")
    source = training_source(config)
    assert len(source) == 6 and labelled_indices(source) == (0, 1, 5)
    assert (source[5]["label"] != 255).any() and all((source[i]["label"] == 255).all() for i in (2, 3, 4))


def test_what_does_not_fit_is_refused(place, proposed, tmp_path):
    def read():
        return training_source(config_of(place, proposed))

    with pytest.raises(DataError, match=r"has no decisions\.json: open .*review\.html in a browser"):
        read()
    decide(proposed, _1="reject")
    with pytest.raises(DataError, match="keeps none of the 4 proposals"):
        read()
    decide(proposed, classes=("sky", "sea", "land"), _1="keep")
    with pytest.raises(DataError, match="the masks have the classes sky, sea, land"):
        read()
    decide(proposed, _1="keep")
    content = json.loads((proposed / DECISIONS).read_text())
    content["decisions"]["other"] = content["decisions"]["1"]
    (proposed / DECISIONS).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"decides about 'other'.* belongs to another folder"):
        read()
    (proposed / DECISIONS).write_text("{}")
    with pytest.raises(DataError, match="is not one that the review page"):
        read()
    decide(proposed, _1="keep")
    Image.new("P", (16, 16), 1).save(proposed / "masks" / "1.png")
    with pytest.raises(DataError, match="is not the one that was kept; it changed"):
        read()
    with pytest.raises(DataError, match="holds no proposals"):
        read_kept(tmp_path, ("0",))


def test_an_image_of_the_validation_split_does_not_join(place, tmp_path):
    assert call(place, tmp_path, place / "data" / "val" / "images" / "0.png") == 0
    decide(tmp_path, _0="keep")
    config = config_of(place, tmp_path)
    with pytest.raises(DataError, match="is in the validation split"):
        require_apart(training_source(config), make_source(config, "val"))


def test_an_image_with_labels_does_not_join_and_one_whose_labels_are_hidden_does(place, tmp_path):
    out, names = tmp_path / "out", tmp_path / "names.txt"
    assert call(place, out, place / "data" / "train" / "images" / "0.png", "--order", "random") == 0
    decide(out, _0="keep")
    folds = next(n for n in range(2, 99) if fold_of("0", n) != fold_of("1", n))
    for fold, labelled in (("", ""), (f"{fold_of('0', folds)}/{folds}", ""), (f"{fold_of('0', folds)}/{folds}", 1.0)):
        config = config_of(place, out, data__fold=fold, data__labelled=labelled)
        where = ", in the fold that data.fold leaves out; reject" if fold else "; reject"
        with pytest.raises(DataError, match=f"is in the training split with labels already{where}"):
            training_source(config)
        assert f"with labels already{where}" in survey(config, "train").problems[-1]
    names.write_text("1\n")
    for method, labelled in (("", (0, 1)), ("fixmatch", (0, 1))):
        config = config_of(place, out, data__labelled=str(names), semi__method=method)
        source = training_source(config)
        assert labelled_indices(source) == labelled and [source.name(i) for i in labelled] == ["1", "0"]
        report = survey(config, "train")
        assert (report.keeping, report.joining, report.problems) == (1, 1, [])


def test_a_run_is_not_resumed_with_other_proposals(tmp_path):
    record_proposals(tmp_path, ["aa 1", "bb 2"])
    assert (tmp_path / "proposals.txt").read_text() == "aa 1\nbb 2\n"
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    record_proposals(tmp_path, ["aa 1", "bb 2"])
    with pytest.raises(ConfigError, match="'2' is in one of the two alone or has another mask"):
        record_proposals(tmp_path, ["aa 1", "cc 2"])


def test_the_check_of_the_data_says_how_many_join(place, proposed):
    decide(proposed, _1="keep", _2="keep", _3="reject")
    report = survey(config_of(place, proposed), "train")
    assert report.joining == 2 and not report.problems
    (proposed / DECISIONS).unlink()
    assert any("has no decisions.json" in problem for problem in survey(config_of(place, proposed), "train").problems)

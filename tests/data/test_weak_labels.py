"""Marks as labels, marks made of full masks, the splits that have them, and the command that writes them."""

import json
import os
import pickle

import numpy as np
import pytest
from helpers.tiny_training import ROOT, arguments
from PIL import Image
from scipy import ndimage

from jaxseg.build import build_parts
from jaxseg.config import default_config, update, validate
from jaxseg.data import check, make_source, weaken
from jaxseg.data.shapes import CLASSES, ShapesSource
from jaxseg.data.sources import training_source
from jaxseg.data.weak.drawing import Drawing, draw
from jaxseg.data.weak.made import marks_of
from jaxseg.data.weak.marks import Mark, box, no_points
from jaxseg.data.weak.reading import read_annotations
from jaxseg.data.weak.weakened import WeakenedSource
from jaxseg.errors import ConfigError, DataError
from jaxseg.losses import possible_label
from jaxseg.run.lists import files_of, record_files
from jaxseg.run.report import read_log
from jaxseg.train import main
from jaxseg.types import IGNORE

INDICES = {"background": 0, "cell": 1, "cat": 2}
NAMES = tuple(INDICES)


def mark(kind, name, *places):
    return Mark(kind, name, np.array(places, np.float64))


def shown(label):
    letters = {IGNORE: ".", possible_label(1): "a", possible_label(2): "b"}
    return ["".join(letters.get(value, str(value)) for value in row) for row in label.tolist()]


def test_points_and_lines_label_what_they_touch_and_nothing_else():
    marks = [mark("line", "cell", (0.5, 1.5), (4.5, 1.5), (4.5, 3.5)), mark("point", "cat", (2.9, 1.1))]
    assert shown(draw(marks, (4, 6), INDICES, Drawing(radius=0))) == ["......", "11211.", "....1.", "....1."]
    assert shown(draw(marks[1:], (4, 6), INDICES)) == [".222..", ".222..", ".222..", "......"]
    disc = draw([mark("point", "cell", (4, 4))], (9, 9), INDICES, Drawing(radius=2))
    assert (disc == 1).sum() == 21 and disc[4, 2] == 1 and disc[2, 2] == IGNORE


def test_a_point_is_still_seen_where_the_image_is_made_smaller():
    label = draw([mark("point", "cell", (50, 50))], (128, 128), INDICES, Drawing(radius=1, target=(32, 32)))
    assert (label[2::4, 2::4] == 1).sum() >= 9
    same = Drawing(radius=1, target=(256, 256))
    assert (draw([mark("point", "cell", (50, 50))], (128, 128), INDICES, same) == 1).sum() == 9


def test_boxes_fill_with_the_smaller_on_top_and_polygons_by_their_pixel_centres():
    marks = [Mark("box", "cat", box(2, 1, 4, 3)), Mark("box", "cell", box(0.4, 0, 5, 4))]
    expected = ["111110", "112210", "112210", "111110"]
    assert shown(draw(marks, (4, 6), INDICES, Drawing(outside=True))) == expected
    triangle = draw([mark("polygon", "cell", (0, 0), (4, 0), (0, 4))], (5, 5), INDICES)
    assert shown(triangle) == ["111..", "11...", "1....", ".....", "....."]
    tiny = draw([Mark("box", "cell", box(1.1, 1.1, 1.2, 1.2))], (3, 3), INDICES)
    assert shown(tiny) == ["...", ".1.", "..."]


def test_the_rest_of_a_box_is_unknown_or_possible():
    marks = [Mark("box", "cell", box(1, 0, 5, 4))]
    expected = ["0....0", "0.11.0", "0.11.0", "0....0"]
    assert shown(draw(marks, (4, 6), INDICES, Drawing(0.5, outside=True))) == expected
    possible = draw(marks, (4, 6), INDICES, Drawing(0.5, outside=True, possible=True))
    assert shown(possible) == [row.replace(".", "a") for row in expected]
    none = draw(marks, (4, 6), INDICES, Drawing(0.0, outside=True, possible=True))
    assert set(np.unique(none)) == {0, possible_label(1)}


def test_tags_mark_every_unknown_pixel_with_one_of_them_only_where_the_loss_reads_it():
    marks = [*(Mark("tag", name, no_points()) for name in NAMES), mark("point", "cell", (2, 2))]
    label = draw(marks, (9, 9), INDICES, Drawing(possible=True))
    assert set(np.unique(label)) == {1, possible_label(1), possible_label(2)}
    assert set(np.unique(draw(marks, (9, 9), INDICES))) == {1, IGNORE}


@pytest.fixture(scope="module")
def shapes():
    return ShapesSource("train", 12, (48, 48))


@pytest.mark.parametrize("kind", ["points", "scribbles"])
def test_made_points_and_scribbles_are_right_and_few_and_in_every_object(shapes, kind):
    weak = WeakenedSource(shapes, kind)
    for i in range(len(shapes)):
        full, label = shapes[i]["label"], weak[i]["label"]
        known = label != IGNORE
        assert (label == full)[known].all() and 0 < known.mean() < (0.05 if kind == "points" else 0.35)
        for c in np.unique(full):
            parts, count = ndimage.label(full == c, np.ones((3, 3)))
            large = [n for n in range(1, count + 1) if (parts == n).sum() > 12]
            if c or kind == "scribbles":
                assert all(known[parts == n].any() for n in large)
            else:
                assert known[full == 0].any()


def test_made_boxes_are_the_smallest_around_each_object(shapes):
    label = np.zeros((20, 30), np.uint8)
    label[2:7, 3:9] = 1
    label[4, 9] = 1  # touches by a side
    label[12:15, 20:29] = 2
    label[0] = IGNORE
    found = marks_of(label, "boxes", NAMES, np.random.default_rng(0))
    corners = [(m.name, *m.points.min(0), *m.points.max(0)) for m in found]
    assert corners == [("cell", 3, 2, 10, 7), ("cat", 20, 12, 29, 15)]
    assert [m.name for m in marks_of(label, "tags", NAMES, np.random.default_rng(0))] == ["cell", "cat"]
    weak, full = WeakenedSource(shapes, "boxes")[0]["label"], shapes[0]["label"]
    assert (weak[full > 0] > 0).all() and (weak != IGNORE).all()


def test_what_is_made_depends_on_name_and_seed_alone(shapes):
    weak = WeakenedSource(shapes, "scribbles", seed=1)
    again = pickle.loads(pickle.dumps(WeakenedSource(shapes, "scribbles", seed=1)))
    other = WeakenedSource(shapes, "scribbles", seed=2)
    np.testing.assert_array_equal(weak[3]["label"], again[3]["label"])
    assert (weak[3]["label"] != other[3]["label"]).any()
    weak[3]["label"][:] = 7  # what a reader does to an example has no effect on the next
    np.testing.assert_array_equal(weak[3]["label"], again[3]["label"])


def test_the_training_split_alone_has_weaker_labels():
    config = shapes_config(data__weaken="boxes", data__box_core=0.5, data__mark_radius=2.0, data__size=(32, 48))
    weak, val = (make_source(config, split) for split in ("train", "val"))
    assert isinstance(weak, WeakenedSource) and isinstance(val, ShapesSource)
    assert weak.how == Drawing(box_core=0.5, radius=2.0, target=(32, 48), outside=True, possible=False)
    update(config, loss__terms="cross_entropy + size_constraint", data__fit="crop")
    again = make_source(config, "train")
    assert isinstance(again, WeakenedSource)
    assert (again.how.possible, again.how.target, again.kind) == (True, None, "boxes")


def test_ignored_pixels_stay_ignored(shapes):
    class Void:
        info = shapes.info

        def __len__(self):
            return 1

        def __getitem__(self, index):
            label = shapes[0]["label"].copy()
            label[:24] = IGNORE
            return {"image": shapes[0]["image"], "label": label}

        def name(self, index):
            return "void"

    for kind in ("boxes", "scribbles"):
        assert (WeakenedSource(Void(), kind)[0]["label"][:24] == IGNORE).all()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    """Five training images without masks, three for validation with masks, and classes.json."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for i in range(8):
        part = root / ("train" if i < 5 else "val")
        save(part / "images" / f"{i}.png", rng.integers(0, 256, (24, 32, 3), np.uint8))
        if i >= 5:
            save(part / "masks" / f"{i}.png", rng.integers(0, 3, (24, 32)).astype(np.uint8))
    (root / "classes.json").write_text(json.dumps({"classes": list(NAMES)}))
    return root


def config_of(folder, **values):
    config = default_config()
    update(config, data__source="folder", data__dir=str(folder), data__size=(24, 32), **values)
    return config


TABLE = "image,class,x,y,left,top,right,bottom\n0.png,cell,,,2,3,9,10\n1.png,cat,20,12,,,,\n2.png,,,,,,,\n"
TAGS = "image,class\n0.png,cell\n1.png,cat\n"


def test_a_folder_with_annotations_needs_masks_for_validation_alone(folder):
    (folder / "marks.csv").write_text(TABLE)
    config = config_of(folder, data__annotations="marks.csv")
    validate(config)
    train_, val = (make_source(config, split) for split in ("train", "val"))
    assert [train_.name(i) for i in range(len(train_))] == ["0", "1", "2"] and len(val) == 3
    assert train_.info.classes == NAMES and train_.label_size(0) == (24, 32)
    boxes = np.zeros((24, 32), np.uint8)
    boxes[3:10, 2:9] = 1
    np.testing.assert_array_equal(train_[0]["label"], boxes)
    assert (train_[1]["label"] == 2).sum() == 9 and (train_[2]["label"] == 0).all()
    pickle.loads(pickle.dumps(train_))
    with_crf = config_of(folder, data__annotations="marks.csv", loss__terms="cross_entropy + 0.1 * gated_crf")
    assert len(make_source(with_crf, "train")) == 5  # images without annotations are of use


VIDEO = (
    "<annotations><meta><task>{task}</task></meta><track label='cell'>"
    "<points frame='2' outside='0' points='4,5'/><points frame='4' outside='0' points='4,5'/></track></annotations>"
)
TASK = "<start_frame>0</start_frame><stop_frame>7</stop_frame>"


def test_frames_counted_from_1_are_refused_also_where_the_last_are_in_another_split(folder):
    (folder / "clip.xml").write_text(VIDEO.format(task=TASK))
    config = config_of(folder, data__annotations="clip.xml")
    source = make_source(config, "train")
    assert [(source[i]["label"] == 1).any() for i in range(len(source))] == [False, False, True, False, True]
    for i in reversed(range(8)):
        for path in folder.glob(f"*/*/{i}.png"):
            path.rename(path.with_name(f"{i + 1}.png"))
    for task in (TASK, ""):
        (folder / "clip.xml").write_text(VIDEO.format(task=task))
        with pytest.raises(DataError, match=r"its images .* from 1 to 8, as if each were the frame before"):
            make_source(config, "train")
    for path in folder.glob("train/images/[123].png"):  # the others begin late, and go beyond the last frame
        path.unlink()
    (folder / "clip.xml").write_text(VIDEO.format(task=TASK))
    with pytest.raises(DataError, match=r"from 4 to 8, as if .* 4 before.*put the image of the frame 0 beside them"):
        make_source(config, "train")
    save(folder / "val" / "images" / "0.png", np.zeros((24, 32, 3), np.uint8))
    save(folder / "val" / "masks" / "0.png", np.zeros((24, 32), np.uint8))
    assert len(make_source(config, "train")) == 2


def test_images_and_annotations_that_change_are_noticed(folder, tmp_path):
    (folder / "marks.csv").write_text(TABLE)
    config = config_of(folder, data__annotations="marks.csv", data__labelled=0.7)
    source = training_source(config)
    files = files_of(source)
    names = ["marks.csv", *(f"train/images/{i}.png" for i in range(3))]
    assert files == [f"{(folder / name).stat().st_size} {name}" for name in names]
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    record_files(tmp_path, files, "stop")
    os.utime(folder / "train/images" / f"{source.name(0)}.png", ns=(0, 0))
    with pytest.raises(DataError, match=rf"{source.name(0)}\.png was changed after the data were opened"):
        source[0]
    (folder / "marks.csv").write_text(f"{TABLE}0.png,cat,1,1,,,,\n")
    with pytest.raises(ConfigError, match=r"trained on 4 files, of which 'marks\.csv' has changed since"):
        record_files(tmp_path, files_of(training_source(config)), "stop")


def test_annotations_stand_for_masks_in_a_folder_that_is_divided_by_them(folder):
    for i in range(5):
        save(folder / "all" / "masks" / f"{i}.png", np.resize(np.array([0, 1, 2], np.uint8), (24, 32)))
        (folder / "train" / "images" / f"{i}.png").rename(folder / "all" / "masks" / ".." / f"{i}.png")
        save(folder / "all" / "images" / f"{i}.png", np.zeros((24, 32, 3), np.uint8))
    rows = "".join(f"{i}.png,cell,{i},{i}\n" for i in range(5))
    (folder / "marks.csv").write_text(f"image,class,x,y\n{rows}")
    config = config_of(folder / "all", data__annotations=str(folder / "marks.csv"), data__classes=NAMES)
    train_, val = (make_source(config, split) for split in ("train", "val"))
    assert len(train_) + len(val) == 5 and (train_[0]["label"] == 1).sum() in (4, 6, 9)
    (folder / "all" / "masks" / "0.png").unlink()
    with pytest.raises(DataError, match=r"has no mask.*only images of the validation split need masks"):
        make_source(config, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE.replace("0.png", "x.png").replace("1.png", "y.png").replace("2.png", "z.png"), "none of which is among"),
        (TABLE.replace("cat", "dog"), "of the class 'dog', which is none of the 3 classes"),
        (TABLE.replace("9,10", "90,10"), "which lies outside the image of 24 x 32 pixels"),
        (TABLE.replace("1.png", "a/0.png"), "both stand for"),
        (TAGS, "holds tags of images alone, which only the loss term size_constraint learns from"),
        ("", "is empty"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused_at_the_start(folder, text, words):
    (folder / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        make_source(config_of(folder, data__annotations="marks.csv"), "train")


def test_keys_that_do_not_fit_are_refused(folder):
    with pytest.raises(ConfigError, match=r"data.annotations needs data.source=folder, got data.source=shapes"):
        validate(shapes_config(data__annotations="a.csv"))
    with pytest.raises(ConfigError, match=r"data.weaken=points is made from full labels, which data.annotations"):
        validate(config_of(folder, data__annotations="a.csv", data__weaken="points"))
    with pytest.raises(ConfigError, match="only the loss term size_constraint learns from"):
        make_source(shapes_config(data__weaken="tags"), "train")
    adversarial = shapes_config(loss__terms="cross_entropy + size_constraint", adversarial__weight=0.1)
    with pytest.raises(ConfigError, match="leave one of the two out"):
        build_parts(adversarial, 6)


def shapes_config(**values):
    config = default_config()
    update(config, **values)
    return config


def test_the_check_of_a_folder_says_how_much_is_annotated(folder, tmp_path, capsys):
    experiment = tmp_path / "e.py"
    experiment.write_text(
        "from jaxseg.config import default_config, update\n\ndef get_config(arg=None):\n"
        "    config = default_config()\n    update(config, data__source='folder', data__size=(24, 32))\n"
        "    return config\n"
    )
    (folder / "marks.csv").write_text(TABLE)
    arguments = ["--config", str(experiment), f"--config.data.dir={folder}", "--images", "0"]
    arguments.append("--config.data.annotations=marks.csv")
    assert check.main(arguments) == 0
    out = capsys.readouterr().out
    assert "marks.csv (CSV): 1 point in 1 image, 1 box in 1 image" in out
    assert "of the pixels have a label" in out
    assert "2 images of the training split (3, 4) are not in" in out
    (folder / "marks.csv").write_text(TABLE.replace("9,10", "90,10"))
    assert check.main(arguments) == 1 and "lies outside the image" in capsys.readouterr().err
    (folder / "marks.csv").write_text(TAGS)
    tags = [*arguments, "--config.loss.terms=cross_entropy + size_constraint"]
    assert check.main(tags) == 0 and "2 tags in 2 images" in capsys.readouterr().out


def experiment_of(tmp_path):
    path = tmp_path / "e.py"
    path.write_text(
        "from jaxseg.config import default_config, update\n\ndef get_config(arg=None):\n"
        "    config = default_config()\n    update(config, data__size=(32, 32), data__shapes_train=3)\n"
        "    return config\n"
    )
    return str(path)


@pytest.mark.parametrize("kind", ["points", "scribbles", "boxes", "tags"])
def test_the_command_writes_masks_and_marks_that_give_the_same_labels(tmp_path, capsys, kind):
    out = tmp_path / "weak"
    assert weaken.main(["--config", experiment_of(tmp_path), "--kind", kind, "--out", str(out), "--images"]) == 0
    said = capsys.readouterr().out
    assert "3 masks, in which" in said and f"written: {out}" in said
    source = WeakenedSource(ShapesSource("train", 3, (32, 32)), kind)
    masks = sorted((out / "masks").glob("*.png"))
    assert [path.stem for path in masks] == [source.name(i) for i in range(3)]
    for i, path in enumerate(masks):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), source[i]["label"])
        np.testing.assert_array_equal(np.asarray(Image.open(out / "images" / path.name)), source[i]["image"])
    assert [entry["name"] for entry in json.loads((out / "classes.json").read_text())["classes"]] == list(CLASSES)
    [file] = [path for path in out.iterdir() if path.is_file() and path.name != "classes.json"]
    indices = {name: index for index, name in enumerate(CLASSES)}
    for i, image in enumerate(read_annotations(file).images):
        drawn = draw(image.marks, (32, 32), indices, source.how)
        known = source[i]["label"] != IGNORE
        np.testing.assert_array_equal(drawn[known], source[i]["label"][known])


def test_the_command_refines_boxes_and_refuses_what_it_cannot_do(tmp_path, capsys, folder):
    config = ["--config", experiment_of(tmp_path)]
    assert weaken.main([*config, "--kind", "boxes", "--out", str(tmp_path / "a"), "--crf", "deeplab-v1"]) == 0
    refined = float(capsys.readouterr().out.partition("mIoU ")[2].partition("%")[0])
    assert weaken.main([*config, "--kind", "boxes", "--out", str(tmp_path / "b")]) == 0
    assert refined > float(capsys.readouterr().out.partition("mIoU ")[2].partition("%")[0])
    bands = ["--kind", "boxes", "--out", str(tmp_path / "c"), "--images", "--config.data.source=folder"]
    bands += [f"--config.data.dir={folder}", "--config.data.mean=0.5", "--config.data.std=0.5"]
    for given, words in (
        (["--kind", "boxes", "--out", str(tmp_path / "a")], "exists already"),
        (["--out", str(tmp_path / "c")], "Give either --kind"),
        (["--kind", "boxes", "--out", str(tmp_path / "c"), "--crf", "deeplap"], "no preset 'deeplap'"),
        ([*bands, "--config.data.range=(0,9)"], "--images writes pictures as PNG, and images of data.range are none"),
        (
            [*bands, "--config.data.channels=5"],
            "pictures as PNG, and images of data.channels=5 are none",
        ),
        ([*bands, "--config.data.multilabel=bits"], "Marks are made of the one class of each pixel"),
    ):
        assert weaken.main([*config, *given]) == 1
        said = capsys.readouterr().err
        assert words in said and said.startswith("error: ") and not (tmp_path / "c").exists()
    (folder / "marks.csv").write_text(TABLE)
    of_folder = ["--config.data.source=folder", f"--config.data.dir={folder}", "--config.data.annotations=marks.csv"]
    assert weaken.main([*config, *of_folder, "--out", str(tmp_path / "d")]) == 0
    assert sorted(path.name for path in (tmp_path / "d" / "masks").iterdir()) == ["0.png", "1.png", "2.png"]
    (folder / "marks.csv").write_text(TABLE.replace("9,10", "90,10"))
    assert weaken.main([*config, *of_folder, "--out", str(tmp_path / "e")]) == 1
    assert not any(path.name.startswith((".e", "e")) and path.is_dir() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("boxes", "cross_entropy + size_constraint + 0.1 * entropy + 0.01 * gated_crf"),
        pytest.param("scribbles", "cross_entropy + 0.1 * entropy", marks=pytest.mark.slow),
        pytest.param("points", "cross_entropy + 0.01 * gated_crf", marks=pytest.mark.slow),
        pytest.param("tags", "size_constraint", marks=pytest.mark.slow),
    ],
)
def test_a_training_of_a_few_steps(tmp_path, kind, text, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = {"steps": 2, "data__weaken": kind, "data__box_core": 0.5, "loss__terms": text, "model__name": "cnn"}
    assert main(arguments(tmp_path / "run", **values, model__args="{'widths': (4,)}", eval__every=2)) == 0
    log = read_log(tmp_path / "run" / "log.jsonl")
    terms = {name: value for name, value in log[0].items() if name.startswith("loss/")}
    assert len(terms) == 1 + text.count("+") and all(value > 0 for value in terms.values())
    assert log[-1]["split"] == "val" and log[-1]["step"] == 2

"""Pictures: exact colours, whole files, and drawings for few and many classes, all sizes and channel counts."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers.marks import some_slow
from PIL import Image

from jaxseg import pictures
from jaxseg.pictures import learning_curves, sheets
from jaxseg.types import IGNORE

pytestmark = pytest.mark.usefixtures("drawn")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
CLASSES = ("background", "disc", "square")


def example(h=12, w=9, c=3, k=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, (h, w))
    prediction = np.where(rng.random((h, w)) < 0.8, truth, rng.integers(0, k, (h, w)))
    truth[0] = IGNORE
    return rng.random((h, w, c), np.float32), truth, prediction


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_importing_loads_no_plotting():
    code = "import sys, jaxseg.pictures; assert not {'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_colorize(dtype):
    got = pictures.colorize(np.array([[0, 1], [2, IGNORE]], dtype), COLORS)
    np.testing.assert_array_equal(got, [[COLORS[0], COLORS[1]], [COLORS[2], pictures.IGNORE_COLOR]])
    assert got.dtype == np.uint8


@pytest.mark.parametrize("value", [3, 254, -1, 300])
def test_colorize_names_a_class_without_colour(value):
    with pytest.raises(ValueError, match=f"class {value}, but there are colours for 3 classes"):
        pictures.colorize(np.array([[0, value]]), COLORS)


@pytest.mark.parametrize("k", [1, 2, 11, 19, 150])
def test_default_colors_differ(k):
    colors = pictures.default_colors(k)
    assert len(set(colors)) == k and colors[0] == (0, 0, 0)
    array = np.array(colors, float)
    distance = np.abs(array[:, None] - array[None]).sum(axis=-1) + 1e3 * np.eye(k)
    assert distance.min() >= 36
    assert np.abs(array - pictures.IGNORE_COLOR).sum(axis=-1).min() > 80
    assert colors == pictures.default_colors(150)[:k]


def test_to_rgb_of_every_kind():
    byte = np.array([[[0, 100, 255]]], np.uint8)
    np.testing.assert_array_equal(pictures.to_rgb(byte), byte)
    np.testing.assert_array_equal(pictures.to_rgb(byte.astype(np.uint16) * 257), byte)
    np.testing.assert_array_equal(pictures.to_rgb(byte.astype(np.float32) / 255), byte)
    np.testing.assert_array_equal(pictures.to_rgb(byte[:, :, 1:2]), [[[100, 100, 100]]])
    np.testing.assert_array_equal(pictures.to_rgb(byte[:, :, 1]), [[[100, 100, 100]]])
    np.testing.assert_array_equal(pictures.to_rgb(np.concatenate([byte, byte[:, :, :1]], axis=2)), byte)


def test_overlay_leaves_what_a_class_in_nearly_black_covers():
    image = np.array([[[200, 100, 0], [0, 50, 250]]], np.uint8)
    dark = [(32, 32, 32), (0, 40, 41)]
    got = pictures.overlay(image, np.array([[0, 1]]), dark, alpha=0.5)
    grey = 0.587 * 50 + 0.114 * 250
    np.testing.assert_array_equal(got, [[[200, 100, 0], np.round([grey / 2, grey / 2 + 20, grey / 2 + 20.5])]])


def test_overlay_blends_and_leaves_ignored_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    got = pictures.overlay(image, np.array([[0, 1, IGNORE]]), COLORS, alpha=0.5)
    np.testing.assert_array_equal(got, [[[100, 100, 100], [178, 50, 50], [100, 100, 100]]])  # black is clear
    np.testing.assert_array_equal(pictures.overlay(image, np.array([[0, 1, 2]]), COLORS, 0.0), image)
    whole = pictures.overlay(image, np.array([[1, 2, 2]]), COLORS, 1.0)[0]
    np.testing.assert_array_equal(whole, [COLORS[1], COLORS[2], COLORS[2]])
    # Red under a class's colour becomes grey, 0.299 * 255 = 76; what is ignored keeps its colour.
    red = np.full((1, 2, 3), (255, 0, 0), np.uint8)
    np.testing.assert_array_equal(
        pictures.overlay(red, np.array([[2, IGNORE]]), COLORS), [[[38, 38, 166], [255, 0, 0]]]
    )
    with pytest.raises(ValueError, match=r"\(1, 3\), but the label is \(2, 2\)"):
        pictures.overlay(image, np.zeros((2, 2), int), COLORS)


def test_outlines_are_the_border_pixels_of_each_region():
    labels = np.zeros((5, 6), int)
    labels[1:4, 1:4], labels[1:4, 4] = 1, 2
    drawn = pictures.outlines(np.zeros((5, 6, 3), np.uint8), labels, colors=((9, 9, 9), (7, 7, 7)))
    expected = [[0] * 6, [0, 9, 9, 9, 7, 0], [0, 9, 0, 9, 7, 0], [0, 9, 9, 9, 7, 0], [0] * 6]
    np.testing.assert_array_equal(drawn[..., 0], expected)
    by_class = pictures.outlines(np.zeros((5, 6, 3), np.uint8), labels, colors=((9, 9, 9), (7, 7, 7)), of=[1, 1])
    assert set(np.unique(by_class)) == {0, 7}
    with pytest.raises(ValueError, match=r"The image is \(2, 2\), but the regions are \(5, 6\)"):
        pictures.outlines(np.zeros((2, 2, 3), np.uint8), labels)


def test_shades_go_from_black_to_light_yellow():
    drawn = pictures.shades(np.array([[-1.0, 0.0, 1.0, 2.0, 9.0, np.nan]]), largest=2.0)[0].astype(int)
    assert drawn[0].tolist() == drawn[1].tolist() == [0, 0, 0] and drawn[2].tolist() == [190, 48, 78]
    assert drawn[3].tolist() == drawn[4].tolist() == [252, 250, 160] and drawn[5].tolist() == [128] * 3
    luma = pictures.shades(np.linspace(0, 1, 50)[None], 1.0)[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > 0).all()
    with pytest.raises(ValueError, match="above 0, got 0"):
        pictures.shades(np.zeros((1, 1)), 0)


def test_error_map_is_black_where_wrong_and_grey_where_ignored():
    got = pictures.error_map(np.array([[0, 1, IGNORE]]), np.array([[0, 2, 1]]))
    np.testing.assert_array_equal(got, [[pictures.RIGHT_COLOR, pictures.WRONG_COLOR, pictures.IGNORE_COLOR]])
    assert got.dtype == np.uint8
    assert all(len(set(color)) == 1 for color in got[0].tolist()), "a hue could be that of a class"


def test_sets_are_drawn_and_judged_by_the_classes_that_are_known(tmp_path, monkeypatch):
    """Of two classes, b is unknown in all pixels but two: one of b alone, and one of which nothing is known."""
    truth = np.array([[0b1000, 0b1001, 0b1001, 0b0010, 255]], np.uint8)
    prediction = np.array([[0b10, 0b11, 0b00, 0b01, 0b00]], np.uint8)
    a, b = colors = ((200, 0, 0), (0, 0, 200))
    want = [(0, 0, 0), a, a, b, pictures.IGNORE_COLOR]
    np.testing.assert_array_equal(pictures.colorize(truth, colors, True), [want])
    right, wrong = pictures.RIGHT_COLOR, pictures.WRONG_COLOR
    errors = [right, right, wrong, wrong, pictures.IGNORE_COLOR]
    np.testing.assert_array_equal(pictures.error_map(truth, prediction, 2), [errors])
    drawn = []
    monkeypatch.setattr(pictures.sheets, "_sheet", lambda *args: drawn.append(args))
    image = np.zeros((1, 5, 3), np.uint8)
    for known in (5, 4):  # with the pixel of which nothing is known, and without
        cut = [[each[:, :known]] for each in (image, truth, prediction)]
        pictures.prediction_sheet(*cut, colors, ["a", "b"], tmp_path / "p.png", multilabel=True)
    for rows, _, captions, legend, *_ in drawn:
        np.testing.assert_array_equal(rows[0][1], [want[: rows[0][0].shape[1]]])
        assert captions == [["", "", "", "50.0 % right"]]
        assert [name for name, _ in legend] == ["a", "b", *(["ignored"] if rows[0][0].shape[1] == 5 else [])]


def test_the_error_map_has_a_legend_of_its_own(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(sheets, "save_figure", lambda figure, path: figures.append(figure))
    image, truth, prediction = example()
    pictures.prediction_sheet([image], [truth], [prediction], COLORS, CLASSES, tmp_path / "p.png")
    named = [[text.get_text() for text in legend.get_texts()] for legend in figures[0].legends]
    assert named == [[*CLASSES, *(["ignored"] if (truth == IGNORE).any() else [])], ["right", "wrong"]]


def test_save_image_keeps_every_pixel(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    pictures.save_image(picture, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(opened(tmp_path / "new" / "a.png"), picture)
    pictures.save_image(picture[:, :, 0], tmp_path / "b.png")
    np.testing.assert_array_equal(opened(tmp_path / "b.png")[:, :, 0], picture[:, :, 0])


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path):
    path = tmp_path / "a.png"
    pictures.save_image(np.zeros((2, 2, 3), np.uint8), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        pictures.save_image(np.zeros((2, 2, 7), np.float64), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_prediction_sheet_shows_the_colours_of_its_columns(tmp_path):
    truth = np.array([[1, 1], [1, IGNORE]])
    prediction = np.array([[1, 2], [1, 1]])
    image = np.full((2, 2, 3), (10, 200, 30), np.uint8)
    pictures.prediction_sheet([image], [truth], [prediction], COLORS, CLASSES, tmp_path / "p.png")
    drawn = opened(tmp_path / "p.png")
    quarters = np.array_split(drawn[: int(drawn.shape[0] * 0.85)], 4, axis=1)
    for part, expected in zip(
        quarters,
        (
            [(10, 200, 30)],
            [COLORS[1], pictures.IGNORE_COLOR],
            COLORS[1:],
            [pictures.WRONG_COLOR, pictures.IGNORE_COLOR],
        ),
    ):
        for color in expected:
            assert (part == color).all(axis=-1).mean() > 0.1


@pytest.mark.parametrize("c", [1, 3, 4])
@pytest.mark.parametrize("k", [1, 2, 150])
def test_sheets_of_any_size_and_number_of_classes(tmp_path, c, k):
    sizes = [(12, 9), (1, 1), (9, 31)]
    rows = [example(h, w, c, k, seed) for seed, (h, w) in enumerate(sizes)]
    images, truths, predictions = map(list, zip(*rows))
    colors, classes = pictures.default_colors(k), [f"class {i}" for i in range(k)]
    pictures.overlay_sheet(images, truths, colors, classes, tmp_path / "o.png", names=["a.png", "b" * 80, "c"])
    images[0] = images[0][::2, ::3]  # the network's input was smaller than the label
    pictures.prediction_sheet(images, truths, predictions, colors, classes, tmp_path / "p.png")
    for name in ("o.png", "p.png"):
        assert min(opened(tmp_path / name).shape[:2]) > 100
    assert sorted(os.listdir(tmp_path)) == ["o.png", "p.png"]


def test_sheets_name_what_disagrees(tmp_path):
    image, truth, prediction = example()
    with pytest.raises(ValueError, match="got 1, 1 and 0"):
        pictures.prediction_sheet([image], [truth], [], COLORS, CLASSES, tmp_path / "p.png")
    with pytest.raises(ValueError, match="got 0 and 0"):
        pictures.overlay_sheet([], [], COLORS, CLASSES, tmp_path / "p.png")
    with pytest.raises(ValueError, match="the prediction is"):
        pictures.prediction_sheet([image], [truth], [prediction[1:]], COLORS, CLASSES, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_curves_show_the_parts_of_a_loss_that_has_several(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(learning_curves, "save_figure", lambda figure, path: figures.append(figure))
    one = [{"step": i, "split": "train", "loss": 3.0, "loss/dice": 1.0} for i in (1, 2)]
    val = [{"step": 2, "split": "val", "loss": 2.5}]
    for records in (one + val, [r | {"loss/generator": 2.0 * r["step"]} for r in one] + val):
        pictures.curves(records, tmp_path / "curves.png")
    labels = [[line.get_label() for line in figure.axes[0].lines] for figure in figures]
    assert labels == [["train", "val"], ["train", "val", "dice", "generator"]]
    np.testing.assert_array_equal(figures[1].axes[0].lines[3].get_xydata(), [[1, 2], [2, 4]])
    named = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in figures]
    assert named == labels, "below the panels, where no curve is"
    assert all(axis.get_legend() is None for figure in figures for axis in figure.axes)


def test_curves_of_one_log_step_show_every_part_and_the_colour_of_training(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(learning_curves, "save_figure", lambda figure, path: figures.append(figure))
    train = {"step": 2, "split": "train", "loss": 3.0, "loss/dice": 1.0, "loss/focal": 2.0}
    pictures.curves([{"step": 1, "split": "val", "loss": 2.5}, train], tmp_path / "curves.png")
    lines = {line.get_label(): (line.get_marker(), line.get_color()) for line in figures[0].axes[0].lines}
    assert lines == {"train": ("o", "C0"), "val": ("o", "C1"), "dice": ("o", "C2"), "focal": ("o", "C3")}


@pytest.mark.parametrize("largest", [0.31, 0.9, 2.9, 3.1, 40.0])
def test_the_axis_of_the_loss_has_labels(tmp_path, monkeypatch, largest):
    figures = []
    monkeypatch.setattr(learning_curves, "save_figure", lambda figure, path: figures.append(figure))
    pictures.curves(
        [{"step": i, "split": "train", "loss": loss} for i, loss in enumerate((largest, 0.3))], tmp_path / "curves.png"
    )
    axis = figures[0].axes[0]
    low, high = axis.get_ylim()
    assert axis.get_yscale() == ("log" if largest > 3 else "linear")
    assert sum(low <= tick <= high for tick in axis.get_yticks()) >= 3


def test_curves_of_a_run_of_one_record_and_of_none(tmp_path):
    train = [{"step": s, "split": "train", "loss": 1 / s, "mean_iou": 0.5, "learning_rate": 0.1} for s in range(1, 9)]
    val = [
        {"step": 4, "split": "val", "loss": None, "mean_iou": float("nan"), "iou": [0.1, None]},
        {"step": 8, "split": "val", "loss": 0.0, "mean_iou": 0.4},
    ]
    for name, records in {"all": train + val, "one": train[:1], "none": []}.items():
        pictures.curves(iter(records), tmp_path / f"{name}.png")
        assert opened(tmp_path / f"{name}.png").shape[1] > 1000
    blue, orange = (31, 119, 180), (255, 127, 14)
    drawn = opened(tmp_path / "all.png")
    assert all((drawn == color).all(axis=-1).any() for color in (blue, orange))


@pytest.mark.parametrize("k", some_slow((1, 2, 11, 40, 150), (1, 40)))
def test_confusion_picture(tmp_path, k):
    confusion = np.diag(np.full(k, 90)) + np.random.default_rng(0).integers(0, 2, (k, k))
    confusion[k // 2] = 0
    pictures.confusion_picture(confusion, [f"class {i}" for i in range(k)], tmp_path / "c.png")
    height, width = opened(tmp_path / "c.png").shape[:2]
    assert min(height, width) >= max(240, 20 * k)  # room for a name a row


def test_confusion_picture_names_what_disagrees(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 2\), but there are 3 classes"):
        pictures.confusion_picture(np.eye(2), CLASSES, tmp_path / "c.png")


NAMES = ("a$b_$", "\x1b[31m", "caf\u00e9 \udce9")


def test_names_are_drawn_as_they_are(tmp_path, monkeypatch):
    """A name with two dollars is no formula; control characters and broken bytes are written out."""
    import matplotlib.text

    drawn = set()
    draw = matplotlib.text.Text.draw
    monkeypatch.setattr(
        matplotlib.text.Text, "draw", lambda self, *args: (drawn.add(self.get_text()), draw(self, *args))[1]
    )
    image, truth, prediction = example()
    pictures.prediction_sheet([image], [truth], [prediction], COLORS, NAMES, tmp_path / "sheet.png")
    pictures.overlay_sheet([image], [truth], COLORS, NAMES, tmp_path / "overlay.png", ["$5_to_$10.png"])
    pictures.confusion_picture(np.eye(3, dtype=int), NAMES, tmp_path / "confusion.png")
    pictures.curves([{"step": 1, "split": "$va_l$", "loss": 1.0}], tmp_path / "curves.png")
    assert {"a$b_$", r"\x1b[31m", "caf\u00e9 \\udce9", "$5_to_$10.png", "$va_l$"} <= drawn


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_overlay_in_rows_is_that_of_the_whole_and_needs_little_memory(monkeypatch, dtype):
    import tracemalloc

    from jaxseg.pictures import images

    rng = np.random.default_rng(0)
    image = rng.random((40, 30, 3)).astype(np.float32)
    image = image if dtype == np.float32 else (image * np.iinfo(dtype).max).astype(dtype)
    label = rng.choice([0, 1, 2, IGNORE], (40, 30))
    whole = pictures.overlay(image, label, COLORS)
    monkeypatch.setattr(images, "_PIXELS", 100)  # three rows, and one at the end
    np.testing.assert_array_equal(pictures.overlay(image, label, COLORS), whole)
    large, label = np.zeros((1000, 1000, 3), np.uint8), np.ones((1000, 1000), np.uint8)
    tracemalloc.start()
    pictures.overlay(large, label, COLORS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * large.nbytes  # the result itself


def test_an_error_in_drawing_is_noted_and_one_in_writing_raised(tmp_path, caplog):
    with pictures.noting_errors(tmp_path / "a.png"):
        raise ValueError("\nParseException: Expected end.\n  ^")
    assert caplog.messages == [f"the picture {tmp_path / 'a.png'} cannot be drawn: ParseException: Expected end."]
    with pytest.raises(IsADirectoryError), pictures.noting_errors(tmp_path):
        tmp_path.write_text("")


def test_letters_that_the_font_lacks_are_one_note(tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            pictures.confusion_picture(np.eye(2, dtype=int), ("\u4e00", "b"), tmp_path / "c.png")
    assert caplog.text.count("lacks the letters \u4e00, and boxes stand for them") == 1

"""`jaxseg report` and `jaxseg compare`: what is on their pages, in a browser too, and wrong use in one sentence."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from helpers.browser import chromium, opened
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image

from jaxseg.compare import main as compare
from jaxseg.config import differences, update
from jaxseg.errors import ConfigError
from jaxseg.inference import evaluate, load_run
from jaxseg.metrics.intervals import grouped, iou_and_mean, paired_interval
from jaxseg.report import images as choosing
from jaxseg.report.__main__ import main as report
from jaxseg.report.collecting import collect
from jaxseg.run.provenance import RECORD_FILE

NASTY = '<script>alert("x")</script>'
LOG = [
    {"step": s, "split": "train", "loss": 1.0 / s, "mean_iou": 0.1 * s, "learning_rate": 0.1} for s in range(1, 6)
] + [{"step": s, "split": "val", "loss": 1.5 / s, "mean_iou": None if s == 2 else 0.05 * s} for s in (2, 4)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs on a folder with names that are markup, and their pages."""
    root = tmp_path_factory.mktemp("report")
    data = make_folder(root / "data", [(16, 16), (16, 16)], split="train")
    make_folder(data, [(16, 16), (16, 24), (24, 16), (16, 16), (16, 16)])
    for kind in ("images", "masks"):
        (data / "val" / kind / "3.png").rename(data / "val" / kind / "a'\"&<b>.png")
    (data / "classes.json").write_text(json.dumps({"classes": ["ground", NASTY, "roof"]}))
    config = tiny_config(data__source="folder", data__dir=str(data))
    for name, step in (("a", 10), ("b", 11)):
        make_run(root / name, config, {step: 0.5})
        (root / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    (root / "a" / RECORD_FILE).write_text(json.dumps({"starts": [{"command": f"train {NASTY}", "device": NASTY}]}))
    assert report([str(root / "a")]) == 0
    assert compare([str(root / "a"), str(root / "b"), "--out", str(root / "compare.html")]) == 0
    return root


def cell_of(page, row):
    """The texts of the cells of the first row with this head."""
    found = re.search(rf'<tr><th scope="row"[^>]*>(?:<i [^>]*></i>)?{re.escape(row)}</th>(.*?)</tr>', page)[1]
    return [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", found)]


def test_the_numbers_of_the_page_are_those_of_evaluate(place):
    page, evaluation = (place / "a" / "report.html").read_text(), evaluate(load_run(place / "a"))
    assert f"{100 * evaluation.mean_iou:.2f} %" in page
    interval = evaluation.interval
    wanted = [evaluation.scores.iou[2], interval.low[2], interval.high[2]]
    assert cell_of(page, "roof")[:3] == [f"{100 * value:.2f}" for value in wanted]
    right = evaluation.confusion[2, 2] / evaluation.confusion[2].sum()
    assert f"roof predicted as roof: {100 * right:.2f} % ({evaluation.confusion[2, 2]:,} pixels)" in page
    assert page.count("<article") == 5 and len(page) < 500_000


def test_names_of_users_are_text(place):
    for file in (place / "a" / "report.html", place / "compare.html"):
        page = file.read_text()
        assert NASTY not in page and html.escape(NASTY) in page and html.escape("a'\"&<b>") in page
        assert page.count("<script") == 1 and "http://" not in page and "https://" not in page


def test_the_pictures_are_those_of_the_prediction_that_was_scored(place):
    found = collect(load_run(place / "a"), "val")
    assert sorted(np.unique(found.counts.image)) == [0, 1, 2, 3, 4]
    for i in range(5):
        prediction, label = found.predictions[i], found.source[i]["label"]
        assert prediction.shape == label.shape  # though the evaluation orders the images by their size
        counted = label != 255
        right = found.counts.pixels[0][found.counts.image == i].sum()
        assert right == (prediction == label)[counted].sum()
    assert found.objects.count.sum() > 5
    groups = choosing.chosen_images(found)
    assert set(groups) == {0, 1, 2, 3, 4} and all({"worst", "median"} <= set(each) for each in groups.values())
    assert sum("class-2" in each for each in groups.values()) == 4


def test_the_comparison_is_paired_by_image(place):
    a, b = (evaluate(load_run(place / name)) for name in ("a", "b"))
    page, paired = (place / "compare.html").read_text(), paired_interval(b.counts, a.counts, iou_and_mean)
    wanted = [f"{100 * float(value[-1]):+.2f}" for value in (paired.value, paired.low, paired.high)]
    assert cell_of(page, "b")[3:6] == wanted and cell_of(page, "a")[3:6] == ["–"] * 3
    of_class = [f"{100 * float(value[2]):+.2f}" for value in (paired.value, paired.low, paired.high)]
    assert cell_of(page, "roof")[2:] == of_class
    assert "The runs have the same configuration." in page


def said(capsys, main, *words):
    """The sentence with which a command refuses."""
    capsys.readouterr()
    assert main(list(map(str, words))) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and error.endswith(".")
    return error


def test_wrong_use_is_one_sentence(place, tmp_path, capsys):
    run = place / "a"
    assert "holds no run (no config.json)" in said(capsys, report, tmp_path)
    assert "does not exist" in said(capsys, report, tmp_path / "none")
    empty = shutil.copytree(run, tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    assert "has no checkpoint yet" in said(capsys, report, empty)
    gone = f"--config.data.dir={tmp_path / 'gone'}"
    assert str(tmp_path / "gone") in said(capsys, report, run, gone, "--out", tmp_path / "x.html")
    (tmp_path / "mine.html").write_text("mine")
    assert "jaxseg did not write" in said(capsys, report, run, "--out", tmp_path / "mine.html")
    assert "is a folder" in said(capsys, report, run, "--out", tmp_path)
    assert "--out is the page of a single WORKDIR" in said(capsys, report, run, place / "b", "--out", "x.html")
    assert "two runs or more" in said(capsys, compare, run)
    assert said(capsys, compare, run, run) == f"error: The run in {run} is given twice; give each run once."
    again = said(capsys, compare, run, f"{run}/")
    assert again == f"error: The run in {run}/ is given a second time as {run}; give each run once."
    for command, runs in ((report, [run]), (compare, [run, place / "b"])):
        assert command([*map(str, runs), "--memory", "0.5kB", "--out", str(tmp_path / "x.html")]) == 1
        assert "500 bytes are what compile.memory gives" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The value of data.group that makes three groups of the five images."""
    file = tmp_path_factory.mktemp("scenes") / "scenes.csv"
    file.write_text('name,scene\n0,x\n1,x\n2,y\n"a\'""&<b>",y\n4,z\n')
    return f"{file}:scene"


def test_groups_are_drawn_on_both_pages(place, scenes, tmp_path, capsys):
    key, out = f"--config.data.group={scenes}", ["--out", str(tmp_path / "x.html")]
    assert report([str(place / "a"), key, "--out", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert "2000 draws of 3 groups with replacement" in page and "a class of few groups" in page
    a, b = (evaluate(load_run(place / name, overrides=[key])) for name in ("a", "b"))
    assert a.unit == "group" and a.interval.images == 3
    gain = paired_interval(grouped(b.counts, b.groups), grouped(a.counts, a.groups), iou_and_mean)
    wanted = [f"{100 * float(value):+.2f}" for value in (gain.value[-1], gain.low[-1], gain.high[-1])]
    ends = [f"{100 * float(value):.2f}" for value in (b.interval.low[-1], b.interval.high[-1])]
    moved = shutil.copytree(place / "b", tmp_path / "b")
    config = json.loads((moved / "config.json").read_text())
    config["data"]["group"] = "."  # groups of its own, which do not count
    (moved / "config.json").write_text(json.dumps(config))
    grouped_first = shutil.copytree(place / "a", tmp_path / "a")
    config["data"]["group"] = scenes
    (grouped_first / "config.json").write_text(json.dumps(config))
    for runs, said_of_b in (
        ([place / "a", place / "b", key], ""),
        ([grouped_first, moved], "; those of b differ and are not used"),
    ):
        assert compare([*map(str, runs), *out]) == 0
        page = (tmp_path / "x.html").read_text()
        assert cell_of(page, "b")[1:3] == ends and cell_of(page, "b")[3:6] == wanted
        assert "paired by group" in page and "the same groups for both runs" in page
        assert f"All intervals draw 3 groups of images, those of a{said_of_b}." in page
    assert compare([str(place / "a"), str(moved), *out]) == 0
    assert "draw single images, as a has no data.group; those of b are not used" in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize("text", [r"^(\d)", "gone.csv:scene"])
def test_an_interval_without_its_groups_draws_images_and_says_so(place, text, caplog):
    found, alone = (evaluate(load_run(place / "a", overrides={"data.group": each})) for each in (text, ""))
    assert (found.groups, found.unit, found.mean_iou) == ((), "image", alone.mean_iou)
    np.testing.assert_array_equal(found.interval.low, alone.interval.low)
    assert "So the intervals of the split val draw single images." in caplog.text
    assert f"data.group={text!r}" in caplog.text


def test_a_group_that_decides_what_a_run_trained_on_is_kept(place, tmp_path):
    moved = shutil.copytree(place / "b", tmp_path / "b")
    config = json.loads((moved / "config.json").read_text())
    config["data"]["fold"] = "1/2"
    (moved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"data\.group belongs to the trained run"):
        load_run(moved, overrides=["--config.data.group=."])
    one, other = (tiny_config(data__fold="1/2", data__group=each) for each in ("", "."))
    assert differences(one, other) == ["data.group:  -> ."]
    for values in ({"data__fold": ""}, {"data__fold_file": "folds.csv"}):
        update(one, **values)
        update(other, **values)
        assert differences(one, other) == []
        update(one, data__fold="1/2")
        update(other, data__fold="1/2")


def test_only_runs_of_the_same_images_and_classes_are_compared(place, tmp_path, capsys, monkeypatch):
    out = ("--out", tmp_path / "x.html")
    other = make_run(tmp_path / "shapes", tiny_config())
    assert "Runs are compared if they have the same classes" in said(capsys, compare, place / "a", other, *out)
    data = shutil.copytree(place / "data", tmp_path / "data")
    moved = shutil.copytree(place / "b", tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["data"]["dir"] = str(data)
    (moved / "config.json").write_text(json.dumps(config))
    mask = data / "val" / "masks" / "1.png"
    with Image.open(mask) as image:
        labels = np.array(image)
    labels[:4] = 255
    Image.fromarray(labels).save(mask)
    assert "the same masks, and that of 1 differs" in said(capsys, compare, place / "a", moved, *out)
    monkeypatch.setattr("jaxseg.report.options.collect", None)  # the rest is said before any run is scored
    for kind in ("images", "masks"):
        with Image.open(data / "val" / kind / "2.png") as image:
            image.crop((0, 0, 16, 20)).save(data / "val" / kind / "2.png")
    assert "are not: 2 has another size" in said(capsys, compare, place / "a", moved, *out)
    for kind in ("images", "masks"):
        (data / "val" / kind / "1.png").unlink()
    assert "one has 1 and the other has not" in said(capsys, compare, place / "a", moved, *out)
    assert not (tmp_path / "x.html").exists()


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def test_the_page_in_a_browser(browser, place):
    page, heard, seconds = opened(browser, place / "a" / "report.html")
    assert seconds < 2 and heard == []
    cards = page.locator("article:visible")
    assert cards.count() == 5
    shown = "article .base, article .left, article .right"
    page.wait_for_function(f"[...document.querySelectorAll('{shown}')].every((i) => i.complete && i.naturalWidth > 0)")
    assert page.locator(shown).count() == 15
    # the divider and the opacity
    layer = page.locator("article .layer.right").first
    page.locator(".gallery .cut").fill("20")
    assert layer.evaluate("(i) => getComputedStyle(i).clipPath") == "inset(0px 0px 0px 20%)"
    page.locator(".gallery .opacity").fill("30")
    assert layer.evaluate("(i) => getComputedStyle(i).opacity") == "0.3"
    page.locator(".gallery select.right").select_option("2")
    assert page.locator("article .layer.right").first.get_attribute("data-layer") == "2"
    # filters and the order
    page.locator(".gallery .named").fill("<B>")
    assert cards.count() == 1 and page.locator(".gallery .count").inner_text() == "1 of 5 images"
    page.locator(".gallery .named").fill("nothing")
    assert page.locator(".gallery .none").is_visible()
    page.locator(".gallery .named").fill("")
    page.locator(".gallery select.group").select_option("class-2")
    assert cards.count() == 4
    first = cards.first.get_attribute("id")
    page.locator(".gallery select.order").select_option("1")
    assert cards.last.get_attribute("id") == first
    # an image enlarged, and keys
    cards.first.locator(".picture").focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    name = page.locator("dialog h3").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog h3").inner_text() != name
    page.keyboard.press("r")
    assert page.locator(".gallery .cut").input_value() == "0"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # a table is sorted and filtered
    classes = page.locator("#classes tbody tr th")
    page.locator("#classes thead button").first.click()
    assert classes.all_inner_texts() == [NASTY, "ground", "roof"]
    assert page.locator("#classes thead th").first.get_attribute("aria-sort") == "ascending"
    page.locator("#configuration summary").click()
    page.locator("#configuration details input[type=search]").fill("data.dir")
    kept = page.locator("#configuration details tbody tr:visible").all_inner_texts()
    assert 1 <= len(kept) < 20 and all("data.dir" in row for row in kept)
    # the values of a curve at the pointer and by keys
    chart = page.locator("#curves figure").first
    chart.locator("svg[tabindex]").focus()
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").inner_text() == "step 1: train 1"
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").inner_text() == "step 2: train 0.5; val 0.75"
    page.keyboard.press("End")
    assert chart.locator("output").inner_text() == "step 5: train 0.2"
    chart.locator("svg[tabindex]").hover(position={"x": 62, "y": 40})
    assert chart.locator("output").inner_text() == "step 1: train 1"
    chart.get_by_role("button", name="train").click()
    assert not chart.locator('g[data-series="0"]').is_visible()
    # light and dark
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(246, 246, 244)"
    theme = page.locator("#theme")
    theme.click()
    theme.click()
    assert theme.inner_text() == "Theme: dark" and page.evaluate(background) == "rgb(23, 24, 26)"
    page.reload()
    assert page.evaluate(background) == "rgb(23, 24, 26)"
    assert heard == []
    page.context.close()


def test_pages_fit_a_phone_and_the_dark(browser, place):
    for file in (place / "a" / "report.html", place / "compare.html"):
        phone = {"width": 390, "height": 844}
        page, heard, _ = opened(browser, file, viewport=phone, color_scheme="dark", has_touch=True)
        assert page.evaluate("document.documentElement.scrollWidth") == 390 and heard == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 26)"
        unnamed = "button, input, select, svg[tabindex], [role=region]"
        names = page.locator(unnamed).evaluate_all(
            "(found) => found.filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).length"
        )
        assert names == 0
        page.context.close()

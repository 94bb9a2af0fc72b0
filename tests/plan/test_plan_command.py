"""`jaxseg plan`: what it writes, that `jaxseg train` takes it, and every wrong use as a sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_training import ROOT
from PIL import Image

from jaxseg import __main__ as cli
from jaxseg import build
from jaxseg.config import differences, update
from jaxseg.config.command import load_experiment
from jaxseg.config.values import literal
from jaxseg.data.images import read_image
from jaxseg.data.sources import make_source
from jaxseg.plan import __main__ as command
from jaxseg.plan import measuring
from jaxseg.plan.__main__ import data_config
from jaxseg.plan.fingerprint import ClassFacts, Fingerprint
from jaxseg.plan.planning import make_plan
from jaxseg.plan.rules import Machine
from jaxseg.plan.writing import text_of
from jaxseg.run import workdir

TINY = ["--config.model.args.widths=(4,8)", "--config.batch_size=8", "--config.eval.batch_size=8"]


def picture(seed, size, mode="RGB"):
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
    label[-size[0] // 4 :] = 2
    image = rng.integers(0, 120, (*size, 3)) + 60 * label[..., None]
    return Image.fromarray(image.astype(np.uint8)).convert(mode), Image.fromarray(label)


def make_data(root, sizes, mode="RGB"):
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i, size in enumerate(sizes):
        image, mask = picture(i, size, mode)
        image.save(root / "images" / f"{i:02d}.png")
        mask.save(root / "masks" / f"{i:02d}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["sky", "car", "road"]}))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("plan") / "data", [(24, 32)] * 12)


@pytest.fixture(scope="module")
def plan(data):
    """The path of a plan of the data, and what the command printed."""
    out = data.parent / "plan.py"
    assert cli.main(["plan", str(data), "--out", str(out), *TINY]) == 0
    return out


def test_the_file_is_an_experiment_with_reasons(plan, data):
    text = plan.read_text()
    config = load_experiment(str(plan))
    assert config.data.dir == str(data) and config.data.fit == "resize" and config.data.size == (24, 32)
    assert config.model.args.widths == (4, 8) and config.batch_size == 8
    assert "# All images are 24x32, small enough to be seen whole." in text
    assert "# Given on the command line.\n    update(config, model__args__widths=(4, 8)" in text
    assert max(map(len, text.splitlines())) <= 120 and text.endswith("    return config\n")


def test_the_fingerprint_is_beside_it(plan):
    content = json.loads(plan.with_suffix(".json").read_text())
    found = content["fingerprint"]
    assert found["sizes"] == [[24, 32, sum(found["images"].values()) - found["images"]["val"]]]
    assert [each["name"] for each in found["classes"]] == ["sky", "car", "road"]
    assert content["machine"] == {"backend": "cpu", "devices": 8} and content["kind"]["kind"] == "photo"


def test_training_images_that_are_nearly_the_same_are_named(data, tmp_path, capsys):
    copy, out = shutil.copytree(data, tmp_path / "copy"), tmp_path / "plan.py"
    for kind in ("images", "masks"):
        for name in ("a.png", "b.png", "c.png"):
            shutil.copy(copy / kind / "00.png", copy / kind / name)
    assert cli.main(["plan", str(copy), "--out", str(out), *TINY]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["fingerprint"]
    pairs = [[Path(name).name for name in pair] for pair in found["alike"]]
    assert len(pairs) == found["near_duplicates"]["train"] > 1
    assert {name for pair in pairs for name in pair} <= {"00.png", "a.png", "b.png", "c.png"}
    assert f"such as {found['alike'][0][0]} and " in capsys.readouterr().out


def test_the_same_data_give_the_same_file(plan, data, tmp_path):
    again = tmp_path / "plan.py"
    assert cli.main(["plan", str(data), "--out", str(again), *TINY]) == 0
    assert again.read_text() == plan.read_text()
    assert again.with_suffix(".json").read_text() == plan.with_suffix(".json").read_text()


def test_train_takes_it_without_an_option(plan, tmp_path, capsys):
    words = [
        "train",
        str(plan),
        "--workdir",
        str(tmp_path / "run"),
        "--config.steps",
        "2",
        "--config.schedule.warmup=0",
    ]
    assert cli.main([*words, "--config.eval.every=2"]) == 0
    assert "step 2/2" in capsys.readouterr().err and (tmp_path / "run" / "config.json").is_file()


def test_one_experiment_file_is_given_once(plan, capsys):
    for words, sentence in [
        ([str(plan), "--config", "other.py"], "There are two experiment files"),
        ([], "An experiment file is missing"),
    ]:
        with pytest.raises(SystemExit):
            cli.main(["train", *words])
        assert sentence in capsys.readouterr().err


def test_the_command_after_an_error_repeats_the_keys(data, tmp_path, capsys):
    words = [str(broken(data, tmp_path, "other size")), "--config.data.val_fraction", "0.3"]
    assert cli.main(["plan", *words, "--out", str(tmp_path / "plan.py")]) == 1
    command = capsys.readouterr().err.strip().partition("in the folder: jaxseg ")[2].split()
    assert command == ["check", *words]
    assert cli.main([*command, "--images", "0"]) == 1
    assert "03.png is 30 x 40" in capsys.readouterr().err


def test_a_plan_is_never_overwritten(plan, data, capsys):
    before = plan.read_text()
    assert cli.main(["plan", str(data / "none"), "--out", str(plan)]) == 1
    assert "does not exist" in capsys.readouterr().err  # the folder is the first thing to put right
    assert cli.main(["plan", str(data), "--out", str(plan)]) == 1
    assert f"{plan} exists already" in capsys.readouterr().err and plan.read_text() == before


def test_large_images_of_several_sizes_become_patches_in_tiles(tmp_path):
    data = make_data(tmp_path / "data", [(300, 200), (200, 300), (310, 200), (200, 280)] * 2, "L")
    out, small = tmp_path / "p.py", ["--config.data.size=16,16", "--config.model.args.widths=(4,)"]
    assert cli.main(["plan", str(data), "--out", str(out), "--kind", "text", "--minutes", "1", *TINY, *small]) == 0
    config, text = load_experiment(str(out)), out.read_text()
    assert config.data.fit == "crop" and "data__size=(192, 192)" in text and config.eval.tiles == "256x256"
    assert config.data.channels == 1 and len(config.data.mean) == 1 and 0 < config.data.mean[0] < 1
    assert config.augment.flip_horizontal == 0 and config.augment.rotate == 0
    assert "1 minutes were asked for: a step was measured" in text and config.steps >= 20


@pytest.fixture
def without_compiling(monkeypatch):
    """Every step fits into the memory."""
    monkeypatch.setattr(measuring, "fitting", lambda *_: measuring.Fitting(8, False, "2 MB", False))


def of_bands(root, bands, suffix, dtype=np.uint8):
    """Writes 12 images of some bands with masks, the mean of band i being about 20 (i + 1)."""
    make_data(root, [(24, 32)] * 12)
    for file in sorted((root / "images").iterdir()):
        rng = np.random.default_rng(int(file.stem))
        image = rng.integers(0, 40, (24, 32, bands)) + 20 * np.arange(bands)
        file.unlink()
        if suffix == ".npy":
            np.save(file.with_suffix(suffix), image.astype(dtype))
        else:
            pytest.importorskip("tifffile").imwrite(
                file.with_suffix(suffix), image.astype(dtype), photometric=1, planarconfig="contig"
            )
    return root


@pytest.mark.parametrize(("suffix", "words"), [(".npy", []), (".tif", []), (".npy", ["--config.data.channels=5"])])
def test_arrays_and_tiff_files_of_any_bands(tmp_path, without_compiling, suffix, words):
    data, out = of_bands(tmp_path / "data", 5, suffix), tmp_path / "plan.py"
    assert cli.main(["plan", str(data), "--out", str(out), *TINY, *words]) == 0
    config = load_experiment(str(out))
    assert config.data.channels == 5
    assert config.data.mean == pytest.approx([(19.5 + 20 * i) / 255 for i in range(5)], abs=0.003)
    assert config.data.std == pytest.approx([np.sqrt((40**2 - 1) / 12) / 255] * 5, rel=0.03)


def test_one_channel_of_pictures_of_colour(data, tmp_path, without_compiling):
    out = tmp_path / "plan.py"
    assert cli.main(["plan", str(data), "--out", str(out), *TINY, "--config.data.channels=1"]) == 0
    config = load_experiment(str(out))
    grey = [np.asarray(read_image(file, 1)) for file in (data / "images").iterdir()]
    assert config.data.channels == 1 and config.data.mean == pytest.approx([np.mean(grey) / 255], abs=0.02)


def test_images_of_measurements(tmp_path, monkeypatch):
    data, out, timed = of_bands(tmp_path / "data", 1, ".npy", np.float32), tmp_path / "plan.py", []
    noise = measuring._noise
    monkeypatch.setattr(measuring, "_noise", lambda *a: timed.append(noise(*a)) or timed[-1])
    words = ["--config.data.range=(0,80)", "--minutes", "1"]
    assert cli.main(["plan", str(data), "--out", str(out), *TINY, *words]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["fingerprint"]
    assert found["bits"] == 0 and found["channels"] == 1 and found["brightest"] == round(39 / 80, 4)
    assert found["mean"] == pytest.approx([19.5 / 80], abs=0.01)
    config = load_experiment(str(out))
    assert config.data.range == (0, 80) and config.data.mean == tuple(found["mean"])
    assert [(each.dtype, each.min() >= 0, each.max() <= 1) for each in timed] == [(np.float32, True, True)]
    assert "of what 0 bits hold" not in out.read_text()


@pytest.mark.parametrize("damage", [b"no picture", "cut"])
def test_damaged_images_may_be_left_out(data, tmp_path, capsys, without_compiling, damage):
    copy, out = shutil.copytree(data, tmp_path / "copy"), tmp_path / "plan.py"
    source = make_source(data_config(str(copy), {}), "train")
    file = source.pairs[1].image
    file.write_bytes(damage if isinstance(damage, bytes) else file.read_bytes()[:-400])
    assert cli.main(["plan", str(copy), "--out", str(out), *TINY, "--config.data.on_error=skip"]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["fingerprint"]
    assert found["images"]["train"] == len(source) - 1 == found["sizes"][0][2] and found["channels"] == 3
    said = capsys.readouterr().err
    assert f"{file} cannot be read" in said and "data.on_error=skip: it is left out." in said


def test_several_classes_a_pixel_have_no_plan(data, tmp_path, capsys):
    out = tmp_path / "plan.py"
    words = ["--config.data.multilabel=bits", "--config.data.classes=('a','b')"]
    assert cli.main(["plan", str(data), "--out", str(out), *words]) == 1
    captured = capsys.readouterr()
    assert "error: jaxseg plan counts pixels of one class" in captured.err and captured.out == ""
    assert not out.exists()


@pytest.mark.parametrize("refused", [".py", ".json"])
def test_both_files_are_written_or_none(data, tmp_path, monkeypatch, capsys, without_compiling, refused):
    def fail(file, value):
        raise OSError(28, "No space left on device")

    place = (command, "write_text") if refused == ".py" else (workdir, "write_json")
    out, words = tmp_path / "plan.py", ["plan", str(data), "--out", str(tmp_path / "plan.py"), *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        assert cli.main(words) == 1
    assert f"plan{refused} cannot be written: No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert cli.main(words) == 0 and out.exists()


@pytest.mark.slow  # its parts are tested in tests/run/test_preflight.py and tests/plan
def test_a_smaller_batch_where_memory_is_short(plan):
    config = load_experiment(str(plan))
    update(config, batch_size=32, model__args__widths=(4,))
    whole = measuring.fitting(config, 3)
    assert whole.batch_size == 32 and not whole.reduced
    taken = float(whole.memory.removesuffix(" MB"))
    update(config, compile__memory=f"{0.9 * taken:.2f}MB")
    less = measuring.fitting(config, 3)
    assert less.batch_size == 16 and less.reduced and float(less.memory.removesuffix(" MB")) < 0.9 * taken
    update(config, batch_size=8, compile__memory="1kB")
    with pytest.raises(build.ConfigError, match="No batch of two images of 24x32 fits"):
        measuring.fitting(config, 3)


def broken(data, tmp_path, kind):
    """Returns a copy of the data with something wrong in it."""
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    files = sorted((copy / "images").iterdir()), sorted((copy / "masks").iterdir())
    if kind == "no masks":
        shutil.rmtree(copy / "masks")
    elif kind == "one image":
        for file in (*files[0][1:], *files[1][1:]):
            file.unlink()
    elif kind == "unreadable":
        files[0][4].write_bytes(b"no picture")
    elif kind == "cut short":
        files[0][4].write_bytes(files[0][4].read_bytes()[:-400])
    elif kind == "other size":
        picture(0, (30, 40))[1].save(files[1][3])
    elif kind == "nothing labelled":
        for file in files[1]:
            Image.fromarray(np.full((24, 32), 255, np.uint8)).save(file)
    return copy


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no masks", "masks"),
        ("one image", "it has 1 in all"),
        ("unreadable", "04.png cannot be read as an image"),
        ("cut short", "04.png cannot be read as an image"),
        ("other size", "03.png is 30 x 40 (height x width), but its image"),
        ("nothing labelled", "Every pixel of the training images is ignored"),
    ],
)
def test_data_that_cannot_be_planned(data, tmp_path, capsys, kind, sentence):
    out = tmp_path / "plan.py"
    assert cli.main(["plan", str(broken(data, tmp_path, kind)), "--out", str(out)]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and sentence in said
    assert said.endswith(f" All that is wrong in the folder: jaxseg check {tmp_path / 'copy'}")
    assert not out.exists() and not out.with_suffix(".json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no/such/folder"], "does not exist"),
        (["DATA", "--out", "plan.txt"], "a plan ends in .py"),
        (["DATA", "--config.data.chanels=1"], "Did you mean 'data.channels'?"),
        (["DATA", "--config.data.channels=2"], "data.channels"),
    ],
)
def test_wrong_words(data, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *(str(data) if word == "DATA" else word for word in words)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [[], ["DIR", "--kind", "painting"], ["DIR", "--minutes", "-3"], ["DIR", "--minutes", "x"]]
)
def test_wrong_options(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", *words])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "value", ["it's", 'say "so"', "a\nb", (1,), (0.5, 2), {"widths": (4, 8), "x": None}, [], True, "\udcff"]
)
def test_values_are_python(value):
    assert eval(literal(value)) == (tuple(value) if isinstance(value, list) else value)
    assert "\n" not in literal(value)


def test_the_example_of_the_page_is_what_the_rules_give(tmp_path, monkeypatch):
    """The plan in docs/plan.md is written again from the fingerprint of its data, which is stored beside this test."""
    found = json.loads((Path(__file__).parent / "nuclei.json").read_text())["fingerprint"]
    classes = tuple(ClassFacts(**{**each, "diameters": tuple(each["diameters"])}) for each in found.pop("classes"))
    named = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    data = Fingerprint(**named, classes=classes)
    monkeypatch.setattr(measuring, "fitting", lambda *_: measuring.Fitting(8, False, "205 MB", False))
    plan = make_plan(data, Machine("cpu"), directory="nuclei", given={"steps": 1500})
    page = (ROOT / "docs" / "plan.md").read_text()
    text = page.partition("```python\n")[2].partition("```")[0]
    assert text == text_of(plan, "plan.py")
    (tmp_path / "plan.py").write_text(text)
    config = load_experiment(str(tmp_path / "plan.py"))
    assert differences(config, plan.config()) == [] and config.steps == 1500 and config.data.fit == "crop"

"""Pixels that may have several classes, from the training step to files: data.multilabel on the whole path."""

import argparse
import dataclasses
import json
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.tiny_run import TINY, make_folder, make_run, short_config, tiny_config
from helpers.tiny_step import assert_same
from helpers.tiny_training import assert_identical, state_of
from jax import export
from PIL import Image

import jaxseg
from jaxseg import build, compare, evaluate, losses, metrics, parallel, pictures, predict, shrink
from jaxseg.config import update
from jaxseg.data import make_source
from jaxseg.data.rasters import write_labels
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.inference import options as options_module
from jaxseg.inference import outputs, thresholds
from jaxseg.inference.evaluation import evaluate as score_split
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.quantised import quantise_run
from jaxseg.nn import resize
from jaxseg.plan.__main__ import main as plan_main
from jaxseg.publish import publish_run
from jaxseg.report.__main__ import main as report_main
from jaxseg.run import shrinking
from jaxseg.run.check import check
from jaxseg.run.data import class_weights
from jaxseg.run.messages import closing_message
from jaxseg.run.report import read_log
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.train import train

K = 5
SETS = {"data__multilabel": "bits", "loss__terms": "binary_cross_entropy + dice"}


class Heads(nn.Module):
    """A convolution, the logits, and an auxiliary head at half the size."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = jnp.tanh(nn.Conv(6, (3, 3), name="conv")(image))
        return nn.Conv(3, (1, 1), name="head")(x), {"aux": (nn.Conv(3, (2, 2), strides=2, name="aux")(x),)}


@pytest.mark.parametrize(
    ("name", "devices", "accumulate"), [("pmap", 8, 2), pytest.param("jit", 8, 1, marks=pytest.mark.slow)]
)
def test_a_step_has_the_same_numbers_however_the_batch_is_split(name, devices, accumulate):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 8, (16, 8, 8)).astype(np.uint8)
    label[:5, :6] = 255  # devices with few known pixels
    batch, tx = {"image": rng.normal(size=(16, 8, 8, 3)).astype(np.float32), "label": label}, optax.sgd(0.5)
    loss = losses.make_loss("binary_cross_entropy + dice", num_classes=3, multilabel=True, class_weights=(1, 2, 3))
    start = jax.jit(lambda: init_state(Heads(), tx, jax.random.key(1), (8, 8, 3)))
    found = []
    for how, count, parts in (("jit", 1, 1), (name, devices, accumulate)):
        strategy = parallel.make_strategy(how, {"batch_size": 16}, jax.devices()[:count])
        step = make_train_step(Heads(), tx, loss, accumulate=parts, axis_name=strategy.axis_name)
        state, logged = strategy.compile_train(step)(
            strategy.put_state(start()), strategy.put_batch(batch), strategy.put_key(jax.random.key(2))
        )
        found.append(jax.device_get((strategy.get_state(state), strategy.first(logged))))
    counts = found[0][1]["confusion"]
    assert counts.shape == (4, 2, 2) and (counts.sum((1, 2)) == np.sum(label != 255)).all()
    assert_same(found[1], found[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a run of four steps, and what its checkpoint held at the end."""
    workdir = tmp_path_factory.mktemp("runs") / "sets"
    config = short_config(**SETS, augment__rotate=20.0, augment__zoom=(0.8, 1.2), log__images=2, log__report=True)
    train(config, workdir, "a test", "")
    return workdir, config, state_of(workdir)


def test_a_resumed_run_is_the_uninterrupted_one(trained, tmp_path):
    workdir, config, state = trained
    assert "<code>jaxseg report</code> writes" not in (workdir / "report.html").read_text()
    log = [r for r in read_log(workdir / "log.jsonl") if r["split"] == "val"]
    assert [r["step"] for r in log] == [2, 4] and all(len(r["iou"]) == K and r["hamming_accuracy"] > 0 for r in log)
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "4")
    train(config, again, "a test", "")
    assert_identical(state_of(again), state)
    assert [r for r in read_log(again / "log.jsonl") if r["split"] == "val"] == log
    single = config.copy_and_resolve_references()
    update(single, data__multilabel="", loss__terms="binary_cross_entropy")
    with pytest.raises(ConfigError, match=r"another configuration.*data\.multilabel"):
        train(single, again, "a test", "")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose predictions hold many sets."""
    return jaxseg.load(
        make_run(tmp_path_factory.mktemp("runs") / "random", tiny_config(**SETS, log__images=0, batch_size=4))
    )


def test_evaluation_in_batches_in_tiles_and_in_views(run):
    source = make_source(run.config, "val")
    truth = np.stack([source[i]["label"] for i in range(len(source))])
    found = [run.predict(source[i]["image"], probabilities=True) for i in range(len(source))]
    sets = np.stack([each.classes for each in found])
    assert sets.dtype == np.uint8 and len(np.unique(sets)) > 8
    p = np.stack([each.probabilities for each in found])
    np.testing.assert_array_equal(sets, ((p > 0.5) << np.arange(K)).sum(-1))
    scored, want = run.evaluate("val"), np.asarray(metrics.set_counts(sets, truth, K))
    np.testing.assert_array_equal(scored.confusion, want)
    assert "exact match" in str(scored) and scored.write_report().keys() == {"scores"}
    loss = run.parts.loss(np.log(p / (1 - p)), truth.astype(np.int32))
    np.testing.assert_allclose(scored.loss, loss, rtol=1e-4)
    tiled = run.evaluate("val", tiles=(16, 16), average="flips")
    predictor = make_predictor([run], tiles=(16, 16), average="flips")
    averaged = [predictor(source[i]["image"], probabilities=True) for i in range(len(source))]
    flipped = [run.predict(source[i]["image"][:, ::-1], probabilities=True).probabilities for i in range(len(source))]
    mean = np.stack([each.probabilities for each in averaged])
    np.testing.assert_allclose(mean, (p + np.stack(flipped)[:, :, ::-1]) / 2, atol=1e-5)
    sets = np.stack([each.classes for each in averaged])
    np.testing.assert_array_equal(sets, ((mean > 0.5) << np.arange(K)).sum(-1))
    np.testing.assert_array_equal(tiled.confusion, metrics.set_counts(sets, truth, K))
    assert np.abs(tiled.confusion - want).max() > 4
    assert [each.mean_iou for each in tiled.alone] == [scored.mean_iou]


def test_scales_and_several_runs_average_the_probabilities(run, tmp_path_factory):
    """By each model alone: two runs, each at two sizes of the image."""
    other = jaxseg.load(
        make_run(tmp_path_factory.mktemp("other") / "run", tiny_config(**SETS, seed=1, log__images=0, batch_size=4))
    )
    source = make_source(run.config, "val")

    def seen(member, image, side):
        view = member.parts.prepare(resize_image(image, (side, side))[None])
        logits, _ = member.model.apply(member.variables, view, train=False)
        return np.asarray(jax.nn.sigmoid(resize(logits, (16, 16), method="bilinear")))[0]

    predictor = make_predictor([run, other], average="scales:1-1.5")
    sets = []
    for i in range(len(source)):
        image = source[i]["image"]
        found = predictor(image, probabilities=True)
        mean = np.mean([seen(member, image, side) for member in (run, other) for side in (16, 24)], axis=0)
        np.testing.assert_allclose(found.probabilities, mean, atol=2e-5)
        np.testing.assert_array_equal(found.classes, ((found.probabilities > 0.5) << np.arange(K)).sum(-1))
        sets.append(found.classes)
    truth = np.stack([source[i]["label"] for i in range(len(source))])
    scored = score_split(run, "val", predictor=predictor)
    np.testing.assert_array_equal(scored.confusion, metrics.set_counts(np.stack(sets), truth, K))


def test_a_published_run_gives_the_same_sets(run, tmp_path):
    publish_run(run, tmp_path / "net", licence="mit")
    back = jaxseg.load(tmp_path / "net")
    image = make_source(run.config, "val")[0]["image"]
    a, b = (each.predict(image, probabilities=True) for each in (run, back))
    np.testing.assert_array_equal(a.classes, b.classes)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert back.config.data.multilabel == "bits" and back.classes == run.classes and len(np.unique(b.classes)) > 4
    assert "A pixel may have several of the classes" in (tmp_path / "net" / "README.md").read_text()


def test_a_run_with_classes_that_are_unknown_alone(tmp_path):
    """From the pictures of four classes, whose labels have 16 bits, to the scores of the known."""
    rng = np.random.default_rng(0)
    for name in "abcdefghijklmnop":
        for cls in ("", "p", "q", "r", "s"):
            folder = tmp_path / "data" / (f"masks/{cls}" if cls else "images")
            folder.mkdir(parents=True, exist_ok=True)
            picture = rng.choice([0, 1, 7], (16, 16)) if cls else rng.integers(0, 256, (16, 16, 3))
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{name}.png")
    keys = {**SETS, "data__multilabel": "folders", "data__source": "folder", "data__dir": str(tmp_path / "data")}
    keys |= {"data__unknown": "class", "data__ignore": 7, "data__val_fraction": 0.5, "augment__zoom": (0.7, 1.3)}
    config = tiny_config(**keys, steps=2, batch_size=8, eval__every=2, log__images=2, checkpoint__every=2)
    update(config, eval__batch_size=8)
    result = train(config, tmp_path / "run", "a test")
    assert np.isfinite(result.loss) and [*(tmp_path / "run").rglob("*.png")]
    run = jaxseg.load(tmp_path / "run")
    source = make_source(run.config, "val")
    truth = np.stack([source[i]["label"] for i in range(len(source))])
    assert truth.dtype == np.uint16 and len(source) == result.images and not (truth == 65535).all((1, 2)).any()
    sets = np.stack([run.predict(source[i]["image"]).classes for i in range(len(source))])
    assert sets.dtype == np.uint8
    want = np.asarray(metrics.set_counts(sets, truth.astype(np.int32), 4))
    for scored in (run.evaluate("val"), run.evaluate("val", tiles=(16, 16))):
        np.testing.assert_array_equal(scored.confusion, want)
    assert 0.6 < want[0].sum() / truth.size < 0.74 and 0.15 < want[4].sum() / truth.size < 0.25
    np.testing.assert_array_equal(result.confusion, want)
    scores, level = evaluate_with_intervals(run)
    assert level["mean_iou"][0] <= scores["mean_iou"] <= level["mean_iou"][1]


def evaluate_with_intervals(run):
    assert evaluate.main(["--workdir", str(run.workdir)]) == 0
    report = json.loads((run.workdir / "evaluate-val.json").read_text())
    return report, report["intervals"]


def test_thresholds_are_found_and_used(run, capsys):
    assert evaluate.main(["--workdir", str(run.workdir), "--fit-thresholds"]) == 0
    capsys.readouterr()
    content = json.loads((run.workdir / thresholds.FILE).read_text())
    assert list(content["thresholds"]) == list(run.classes)
    image = make_source(run.config, "val")[0]["image"]
    plain = make_predictor([run])
    logits = np.asarray(plain.scores(image).values[0])
    above = logits > np.array(content["logits"], np.float32)
    with_own = thresholds.with_thresholds(plain, [run])
    np.testing.assert_array_equal(with_own(image).classes, (above << np.arange(K)).sum(-1))
    averaged = make_predictor([run], average="flips:v", tiles=16)
    p = averaged(image, probabilities=True).probabilities
    own = (np.log(p / (1 - p)) > np.array(content["logits"], np.float32)) << np.arange(K)
    np.testing.assert_array_equal(thresholds.with_thresholds(averaged, [run])(image).classes, own.sum(-1))


def test_files_of_every_form(run, tmp_path, capsys):
    image = make_source(run.config, "val")[1]["image"]
    Image.fromarray(image).save(tmp_path / "a.png")
    sets = run.predict(image).classes
    for form in ("png", "tiff", "npz", "folders"):
        out = tmp_path / form
        call = ["--workdir", str(run.workdir), str(tmp_path / "a.png"), "--out", str(out), "--format", form]
        assert predict.main(call) == 0
        printed = capsys.readouterr().out
        assert form == "folders" or "sums of 1 disc, 2 square, 4 triangle, 8 ring, 16 cross" in printed
        assert predict.main([*call, "--skip-existing"]) == 0
        assert "1 image left out" in capsys.readouterr().out
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png" / "a.png")), sets)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "tiff" / "a.tif")), sets)
    np.testing.assert_array_equal(np.load(tmp_path / "npz" / "a.npz")["labels"], sets)
    for c, name in enumerate(run.classes):
        mask = np.asarray(Image.open(tmp_path / "folders" / name / "a.png"))
        np.testing.assert_array_equal(mask, np.where(sets >> c & 1, 255, 0))
    header, row = (tmp_path / "png" / "predictions.csv").read_text().splitlines()
    assert header.split(",")[4:-1] == [f"{name} %" for name in run.classes]
    shares = [100 * np.mean(sets >> c & 1) for c in range(K)]
    np.testing.assert_allclose(list(map(float, row.split(",")[4:-1])), shares, atol=1e-4)
    overlay = np.asarray(Image.open(tmp_path / "png" / "a-overlay.png"))
    np.testing.assert_array_equal(overlay[sets == 0], image[sets == 0])
    one = pictures.colorize(np.array([[0, 1, 3, 255]], np.uint8), [(200, 0, 0), (0, 100, 40)], True)
    np.testing.assert_array_equal(one[0], [(0, 0, 0), (200, 0, 0), (100, 50, 20), pictures.colors.IGNORE_COLOR])
    wide = np.array([[2**30, 5]], np.uint32)
    with (tmp_path / "wide.tif").open("wb") as file:
        write_labels(file, wide)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "wide.tif")), wide)


def test_names_of_classes_lead_nowhere_else(run, tmp_path, capsys):
    """Published runs come from strangers: a name is one folder in --out, of one class, and no other file's name."""
    workdir, out = tmp_path / "run", tmp_path / "above" / "out"
    shutil.copytree(run.workdir, workdir)
    names = ["..", "a/c", "A_c", "a-overlay.png", "a_c"]
    data = json.loads((workdir / "data.json").read_text())
    (workdir / "data.json").write_text(json.dumps(data | {"classes": names}))
    image = make_source(run.config, "val")[1]["image"]
    Image.fromarray(image).save(tmp_path / "a.png")
    call = ["--workdir", str(workdir), str(tmp_path / "a.png"), "--out", str(out), "--format", "folders"]
    assert predict.main(call) == 0
    folders = ["__", "a_c-2", "A_c", "a-overlay_png", "a_c-3"]
    files = {path.relative_to(tmp_path / "above").as_posix() for path in (tmp_path / "above").rglob("*.png")}
    assert files == {"out/a-overlay.png", *(f"out/{folder}/a.png" for folder in folders)}
    sets = run.predict(image).classes
    for c, folder in enumerate(folders):
        np.testing.assert_array_equal(np.asarray(Image.open(out / folder / "a.png")), np.where(sets >> c & 1, 255, 0))
    assert "; .. is in __; a/c is in a_c-2; a-overlay.png is in a-overlay_png; " in capsys.readouterr().out
    assert (out / "predictions.csv").read_text().splitlines()[1].split(",")[1] == "__/a.png"


def test_every_class_has_a_folder_of_its_own():
    names = (
        "road",
        "a\nb\x1b\u202e",
        "",
        " ",
        ".",
        "é",
        "e\u0301",
        "C:\\x",
        "\ud800",
        "Road",
        "road-2",
        "ß" * 99,
        "v1.5",
    )
    folders = outputs.class_folders(names)
    want = ("road", "a_b__", "class", "class-2", "_", "é", "é-2", "C__x", "_-2", "Road-3", "road-2", "ß" * 40, "v1_5")
    assert folders == want and len({folder.casefold() for folder in folders}) == len(names)


def test_export_gives_the_sets(run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from jaxseg.export import export_run

    export_run(run, tmp_path / "net.onnx", probabilities=True)
    image = make_source(run.config, "val")[2]["image"]
    found = runtime.InferenceSession(tmp_path / "net.onnx").run(["classes", "probabilities"], {"image": image[None]})
    want = run.predict(image, probabilities=True)
    np.testing.assert_array_equal(found[0][0], want.classes)
    np.testing.assert_allclose(found[1][0], want.probabilities, atol=1e-5)
    assert found[0].dtype == np.uint8
    exported = export_run(run, tmp_path / "net.stablehlo")
    with zipfile.ZipFile(exported.path) as archive:
        program = export.deserialize(bytearray(archive.read("program")))
    np.testing.assert_array_equal(program.call(image[None])[0][0], want.classes)
    assert exported.about["multilabel"] is True


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss__terms": "cross_entropy"}, "cross_entropy is for pixels of one class.*binary_cross_entropy"),
        ({"model__num_classes": 1}, "is for 2 to 31 classes"),
        ({"data__multilabel": "folders"}, r"data\.source=folder \(or shapes with bits\), got data\.source=shapes"),
        ({"loss__class_weights": "median_frequency"}, "give a number for each class"),
        ({"data__unknown": "class"}, r"needs data\.multilabel=folders, got data\.multilabel='bits'"),
        ({"data__sampling": "rare"}, r"data\.sampling=rare takes each pixel for one of one class"),
        ({"data__weaken": "points"}, r"data\.weaken takes"),
        ({"augment__crop": (8, 8), "augment__crop_balanced": 0.5}, r"augment\.crop_balanced takes"),
        ({"model__crf": "deeplab-v1"}, r"model\.crf takes"),
        ({"adversarial__weight": 0.1}, r"adversarial\.weight takes"),
        ({"model__name": "mask2former", "model__args": {}}, r"model\.name=mask2former takes"),
        ({"model__name": "knet", "model__args": {}}, r"model\.name=knet takes"),
    ],
)
def test_what_is_refused_before_anything_runs(keys, message):
    with pytest.raises(ConfigError, match=message):
        check(tiny_config(**(SETS | keys)), before_training=True)


def test_what_a_trained_run_refuses(run, tmp_path, capsys):
    from jaxseg.audit import audit
    from jaxseg.explain import explain

    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture)
    several = "was trained with data.multilabel=bits, where a pixel may have several or none"
    workdir = ["--workdir", str(run.workdir)]
    given = [["--regions"], ["--uncertainty", "entropy"], ["--top-k", "2"], ["--values", "masks"], ["--crf"]]
    for options in [*given, ["--format", "color"], ["--temperature"]]:
        assert predict.main([*workdir, str(picture), "--out", str(tmp_path / "out"), *options]) == 1
        assert several in capsys.readouterr().err or options == ["--temperature"], options
    assert not (tmp_path / "out").exists()
    for options in (["--boundary"], ["--objects"], ["--crf"], ["--fit-temperature"]):
        assert evaluate.main([*workdir, *options]) == 1
        assert f"{options[0]} takes each pixel" in capsys.readouterr().err
    for function in (lambda: audit([run]), lambda: explain(run, picture), lambda: run.evaluate("val", boundary=True)):
        with pytest.raises(ConfigError, match=several):
            function()
    own, copy = str(run.workdir), shutil.copytree(run.workdir, tmp_path / "copy")
    for command, words in ((report_main, [own]), (compare.main, [own, str(copy)])):
        assert command(words) == 1 and "A report takes each pixel for one of one class" in capsys.readouterr().err
    bits = ["--config.data.multilabel=bits", "--config.loss.terms=dice", "--out", str(tmp_path / "plan.py")]
    assert plan_main([str(make_folder(tmp_path / "data", [(16, 16)])), *bits]) == 1
    assert "jaxseg plan counts pixels of one class" in capsys.readouterr().err
    other = jaxseg.load(make_run(tmp_path / "other", tiny_config(loss__terms="binary_cross_entropy", log__images=0)))
    call = ["--workdir", str(other.workdir), str(picture), "--out", str(tmp_path / "out"), "--format", "folders"]
    assert predict.main(call) == 1 and "--format folders writes a picture for each class" in capsys.readouterr().err


def test_the_last_message_names_no_command_that_refuses_the_run(run):
    lines = closing_message(run.config, run.workdir)
    assert "evaluate" in lines and "predict" in lines and "report" not in lines


def test_how_files_and_masks_are_read_makes_other_predictions(run):
    options = argparse.Namespace(**dict.fromkeys((*options_module._OF_CLASSES, *options_module._OF_FILES)))
    found = set()
    for keys in ({}, {"data__range": (0.0, 100.0)}, {"data__range": (0.0, 10.0)}, {"data__multilabel": ""}):
        config = run.config.copy_and_resolve_references()
        update(config, **keys)
        other = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=config))
        found.add(options_module.identity_of([other], options))
    assert len(found) == 4


def test_a_quantised_run_has_the_sets_of_the_rounded_network(run, tmp_path):
    quantise_run(run, tmp_path / "small", activations=8, images=2)
    small, source = jaxseg.load(tmp_path / "small"), make_source(run.config, "val")
    found = [small.predict(source[i]["image"], probabilities=True) for i in range(len(source))]
    sets, p = (np.stack(each) for each in zip(*((one.classes, one.probabilities) for one in found)))
    np.testing.assert_array_equal(sets, ((p > 0.5) << np.arange(K)).sum(-1))
    truth = np.stack([source[i]["label"] for i in range(len(source))])
    np.testing.assert_array_equal(small.evaluate("val").confusion, metrics.set_counts(sets, truth, K))
    whole = np.stack([run.predict(source[i]["image"]).classes for i in range(len(source))])
    assert 0.95 < np.mean(sets == whole) < 1 and small.config.data.multilabel == "bits"


def test_a_shrunk_run_keeps_the_channels_that_matter_to_the_sets(run, tmp_path):
    source = make_source(run.config, "train")
    batch = {name: np.stack([source[i][name] for i in range(2)]) for name in ("image", "label")}
    [gradient] = shrinking.gradients_of(run.parts, run.variables, [batch])
    logits = np.asarray(run.model.apply(run.variables, run.parts.prepare(batch["image"]), train=False)[0])
    step = 0.02 * np.eye(K, dtype=np.float32)
    ends = [[run.parts.loss(logits + sign * row, batch["label"].astype(np.int32)) for row in step] for sign in (1, -1)]
    slopes = (np.array(ends[0]) - np.array(ends[1])) / 0.04  # the bias of the last layer is added to the logits
    np.testing.assert_allclose(gradient["head"]["bias"], slopes, rtol=0.02, atol=1e-4)
    call = ["--workdir", str(run.workdir), "--out", str(tmp_path / "small"), "--channels", ".5"]
    assert shrink.main([*call, "--criterion", "taylor", "--batches", "1"]) == 0
    small, image = jaxseg.load(tmp_path / "small"), source[0]["image"]
    assert small.config.model.args.hidden == TINY["hidden"] // 2
    found = small.predict(image, probabilities=True)
    np.testing.assert_array_equal(found.classes, ((found.probabilities > 0.5) << np.arange(K)).sum(-1))


def test_numbers_weigh_the_classes(run):
    config = tiny_config(**SETS, loss__class_weights="1,0,0,0,2")
    weights = class_weights(config, K, make_source(config, "train"))
    loss = build.build_parts(config, K, weights).loss
    assert loss.class_weights == (1.0, 0.0, 0.0, 0.0, 2.0) and loss.multilabel
    with pytest.raises(ConfigError, match="has 2 numbers, but there are 5 classes"):
        class_weights(tiny_config(**SETS, loss__class_weights="1,2"), K, make_source(config, "train"))
    with pytest.raises(ArgumentError, match="2 to 31"):
        losses.make_loss("dice", num_classes=40, multilabel=True)

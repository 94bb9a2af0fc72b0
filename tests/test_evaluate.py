"""Scoring a split: against NumPy, against single predictions, and the command line with everything users get wrong."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers.tiny_run import TINY, make_folder, make_run, tiny_config
from PIL import Image

from jaxseg import metrics, parallel, pictures, train
from jaxseg.build import build_parts
from jaxseg.config import update
from jaxseg.data import make_eval_loader, make_source, notes
from jaxseg.errors import ArgumentError, CheckpointError, ConfigError, DataError
from jaxseg.evaluate import _changed, main
from jaxseg.inference import evaluate, load_run, make_segmenter, score, surface
from jaxseg.run.load import require_same_parameters
from jaxseg.step import make_eval_step
from jaxseg.types import IGNORE

SIZES = [(20, 12), (9, 31), (20, 12), (1, 1), (16, 16), (33, 47)]


def count(truth, prediction, k):
    """The confusion matrix by definition."""
    valid = truth != IGNORE
    return np.bincount(truth[valid].astype(np.int64) * k + prediction[valid], minlength=k * k).reshape(k, k)


@pytest.fixture(scope="module")
def shapes_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "shapes", tiny_config(), {10: 0.9, 20: 0.4, 30: None})


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """A run on a folder whose val split has images of many sizes."""
    data = make_folder(tmp_path_factory.mktemp("data") / "mine", SIZES)
    make_folder(data, [(16, 16)], split="train")
    config = tiny_config(data__source="folder", data__dir=str(data), data__size=(16, 24))
    return make_run(tmp_path_factory.mktemp("runs") / "folder", config)


def test_the_score_is_that_of_all_pixels_of_the_split(shapes_run):
    run = load_run(shapes_run)
    result = evaluate(run, "val")
    source, logits, labels = make_source(run.config, "val"), [], []
    for i in range(len(source)):
        image = run.parts.prepare(source[i]["image"][None])
        logits.append(run.model.apply(run.variables, image, train=False)[0])
        labels.append(source[i]["label"][None])
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    expected = count(labels, logits.argmax(-1), len(run.classes))
    assert (expected.sum(0) > 0).sum() > 1, "the fixture should predict several classes"
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.confusion.dtype == np.int64
    assert result.images == 5
    z = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    picked = np.take_along_axis(z, labels[..., None].astype(int), -1)[..., 0] - np.log(np.exp(z).sum(-1))
    assert result.loss == pytest.approx(-picked.mean(), rel=1e-5)


@pytest.mark.parametrize(("fit", "multiple"), [("resize", 1), ("crop", 1), ("crop", 8)])
def test_evaluation_scores_what_prediction_gives_at_every_native_size(folder_run, tmp_path, fit, multiple):
    config = load_run(folder_run).config.copy_and_resolve_references()
    config.data.fit, config.eval.multiple = fit, multiple
    run = load_run(make_run(tmp_path / "run", config))
    source, segment = make_source(run.config, "val"), make_segmenter(run.parts)
    examples = [source[i] for i in range(len(source))]
    expected = sum(count(e["label"], segment(run.variables, e["image"]).classes, 3) for e in examples)
    result = evaluate(run, "val")
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.confusion.sum() == sum(h * w for h, w in SIZES) - (len(SIZES) - 1)
    assert result.images == len(SIZES)


def test_intervals_are_those_of_the_matrices_of_single_images(folder_run, tmp_path, capsys):
    """Of images of several sizes in batches that are ordered by size, and of one without a labelled pixel."""
    workdir = tmp_path / "run"
    shutil.copytree(folder_run, workdir)
    run = load_run(workdir)
    source, segment = make_source(run.config, "val"), make_segmenter(run.parts)
    examples = [source[i] for i in range(len(source))]
    matrices = [count(e["label"], segment(run.variables, e["image"]).classes, 3) for e in examples]
    result = evaluate(run, "val")
    for ours, wanted in zip(result.counts, metrics.image_counts(np.stack(matrices))):
        np.testing.assert_array_equal(ours, wanted)
    expected = metrics.bootstrap_interval(np.stack(matrices))
    several = np.append(metrics.image_counts(np.stack(matrices)).images_of() > 1, True)
    np.testing.assert_array_equal(result.interval.low, np.where(several, expected.low, np.nan))
    assert main(["--workdir", str(workdir)]) == 0
    printed, report = capsys.readouterr().out, json.loads((workdir / "evaluate-val.json").read_text())["intervals"]
    low, high = 100 * expected.low[-1], 100 * expected.high[-1]
    words = f"95% interval of the mIoU {low:.2f} to {high:.2f} % (2000 bootstrap draws of 5 images; of so few"
    assert words in printed  # one of the six has no labelled pixel
    assert f"{low:.2f} to {high:.2f} |" in printed and " 95% interval |" in printed
    assert report["mean_iou"] == [expected.low[-1], expected.high[-1]] and report["draws"] == 2000
    for i, name in enumerate(run.classes):
        known = several[i] and not np.isnan(expected.low[i])
        assert report["iou"][name] == ([expected.low[i], expected.high[i]] if known else [None, None])


def test_both_strategies_and_every_batch_size_give_one_score(folder_run):
    run = load_run(folder_run)
    source, loss = make_source(run.config, "val"), run.parts.loss
    results = []
    for name, batch_size in (("jit", 8), ("pmap", 8), ("jit", 16)):
        strategy = parallel.make_strategy(name, {"eval.batch_size": batch_size})
        axis = strategy.axis_name
        step = make_eval_step(run.model, loss, prepare=run.parts.prepare, axis_name=axis)
        loader = make_eval_loader(source, batch_size=batch_size, size=(16, 24), fit="resize")
        seen = []
        state = strategy.put_state(run.state)
        compiled = strategy.compile_eval(step)
        results.append(score(compiled, state, loader, loss=loss, strategy=strategy, progress=seen.append))
        assert sum(seen) == len(source)
    for other in results[1:]:
        np.testing.assert_array_equal(other.confusion, results[0].confusion)
        assert other.loss == pytest.approx(results[0].loss, rel=1e-6)


@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_evaluation_repeats_the_numbers_of_training_to_the_last_digit(tmp_path, strategy):
    config = tiny_config(strategy=strategy, loss__terms="cross_entropy + dice", loss__class_weights="median_frequency")
    update(config, steps=2, batch_size=8, eval__batch_size=8, ema__decay=0.5, augment__crop=(12, 8), log__images=1)
    trained = train.train(config, tmp_path / "run", "tiny.py")
    run = load_run(tmp_path / "run", "last")
    result = evaluate(run, "val")
    assert run.step == 2 and len(run.class_weights) == len(run.classes)
    np.testing.assert_array_equal(result.confusion, trained.confusion)
    assert result.loss == pytest.approx(trained.loss, rel=1e-6)


def test_scoring_nothing_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        score(None, None, [], loss=None, strategy=None)


def test_a_batch_without_memory_says_what_to_change(shapes_run, capsys, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("jaxseg.inference.score_batches.score", fail)
    assert main(["--workdir", str(shapes_run)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "error: A batch of the evaluation does not fit into the device's memory: give a smaller eval.batch_size."
    )


def test_the_command_prints_the_table_and_writes_json_and_picture(shapes_run, capsys, drawn):
    assert main(["--workdir", str(shapes_run), "--split", "test"]) == 0
    out = capsys.readouterr().out
    report = json.loads((shapes_run / "evaluate-test.json").read_text())
    for word in ("evaluate-test.json", "confusion-test.png", "5 images"):
        assert word in out
    assert all(c["name"] in out for c in report["classes"])
    assert report["split"] == "test" and report["which"] == "best" and report["step"] == 10
    matrix = np.array(report["confusion"])
    iou = np.diag(matrix) / np.maximum(matrix.sum(0) + matrix.sum(1) - np.diag(matrix), 1)
    present = (matrix.sum(0) + matrix.sum(1)) > 0
    assert report["mean_iou"] == pytest.approx(iou[present].mean())
    assert report["images"] == 5 and report["loss"] > 0 and report["versions"]["jax"] == jax.__version__
    assert report["config"]["model"]["name"] == "cnn"
    assert Image.open(shapes_run / "confusion-test.png").size[0] > 100


def test_the_table_is_printed_where_nothing_can_be_written(shapes_run, capsys, monkeypatch):
    monkeypatch.setattr(pictures, "confusion_picture", lambda *_: 1 / 0)
    assert main(["--workdir", str(shapes_run)]) == 0
    said = capsys.readouterr()
    assert "confusion-val.png cannot be drawn: division by zero." in said.err
    assert "evaluate-val.json" in said.out and "confusion-val.png" not in said.out
    file = shapes_run / "evaluate-val.json"
    file.unlink()
    file.mkdir()
    assert main(["--workdir", str(shapes_run)]) == 1
    said = capsys.readouterr()
    file.rmdir()
    assert "| mean" in said.out and said.err.count("error:") == 1
    assert "evaluate-val.json cannot be written: Is a directory." in said.err


@pytest.mark.parametrize("name", ["evaluate-val.json", "confusion-val.png"])
def test_a_report_replaces_no_file_of_someone_else(shapes_run, capsys, name):
    file = shapes_run / name
    kept = file.read_bytes() if file.exists() else None
    file.write_bytes(b"[1, 2]")
    assert main(["--workdir", str(shapes_run)]) == 1
    assert f"{file} would replace a file that jaxseg did not write; move it" in capsys.readouterr().err
    assert file.read_bytes() == b"[1, 2]"
    file.unlink()
    if kept is not None:
        file.write_bytes(kept)


@pytest.mark.parametrize(("which", "step"), [("best", 10), ("last", 30)])
def test_which_checkpoint(shapes_run, which, step):
    run = load_run(shapes_run, which)
    assert (run.step, run.which) == (step, which)


def test_best_is_the_last_where_nothing_was_evaluated(tmp_path):
    assert load_run(make_run(tmp_path / "run", tiny_config(), {5: None, 7: None})).step == 7


def test_the_moving_average_is_what_is_scored(tmp_path):
    run = load_run(make_run(tmp_path / "run", tiny_config(ema__decay=0.9)))
    assert run.variables["params"] is run.state.ema_params
    first, second = jax.tree.leaves(run.state.params)[0], jax.tree.leaves(run.state.ema_params)[0]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("which", ["bset", "latest"])
def test_unknown_checkpoint_name(shapes_run, which):
    with pytest.raises(ArgumentError, match="which must be one of 'best', 'last'"):
        load_run(shapes_run, which)


def test_moved_data(folder_run, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(load_run(folder_run).config.data.dir, moved)
    run = load_run(folder_run, overrides=[f"--config.data.dir={moved}", "--config.eval.batch_size=2"])
    assert run.config.data.dir == str(moved)
    assert evaluate(run, "val").images == len(SIZES)
    assert main(["--workdir", str(folder_run), "--config.data.dir", str(tmp_path / "gone")]) == 1
    assert str(tmp_path / "gone") in capsys.readouterr().err


def test_any_split_that_a_folder_has(folder_run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(load_run(folder_run).config.data.dir, data)
    make_folder(data, [(8, 8)] * 3, split="night")
    arguments = ["--workdir", str(folder_run), f"--config.data.dir={data}", "--split"]
    assert main([*arguments, "night"]) == 0
    assert "3 images" in capsys.readouterr().out
    assert main([*arguments, "nihgt"]) == 1
    assert "'nihgt'" in (error := capsys.readouterr().err) and "night" in error


def test_a_damaged_image_is_named(folder_run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(load_run(folder_run).config.data.dir, data)
    path = data / "val" / "images" / "5.png"
    path.write_bytes(path.read_bytes()[:-2000])
    assert main(["--workdir", str(folder_run), f"--config.data.dir={data}"]) == 1
    error = capsys.readouterr().err
    assert str(path) in error and "error: " in error and "Traceback" not in error


def test_data_with_other_classes_is_refused(folder_run, tmp_path):
    data = make_folder(tmp_path / "five", [(16, 16)], classes=5)
    names = [{"index": i, "name": name, "colour": [i, 0, 0]} for i, name in enumerate("abcde")]
    (data / "classes.json").write_text(json.dumps({"classes": names}))
    run = load_run(folder_run, overrides=[f"--config.data.dir={data}"])
    with pytest.raises((DataError, ConfigError), match="classes"):
        evaluate(run, "val")


def test_a_split_without_labelled_pixels_has_no_score(folder_run, tmp_path, capsys):
    data = make_folder(tmp_path / "void", [(16, 16)])
    make_folder(data, [(16, 16)], split="train")
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(data / "val" / "masks" / "0.png")
    workdir = tmp_path / "run"
    shutil.copytree(folder_run, workdir)
    notes.log_once.cache_clear()
    assert main(["--workdir", str(workdir), f"--config.data.dir={data}"]) == 0
    said = capsys.readouterr()
    assert "\n1 image\nThe split has no labelled pixel, so there is nothing to score." in said.out
    assert "nan" not in said.out
    assert "Every pixel of 1 mask of val, all that were read now, is ignored" in said.err
    report = json.loads((workdir / "evaluate-val.json").read_text())
    assert report["mean_iou"] is None and report["loss"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "tset"], ["no split 'tset'", "'test'"]),
        (["--split", "validation"], ["no split 'validation'", "test, train, val"]),
        (["--config.model.name=unet"], ["model.name", "cannot be changed", "data.dir"]),
        (["--config.model.args.hidden=3"], ["model.args.hidden", "cannot be changed"]),
        (["--config.data.size=8,8"], ["data.size", "cannot be changed"]),
        (["--config.data.dri=x"], ["data.dri", "'data.dir'"]),
        (["--config.data.workers=many"], ["data.workers", "whole number"]),
    ],
)
def test_wrong_arguments_are_one_sentence(shapes_run, capsys, arguments, words):
    assert main(["--workdir", str(shapes_run), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words)


def test_workdir_that_is_none(shapes_run, tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist.*Did you mean .*shapes"):
        load_run(shapes_run.parent / "shaeps")
    with pytest.raises(ConfigError, match="does not exist"):
        load_run(tmp_path / "nothing" / "here")
    with pytest.raises(ConfigError, match=r"holds no run"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_run(tmp_path)


def test_boundaries_and_calibration_are_those_of_single_predictions(folder_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(folder_run, workdir)
    run = load_run(workdir)
    assert main(["--workdir", str(workdir)]) == 0
    assert "boundary" not in json.loads((workdir / "evaluate-val.json").read_text())
    assert "calibration error" in (printed := capsys.readouterr().out) and "boundary F1" not in printed
    assert main(["--workdir", str(workdir), "--boundary", "2"]) == 0
    assert "| boundary F1" in capsys.readouterr().out
    report = json.loads((workdir / "evaluate-val.json").read_text())

    source, segment = make_source(run.config, "val"), make_segmenter(run.parts)
    sums = []
    for i in range(len(source)):
        label = source[i]["label"]
        prediction = segment(run.variables, source[i]["image"]).classes
        sums.append(surface.surface_sums(prediction, label, run.num_classes, tolerance=2.0))
    expected = surface.surface_scores(jax.tree.map(lambda *each: sum(each), *sums))
    for i, row in enumerate(report["boundary"]["classes"]):
        assert row["images"] == expected.images[i]
        for name in ("boundary_f1", "surface_dice", "hausdorff_95", "surface_distance"):
            np.testing.assert_allclose(np.nan if row[name] is None else row[name], getattr(expected, name)[i])
    counts = [row["count"] for row in report["calibration"]["bins"]]
    assert sum(counts) == np.sum(report["confusion"]) and 0 <= report["calibration"]["error"] <= 1
    right = sum(row["count"] * (row["accuracy"] or 0) for row in report["calibration"]["bins"])
    assert right == pytest.approx(np.trace(report["confusion"]))
    for wrong in ("-1", "near"):
        with pytest.raises(SystemExit):
            main(["--workdir", str(workdir), "--boundary", wrong])


def test_a_run_with_one_sigmoid_a_class_is_read_so(tmp_path):
    config = tiny_config(loss__terms="0.5 * dice + binary_cross_entropy")
    run = load_run(make_run(tmp_path / "run", config))
    source, segment = make_source(run.config, "val"), make_segmenter(run.parts)
    images = [source[i] for i in range(len(source))]
    results = [segment(run.variables, each["image"], probabilities=True) for each in images]
    logits = [run.model.apply(run.variables, run.parts.prepare(e["image"][None]), train=False)[0][0] for e in images]
    p = np.stack([result.probabilities for result in results])
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-np.stack(logits, dtype=np.float64))), atol=1e-4)
    assert np.abs(p.sum(-1) - 1).max() > 0.1
    right = np.stack([e["label"] for e in images]) == p.argmax(-1)
    place = np.ceil(15 * p.max(-1)).astype(int) - 1
    gaps = [abs(right[place == m].sum() - p.max(-1)[place == m].sum()) for m in range(15)]
    assert evaluate(run, "val").calibration.error == pytest.approx(sum(gaps) / right.size, rel=1e-4)


def test_a_network_is_scored_at_another_output_stride(tmp_path):
    encoder = {"channels": (4, 8, 8), "depths": (1, 1, 1), "output_stride": 4}
    config = tiny_config(
        model__name="deeplabv1", model__args={"encoder": "vgg11", "hidden": 8, "encoder_args": encoder}
    )
    workdir = make_run(tmp_path / "run", config)
    word = "--config.model.args.encoder_args.output_stride"
    coarse, fine = load_run(workdir), load_run(workdir, overrides=[f"{word}=2"])
    jax.tree.map(np.testing.assert_array_equal, fine.state.params, coarse.state.params)
    stages = [
        jax.eval_shape(run.model.apply, run.variables, np.zeros((1, 16, 16, 3), np.float32))[1]
        for run in (coarse, fine)
    ]
    deepest = max(name for name in stages[0] if name.startswith("encoder/"))
    assert [out[deepest].shape[1] for out in stages] == [4, 8]
    assert fine.config.model.args.encoder_args.output_stride == 2
    assert load_run(workdir, overrides=["--config.model.args.rate=3"]).model.rate == 3
    scored = _changed([f"{word}=2", "--config.eval.batch_size=2"])
    assert scored == "\nscored with model.args.encoder_args.output_stride=2, not as it was trained"
    assert not _changed(["--config.eval.batch_size=2"])
    with pytest.raises(ConfigError, match="output_stride must be one of 2, 4, 8, 16, 32"):
        load_run(workdir, overrides=[f"{word}=3"])
    with pytest.raises(ConfigError, match=r"model\.args\.hidden belongs to the trained run .* model\.args\.rates"):
        load_run(workdir, overrides=["--config.model.args.hidden=4"])


def test_another_number_of_atrous_rates_is_another_network():
    args = {"encoder": "vgg11", "encoder_args": {"channels": (4,), "depths": (1,)}, "hidden": 4, "rates": (1, 2)}
    stored = build_parts(tiny_config(model__name="deeplabv2", model__args=args), 3)
    for rates in ((2, 4), (2, 4, 6)):
        changed = build_parts(tiny_config(model__name="deeplabv2", model__args=args | {"rates": rates}), 3)
        if len(rates) == 2:
            require_same_parameters(stored, changed)
        else:
            with pytest.raises(ConfigError, match=r"only where the network keeps its parameters.*head/branch2"):
                require_same_parameters(stored, changed)


def test_run_without_checkpoint(shapes_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(shapes_run, workdir)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_run(workdir)
    assert not (workdir / "checkpoints").exists(), "looking must not make folders"
    (workdir / "data.json").write_text('{"classes": ["a"]}')
    with pytest.raises(ConfigError, match=r"data\.json is not a record that training wrote"):
        load_run(workdir)
    (workdir / "data.json").unlink()
    assert main(["--workdir", str(workdir)]) == 1
    assert "data.json" in capsys.readouterr().err


def test_checkpoint_of_another_model(shapes_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(shapes_run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["args"] = {**TINY, "hidden": 16}
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="hidden"):
        load_run(workdir)
    config["model"]["args"] = {"hiden": 16}
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="hidden"):
        load_run(workdir)

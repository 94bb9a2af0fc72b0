"""A run in whole numbers: its workdir, size and use, trained with few bits and resumed, and what is refused."""

import dataclasses
import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg import quantise
from jaxseg.build import build_parts
from jaxseg.config import update, validate
from jaxseg.data.sources import training_source
from jaxseg.errors import ArgumentError, CheckpointError, ConfigError
from jaxseg.export import export_run
from jaxseg.inference.evaluation import evaluate
from jaxseg.inference.quantised import calibrated, quantise_run
from jaxseg.nn.quantisation import RANGE, Quantisation, with_fake_kernels, without_quantised_inputs
from jaxseg.run.check import check
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.data import train_batches
from jaxseg.run.load import load_run
from jaxseg.run.quantised import is_quantised
from jaxseg.run.weights import plan_weights
from jaxseg.state import by_path
from jaxseg.train import train

WIDE = {"widths": (64,), "hidden": 256, "hidden_kernel": 3, "dropout": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A float32 run that was never trained."""
    return load_run(make_run(tmp_path_factory.mktemp("base") / "run", tiny_config(model__args=WIDE)))


@pytest.fixture(scope="module")
def small(base, tmp_path_factory):
    """Its workdir in whole numbers."""
    folder = tmp_path_factory.mktemp("small") / "run"
    return quantise_run(base, folder)


def test_the_workdir_holds_the_kernels_on_their_grid_in_a_quarter_of_the_bytes(base, small, tmp_path):
    run = load_run(small.workdir)
    assert (run.step, run.classes, run.config.quantise.weights) == (base.step, base.classes, 8)
    expected = with_fake_kernels(base.variables["params"], Quantisation(8))
    jax.tree.map(np.testing.assert_array_equal, run.variables["params"], expected)
    jax.tree.map(np.testing.assert_array_equal, run.variables["batch_stats"], base.variables["batch_stats"])
    assert small.kernels == len([path for path in by_path(expected) if path.endswith("kernel")])

    with Checkpoints(tmp_path / "float") as checkpoints:
        checkpoints.save(1, base.variables, wait=True)
    there = sum(file.stat().st_size for file in (tmp_path / "float").rglob("*") if file.is_file())
    here = sum(file.stat().st_size for file in (small.workdir / "checkpoints").rglob("*") if file.is_file())
    assert here == small.bytes and here <= 0.27 * there
    assert small.float_bytes == 4 * sum(leaf.size for leaf in jax.tree.leaves(base.variables))


def test_a_fresh_process_loads_and_uses_it(small):
    code = (
        "import sys, numpy as np, jaxseg; run = jaxseg.load(sys.argv[1]); "
        "print(run.predict(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).classes.tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(small.workdir)], capture_output=True, text=True, check=True)
    found = np.frombuffer(bytes.fromhex(done.stdout.split()[-1]), np.uint8)
    import jaxseg

    image = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    ours = np.asarray(jaxseg.load(small.workdir).predict(image).classes).reshape(-1)
    np.testing.assert_array_equal(found, ours)


@pytest.mark.parametrize("ranges", ["average", "min-max", "percentile"])
def test_ranges_are_those_of_the_images(base, ranges):
    found, count = calibrated(base, Quantisation(8, 8), split="val", images=3, ranges=ranges)
    assert count == 3
    first = next(value for path, value in by_path(found).items() if path.endswith(RANGE) and "hidden" not in path)
    from jaxseg.data import make_source

    source = make_source(base.config, "val")
    images = [np.asarray(base.parts.prepare(source[i]["image"][None])) for i in (0, 2, 4)]
    share = 0.9999 if ranges == "percentile" else 1.0
    spans = np.array([np.quantile(image, [(1 - share) / 2, (1 + share) / 2]) for image in images])
    expected = [spans[:, 0].min(), spans[:, 1].max()] if ranges == "min-max" else spans.mean(0)
    np.testing.assert_allclose(first, expected, rtol=1e-4)


def test_ranges_of_images_as_training_shows_them(base):
    """The first layer reads the augmented image: half as large crops, brighter."""
    config = base.config.copy_and_resolve_references()
    update(config, augment__crop=(8, 8), augment__brightness=0.5, augment__flip_horizontal=0.5, batch_size=2)
    run = dataclasses.replace(base, parts=build_parts(config, base.num_classes))
    found, count = calibrated(run, Quantisation(8, 8), images=3, shown="training")
    first = next(value for path, value in by_path(found).items() if path.endswith(RANGE) and "hidden" not in path)
    with train_batches(config, training_source(config)) as loader:
        batches = list(itertools.islice(loader, 2))
    pairs = [(image, label) for batch in batches for image, label in zip(batch["image"], batch["label"])][:3]
    keys = [jax.random.fold_in(jax.random.key(config.seed), i) for i in range(3)]
    seen = [run.parts.augment(key, image, label.astype(np.int32))[0] for key, (image, label) in zip(keys, pairs)]
    assert count == 3 and seen[0].shape == (8, 8, 3)
    expected = np.mean([(min(0, x.min()), max(0, x.max())) for x in map(np.asarray, seen)], axis=0)
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-6)
    whole, _ = calibrated(run, Quantisation(8, 8), images=3)
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(by_path(found).values(), by_path(whole).values()))


def test_what_the_ranges_follow_from_is_said_and_stored(base, tmp_path, capsys):
    command = ["--workdir", str(base.workdir), "--out", str(tmp_path / "out"), "--activations", "--calibrate", "2"]
    assert quantise.main([*command, "--shown", "training", "--ranges", "min-max"]) == 0
    said = "calibrated with 2 images of train, in the crops and colours of training (--shown training --ranges min-max)"
    assert f"activations: 8 bits, ranges {said}\n" in capsys.readouterr().out
    stored = json.loads((tmp_path / "out" / "quantised.json").read_text())["calibration"]
    assert stored == {"images": 2, "split": "train", "ranges": "min-max", "shown": "training"}


def config_of(**values):
    config = tiny_config(steps=4, batch_size=8, data__shapes_train=8, eval__every=2, checkpoint__every=2)
    update(config, log__every=1, log__images=0, log__tensorboard=False, ema__decay=0.9, eval__batch_size=8)
    update(config, model__args=WIDE | {"widths": (4,), "hidden": 4}, quantise__weights=8, quantise__activations=8)
    update(config, **values)
    return config


def exports_compute_what_the_run_does(run, folder):
    """StableHLO and ONNX of a run with learned ranges: its probabilities, and no others than those of its grid."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    seen = run.parts.prepare(image[None])
    expected, plain = (
        np.asarray(jax.nn.softmax(model.apply(run.variables, seen, train=False)[0]))[0]
        for model in (run.model, without_quantised_inputs(run.model))
    )
    assert np.abs(plain - expected).max() > 1e-4
    export_run(run, folder / "a.stablehlo", probabilities=True)
    with zipfile.ZipFile(folder / "a.stablehlo") as archive:
        program = jax.export.deserialize(bytearray(archive.read("program")))
    np.testing.assert_allclose(np.asarray(program.call(image[None])[1])[0], expected, atol=1e-5)
    if importlib.util.find_spec("onnxruntime") is None:
        return
    runtime = importlib.import_module("onnxruntime")
    export_run(run, folder / "a.onnx", probabilities=True, dtype="float32")
    found = runtime.InferenceSession(folder / "a.onnx").run(["probabilities"], {"image": image[None]})[0][0]
    # A value between two numbers of a grid may be rounded to the other one: a step of one activation of many.
    assert np.abs(found - expected).max() < 2e-3 and np.median(np.abs(found - expected)) < 1e-5


def test_a_run_trained_with_few_bits_resumes_and_keeps_what_it_learned(tmp_path, capsys):
    start = make_run(tmp_path / "start", tiny_config(model__args=WIDE | {"widths": (4,), "hidden": 4}))
    config = config_of(model__weights=str(start))
    result = train(config, tmp_path / "a", "again")
    stored = state_of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    train(config, tmp_path / "b", "again")
    assert_identical(state_of(tmp_path / "b"), stored)

    run = load_run(tmp_path / "a", "last")
    np.testing.assert_array_equal(evaluate(run, "val").confusion, result.confusion)
    capsys.readouterr()
    command = ["--workdir", str(tmp_path / "a"), "--out", str(tmp_path / "bytes"), "--which", "last"]
    assert quantise.main(command) == 0
    said = capsys.readouterr().out
    assert "activations: 8 bits, ranges learned in training" in said
    assert said.splitlines()[-2:] == [
        f"evaluate:    python -m jaxseg.evaluate --workdir {tmp_path / 'bytes'} --split val",
        f"predict:     python -m jaxseg.predict --workdir {tmp_path / 'bytes'} IMAGES... --out preds/",
    ]
    small = load_run(tmp_path / "bytes")
    ranges = {path: x for path, x in by_path(run.state.batch_stats).items() if path.endswith(RANGE)}
    assert ranges and all(x[0] < x[1] for x in ranges.values())
    for path, value in ranges.items():
        np.testing.assert_array_equal(by_path(small.state.batch_stats)[path], value)
    np.testing.assert_array_equal(evaluate(small, "val").confusion, result.confusion)
    exports_compute_what_the_run_does(run, tmp_path)
    # Its weights start another run, whose ranges are new.
    planned = plan_weights(build_parts(config_of(model__weights=str(tmp_path / "bytes")), 6))
    assert not [path for path in by_path(planned.variables) if path.endswith(RANGE)]

    assert quantise.main([*command[:3], str(tmp_path / "more"), "--weights", "4"]) == 1
    assert "The run was trained with quantise.weights=8, and weights=4 would lose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weights", "9"], "weights must be a whole number of bits from 2 to 8, got 9"),
        (
            ["--shown", "training", "--split", "val"],
            "Images shown as in training are those of the split train, not of val",
        ),
        (["--calibrate", "0"], "images must be a whole number of at least 1, got 0"),
        (["--config.dta.dir=x"], "dta.dir"),
    ],
)
def test_arguments_are_checked_before_the_run_is_loaded(tmp_path, capsys, words, sentence):
    """There is no run: its error would come later."""
    assert quantise.main(["--workdir", str(tmp_path / "no"), "--out", str(tmp_path / "x"), *words]) == 1
    assert sentence in capsys.readouterr().err


def test_what_is_refused(base, small, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"holds a quantised network, whose kernels are whole numbers: a quan"):
        quantise_run(load_run(small.workdir), tmp_path / "twice")
    with pytest.raises(ConfigError, match=r"whole numbers: training needs the run that it was made from, .*run\.$"):
        train(config_of(), small.workdir, "again")
    with pytest.raises(ConfigError, match=r"holds something already; give the name of a new workdir with --out"):
        quantise_run(base, base.workdir)
    with pytest.raises(ArgumentError, match=r"^weights must be a whole number of bits from 2 to 8, got 16"):
        quantise_run(base, tmp_path / "wide", weights=16)
    with pytest.raises(ConfigError, match=r"^quantise\.skip=nowhere is found in no path of a kernel"):
        quantise_run(base, tmp_path / "skip", skip=("nowhere",))
    assert quantise.main(["--workdir", str(base.workdir), "--out", str(tmp_path / "x"), "--activations", "1"]) == 1
    assert "error: activations must be a whole number of bits from 2 to 8, got 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    for values, message in (
        ({"quantise__weights": 9}, r"^quantise\.weights must be one of 0, 2, 3, 4, 5, 6, 7, 8, got 9"),
        ({"quantise__weights": 0}, r"^quantise\.activations=8 needs kernels of few bits too"),
        ({"quantise__skip": ("nowhere",)}, r"quantise\.skip=nowhere is found in no path"),
        ({"model__name": "dcgan", "model__args": {}}, r"quantise\.weights=8 is for networks that segment images"),
    ):
        with pytest.raises(ConfigError, match=message):
            config = config_of(**values)
            validate(config)
            check(config)

    broken = tmp_path / "broken"
    shutil.copytree(small.workdir, broken)
    (broken / "quantised.json").write_text("[]")
    assert is_quantised(broken)
    with pytest.raises(ConfigError, match=r"quantised\.json is no record of a quantised network"):
        train(config_of(), broken, "again")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config).replace('"widths": [64]', '"widths": [32]'))
    with pytest.raises(CheckpointError, match=r"belongs to another model"):
        load_run(broken)

"""Runs with fewer channels: the smaller workdir is one as any other, and weights of another width are refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers.tiny_run import TINY, make_run, tiny_config

from jaxseg.build import build_parts
from jaxseg.config import set_key
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.parallel import make_strategy
from jaxseg.run.load import load_run
from jaxseg.run.shrinking import shrink_run
from jaxseg.run.weights import initial_state, plan_weights
from jaxseg.shrink import main
from jaxseg.state import by_path
from jaxseg.train import train


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run with an average of its parameters, another encoder's rate and pruned weights, which the smaller has not."""
    config = tiny_config(
        ema__decay=0.9, optimizer__clip=1.0, schedule__warmup=3, steps=20, prune__sparsity=0.5, batch_size=4
    )
    return make_run(tmp_path_factory.mktemp("large") / "run", config)


@pytest.fixture(scope="module")
def small(large):
    out = large.parent / "small"
    words = ["--workdir", str(large), "--out", str(out), "--channels", ".5", "--criterion", "taylor", "--batches", "2"]
    assert main([*words, "--config.model.args.hidden=6"]) == 0
    return out


def test_the_smaller_run_is_a_run_as_any_other(large, small):
    run, before = load_run(small), load_run(large)
    args = run.config.model.args
    assert (args.widths, args.hidden, run.step, run.config.steps) == ((2,), 6, before.step, before.step)
    assert run.config.prune.sparsity == 0 and run.config.optimizer.clip == 0 and run.config.ema.decay == 0.9
    assert run.classes == before.classes and run.values == before.values
    fresh = jax.eval_shape(build_parts(run.config, run.num_classes).init, jax.random.key(0))
    shapes = {path: x.shape for path, x in by_path((fresh.params, fresh.batch_stats)).items()}
    assert {path: x.shape for path, x in by_path((run.state.params, run.state.batch_stats)).items()} == shapes
    first, theirs = (by_path(each.variables["params"])["head/bias"] for each in (run, before))
    np.testing.assert_array_equal(first, theirs)
    [start] = json.loads((small / "run.json").read_text())["starts"]
    [origin] = start["weights"]
    assert origin["source"] == str(large) and origin["notes"] == ["4 of 12 channels removed by taylor"]
    assert not list(small.parent.glob(".small*"))


def test_fine_tuning_starts_from_the_smaller_run(small):
    config = load_run(small).config
    config.model.weights = str(small)
    parts = build_parts(config, 6)
    state, [origin] = initial_state(parts, jax.random.key(3), plan_weights(parts))
    np.testing.assert_array_equal(
        by_path(state.params)["head/bias"], by_path(load_run(small).variables["params"])["head/bias"]
    )
    assert "best checkpoint, step 10" in origin.file


def test_weights_of_another_width_are_a_sentence_with_both_widths(large, small):
    for weights, args, there, here in (
        (small, TINY, r"\(2,\)", r"\(4,\)"),
        (large, TINY | {"widths": (2,)}, r"\(4,\)", r"\(2,\)"),
    ):
        config = tiny_config(model__weights=str(weights), model__args=args)
        with pytest.raises(
            ConfigError, match=rf"^model\.weights: the run in .*: .*widths is {there} there and {here} here"
        ):
            plan_weights(build_parts(config, 6))


def test_a_note_says_how_the_zeros_of_a_pruned_run_stay(large, small):
    note = "its zeros, a share 0.5 of its kernels, stay with prune.sparsity=0.5 prune.initial=0.5"
    assert note in plan_weights(build_parts(tiny_config(model__weights=str(large)), 6)).origin.notes
    config = load_run(small).config
    config.model.weights = str(small)
    assert plan_weights(build_parts(config, 6)).origin.notes == ()


def test_the_note_names_what_else_says_which_weights_are_zero(tmp_path):
    run = make_run(tmp_path / "run", tiny_config(prune__sparsity=0.5, prune__scope="global"))
    [note] = plan_weights(build_parts(tiny_config(model__weights=str(run)), 6)).origin.notes
    assert note.endswith("prune.sparsity=0.5 prune.initial=0.5 prune.scope=global")


def test_a_smaller_run_has_no_training_to_resume(small, tmp_path, monkeypatch):
    copy, config = shutil.copytree(small, tmp_path / "copy"), load_run(small).config
    monkeypatch.setattr("jaxseg.build.make_strategy", lambda config: make_strategy("jit", {}, jax.devices()[:1]))
    with pytest.raises(ConfigError, match=r"has made, and no training to resume; start a new run .*model\.weights="):
        train(config, copy, "again")


def test_what_cannot_be_shrunk_is_refused_and_leaves_nothing(large, small, capsys):
    run = load_run(large)
    for out, how, message in (
        (small, {"share": 0.5}, "holds something already; give the name of a new workdir"),
        ("new", {"share": 1.0}, r"^--channels must be a number above 0 and below 1, .*got 1"),
        ("new", {"share": 0.99}, r"^No field of the network cnn of .*all stay as they are"),
        ("new", {}, r"^Give the share of the channels to keep"),
        ("new", {"fields": {"widths": (9,)}}, r"cannot be shrunk: the smaller network must not have more channels"),
        ("new", {"fields": {"widths": (2, 2)}}, r"cannot be shrunk: the smaller network must have the layers"),
        ("new", {"fields": {"width": 2}}, r"^model: cnn\.width is not an argument.*widths"),
    ):
        with pytest.raises(ConfigError, match=message):
            shrink_run(run, large.parent / out, **how)
    with pytest.raises(ArgumentError, match="seed must be a whole number of at least 0, got -1"):
        shrink_run(run, large.parent / "new", share=0.5, criterion="random", seed=-1)
    set_key(run.config, "quantise.weights", 4)
    with pytest.raises(ConfigError, match=r"has kernels of 4 bits, .*shrink the run in float32 first"):
        shrink_run(run, large.parent / "new", share=0.5)
    assert not (large.parent / "new").exists()
    assert main(["--workdir", str(large / "no"), "--out", "x", "--channels", ".5"]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--channels", "1.5"], "--channels must be a number above 0 and below 1"),
        ([], "Give the share of the channels to keep"),
        (["--channels", ".5", "--batches", "0"], "batches must be a whole number of at least 1, got 0"),
        (["--channels", ".5", "--seed", "-1"], "seed must be a whole number of at least 0, got -1"),
        (["--channels", ".5", "--config.model.agrs.widths=(2,)"], "model.agrs"),
    ],
)
def test_arguments_are_checked_before_the_run_is_loaded(tmp_path, capsys, words, sentence):
    """There is no run: its error would come later."""
    assert main(["--workdir", str(tmp_path / "no"), "--out", str(tmp_path / "x"), *words]) == 1
    assert sentence in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").touch()
    assert main(["--workdir", str(tmp_path / "no"), "--out", str(tmp_path / "x"), "--channels", ".5"]) == 1
    assert "holds something already" in capsys.readouterr().err

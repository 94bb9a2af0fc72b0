"""What the training program refuses: each in one sentence, and without leaving a run."""

import errno
import json

import jax
import numpy as np
import pytest
from helpers.tiny_training import ROOT, arguments
from PIL import Image

from jaxseg.config import command, default_config, to_dict, update
from jaxseg.errors import ConfigError, OutOfMemoryError, is_out_of_memory, naming_lack_of_memory
from jaxseg.run.check import check
from jaxseg.run.data import class_weights
from jaxseg.train import main, train


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """Experiments are named from the root of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__name": "resnet"}, "There is no model 'resnet'. Did you mean 'resunet'?"),
        ({"model__args__width": "(1,2)"}, "Did you mean 'widths'"),
        ({"loss__terms": "cross_entropi"}, "Did you mean 'cross_entropy'"),
        ({"loss__class_weights": "median"}, "loss.class_weights must be"),
        (
            {"loss__aux_weights": (0.5, 0.25)},
            "(0.5, 0.25), but the model has 0 auxiliary outputs: give none, ().",
        ),
        ({"loss__aux_weights": (-1.0,)}, "loss.aux_weights must be a tuple of numbers of at least 0"),
        ({"loss__class_weights": "effective_number:1"}, "the number after the colon is beta, in [0, 1)"),
        ({"loss__class_weights": "effective_number:x"}, "got 'x'"),
        ({"loss__terms": "dice", "loss__logit_adjustment": 1.0}, "No term of the loss 'dice' takes logit_adjustment"),
        ({"data__shapes_imbalance": 0.5}, "data.shapes_imbalance must be a number of at least 1"),
        ({"data__sampling": "often"}, "data.sampling must be one of 'epochs', 'area', 'rare'"),
        ({"loss__class_weights": "1,2"}, "2 numbers, but there are 6 classes"),
        ({"optimizer__name": "adamv"}, "Did you mean 'adam"),
        ({"data__source": "shape"}, "Did you mean 'shapes'"),
        ({"data__source": "folder", "data__dir": "nowhere"}, "nowhere"),
        ({"data__classes": "a,b"}, "data.classes names 2 classes"),
        ({"model__num_classes": 3}, "model.num_classes is 3"),
        ({"batch_size": 12}, "batch_size is 12, which is not divisible by the number of devices, 8"),
        ({"eval__batch_size": 4}, "eval.batch_size"),
        ({"accumulate": 2}, "batch_size / accumulate"),
        ({"strategy": "xmap"}, "strategy must be one of 'jit', 'pmap', got 'xmap'"),
        ({"model__name": "attention_decoder", "model__args__num_heads": 5}, "num_heads 5 does not divide the width"),
        ({"experiment": "experiments/cnn.py", "model__args__hidden_kernel": 4}, "hidden_kernel must be odd"),
        (
            {"experiment": "experiments/cnn.py", "model__args__dropout": 1.5},
            "cnn.dropout must be a number in [0, 1], got 1.5",
        ),
        ({"model__args__norm": 3}, "norm must be the name of a norm"),
        ({"model__args__act": 3}, "There is no activation 3"),
        (
            {"experiment": "experiments/unet.py", "model__args__encoder": "residual", "model__args__padding": "valid"},
            "another encoder needs 'same'",
        ),
        (
            {"experiment": "experiments/unet.py", "model__args__encoder": "residual"},
            "widths (4, 6) are too few for an encoder of",
        ),
        ({"model__args__widths__x": 3}, "model.args.widths.x cannot be set"),
        ({"optimizer__args__b1": "foo"}, "optimizer.args.b1 must be a number in [0, 1), got 'foo'"),
        ({"optimizer__args__b1": 1.5}, "optimizer.args.b1 must be a number in [0, 1), got 1.5"),
        ({"optimizer__args__nesterov": "foo"}, "optimizer.args.nesterov must be True or False, got 'foo'"),
        ({"optimizer__args__mu_dtype": "foo"}, "mu_dtype"),
        ({"augment__brightness": 2.0}, "augment.brightness must be a number in [0, 1]"),
        ({"augment__zoom": "a,b"}, "augment.zoom must be (low, high)"),
        ({"data__classes": "0,1"}, "data.classes names 2 classes (0, 1)"),
        ({"seed": 2**70}, "seed must be a whole number in [0, 4294967295]"),
        ({"data__ignore": 70000}, "data.ignore must be a whole number in [-1, 65535]"),
    ],
    ids=str,
)
def test_wrong_input_is_one_sentence_and_leaves_no_run(tmp_path, capsys, change, message):
    assert main(arguments(tmp_path / "run", **change)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


FULL = (
    "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.",
    "INTERNAL: Failed to allocate 3 bytes for new constant",
    "INTERNAL: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "INTERNAL: hipErrorOutOfMemory",
    "INTERNAL: std::bad_alloc",
    "UNKNOWN: Not enough memory resources are available to process this command.",
    "Unable to allocate 5.00 GiB for an array",
)


@pytest.mark.parametrize("text", FULL)
def test_every_backends_words_for_a_full_memory_are_known(text, capsys):
    error = jax.errors.JaxRuntimeError(text)
    assert is_out_of_memory(error) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(ValueError("RESOURCE_EXHAUSTED: Out of memory"))  # of some calls of jaxlib
    with pytest.raises(OutOfMemoryError, match=r"A does not fit into the device.s memory: b\."):  # noqa: SIM117
        with naming_lack_of_memory("A", "b"):
            raise error

    def body():
        raise error

    assert command.run_command(body) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: There is too little memory") and text.rstrip(".") in said and said.count("\n") == 1


def test_other_errors_of_the_backend_stay_what_they_are():
    error = jax.errors.JaxRuntimeError("INTERNAL: something else")
    assert not is_out_of_memory(error) and not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(jax.errors.JaxRuntimeError), naming_lack_of_memory("A", "b"):
        raise error


def test_a_step_or_a_scoring_without_memory_says_what_to_change(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError(FULL[0])

    monkeypatch.setattr("jaxseg.session.score", fail)
    assert main(arguments(tmp_path / "run", steps=1, log__images=0, schedule__warmup=0)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: A training step or its evaluation does not fit into the device's memory: try accum")
    assert all(key in said for key in ("remat=true", "dtype=bfloat16", "eval.batch_size", "data.size"))


def test_median_frequencies_of_nothing_labelled(monkeypatch):
    nothing = np.zeros(2, np.int64)
    monkeypatch.setattr("jaxseg.run.data.pixel_counts", lambda source, reading: (nothing, nothing))
    config = command.load_experiment("experiments/resunet.py")
    update(config, loss__class_weights="median_frequency")
    with pytest.raises(ConfigError, match=r"loss\.class_weights=median_frequency: "):
        class_weights(config, 2, None)


def test_wrong_first_start_does_not_lock_the_workdir(tmp_path, capsys):
    assert (
        main(arguments(tmp_path / "run", optimizer__learning_rate=1e38, optimizer__name="sgd", schedule__warmup=0)) == 1
    )
    assert main(arguments(tmp_path / "run")) == 0


@pytest.mark.slow  # tests/test_workdir.py holds the refusal itself
def test_resuming_on_data_with_other_classes_is_refused(tmp_path, capsys):
    def folder(name, classes):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        listed = [{"index": i, "name": n, "colour": [i, i, i]} for i, n in enumerate(classes)]
        (tmp_path / name / "classes.json").write_text(json.dumps({"classes": listed}))
        for i in range(10):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / name / "images" / f"{i}.png")
            Image.new("L", (16, 16), i % 2).save(tmp_path / name / "masks" / f"{i}.png")
        return str(tmp_path / name)

    changes = {"data__source": "folder", "steps": 2}
    assert main(arguments(tmp_path / "run", data__dir=folder("a", ["sky", "road"]), **changes)) == 0
    capsys.readouterr()
    assert main(arguments(tmp_path / "run", data__dir=folder("b", ["cat", "dog"]), **changes)) == 1
    error = capsys.readouterr().err
    assert "sky" in error and "dog" in error
    assert "sky" in (tmp_path / "run" / "data.json").read_text()


def test_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(arguments(tmp_path / "file" / "run")) == 1
    assert f"The workdir {tmp_path / 'file' / 'run'} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "fits"), [({}, False), ({"norm": "group"}, True), ({"blocks": 1}, False)])
def test_batch_norm_of_a_single_value_is_refused_before_anything_compiles(monkeypatch, changes, fits):
    monkeypatch.setattr("jaxseg.run.check.make_strategy", lambda config: None)  # which is for eight devices here
    config = command.load_experiment("experiments/resunet.py")
    update(config, batch_size=2, accumulate=2, data__size=(4, 4), model__args={"widths": (4, 6, 8), **changes})
    if fits:
        check(config)
        return
    with pytest.raises(
        ConfigError, match=r"^the training step: The batch norm .* give norm=group, a larger data\.size"
    ):
        check(config)
    update(config, accumulate=1)
    check(config)


def test_a_resumed_run_reads_the_images_of_its_own_division(tmp_path, monkeypatch):
    """A run of form 2, from before data.division, resumed by the same command."""
    seen = []

    def load(config):
        seen.append(config.data.division)
        raise ConfigError("far enough")

    monkeypatch.setattr("jaxseg.train.load_problem", load)
    config = default_config()
    update(config, data__source="folder")
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    for form in (2, 3):
        stored = to_dict(config) | {"format": form}
        if form == 2:
            del stored["data"]["division"]
        (tmp_path / "config.json").write_text(json.dumps(stored))
        with pytest.raises(ConfigError, match="far enough"):
            train(config, tmp_path, "resume")
    assert seen == ["former", "stable"]


def test_means_of_0_to_255_are_refused_in_a_new_run_and_kept_in_a_resumed_one(tmp_path, monkeypatch, capsys):
    def load(config):
        raise ConfigError(f"resumed with {config.data.mean}")

    monkeypatch.setattr("jaxseg.train.load_problem", load)
    words = [*arguments(tmp_path / "run"), "--config.data.mean=(123.0,)"]
    assert main(words) == 1
    assert "data.mean has 123, but images are in [0, 1]" in capsys.readouterr().err
    (tmp_path / "run" / "checkpoints" / "10").mkdir(parents=True)
    config = default_config()
    update(config, data__mean=(123.0,))
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(config)))
    assert main(words) == 1
    assert "resumed with (123.0,)" in capsys.readouterr().err

"""Training that starts from the weights of a file, a run or a repository, and the errors if it cannot."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.fake_hub import fake_hub
from helpers.tiny_run import make_run, tiny_config, tiny_state
from helpers.tiny_training import arguments, assert_identical, state_of
from helpers.tiny_weights import ENCODED, assert_equal, network, save
from safetensors.numpy import save_file

from jaxseg import build, models, pretrained
from jaxseg.build import build_parts
from jaxseg.config import update
from jaxseg.errors import ConfigError, WeightsError
from jaxseg.run import load, snapshot
from jaxseg.run.weights import find_weights, initial_state, plan_weights
from jaxseg.train import main

UNET = {
    "experiment": "experiments/unet.py",
    "model__args__encoder": "residual",
    "model__args__encoder_args": {"widths": (4, 6, 8)},
}


def start(workdir, **changes):
    return main(arguments(workdir, **({**UNET, "log__images": 0} | changes)))


def test_a_run_starts_from_a_file_says_so_and_resumes_without_it(tmp_path, capsys):
    _, theirs = network(num_classes=6, seed=7)
    file = tmp_path / "x.npz"
    save(file, theirs)
    changes = {"model__encoder_weights": str(file), "optimizer__encoder_rate": 0.0}
    # Without optimisation the average of two equal numbers may differ from them in the last bit.
    changes["compile__options__xla_backend_optimization_level"] = 1
    assert start(tmp_path / "a", **changes) == 0
    out = "".join(capsys.readouterr())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"model.encoder_weights: {file}; SHA-256 {sha256[:12]}; took the encoder out of the network" in out
    [first] = json.loads((tmp_path / "a" / "run.json").read_text())["starts"]
    [origin] = first["weights"]
    assert (origin["key"], origin["source"], origin["sha256"]) == ("model.encoder_weights", str(file), sha256)
    assert origin["commit"] is None
    state = state_of(tmp_path / "a")
    frozen = pretrained.flatten({"params": theirs["params"]})
    for name, x in frozen.items():  # a frozen encoder keeps the file's values, the other parameters change
        assert np.array_equal(state[name], x) == ("/encoder/" in name), name
        if "/encoder/" in name:
            np.testing.assert_array_equal(state[name.replace("params", "ema_params", 1)], x)

    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "6")
    file.unlink()
    assert start(tmp_path / "b", **changes) == 0
    assert "resuming after step" in "".join(capsys.readouterr())
    assert_identical(state, state_of(tmp_path / "b"))
    starts = json.loads((tmp_path / "b" / "run.json").read_text())["starts"]
    assert starts[0]["weights"] and starts[-1]["weights"] == []

    assert start(tmp_path / "c", **changes) == 1  # a new run needs the file
    assert f"model.encoder_weights: There is no file of weights '{file}'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def initial(config, num_classes):
    """Returns the initial state of a new run of `config`, and the origins of its weights."""
    parts = build_parts(config, num_classes)
    return initial_state(parts, jax.random.key(0), plan_weights(parts))


def test_a_run_starts_from_another_run(tmp_path):
    config = tiny_config(model__name="unet", model__args=ENCODED, ema__decay=0.9)
    make_run(tmp_path / "a", config, {10: 0.5, 20: 0.4})
    theirs = tiny_state(config, 6, seed=10)
    with pytest.raises(ConfigError, match="holds no run"):
        (tmp_path / "empty").mkdir()
        initial(tiny_config(model__weights=str(tmp_path / "empty")), 6)

    update(config, model__weights=str(tmp_path / "a"), optimizer__name="adamw")
    state, [origin] = initial(config, 6)
    assert origin.file == f"{tmp_path / 'a'}, best checkpoint, step 10" and len(origin.sha256) == 64
    assert origin.notes == ()
    assert_equal({"params": state.params}, {"params": theirs.ema_params})  # a run's result is its EMA parameters
    assert_equal({"params": state.ema_params}, {"params": theirs.ema_params})
    assert_equal({"batch_stats": state.batch_stats}, {"batch_stats": theirs.batch_stats})
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(theirs.opt_state) and int(state.step) == 0
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)  # all of it may be donated

    update(config, model__weights_checkpoint="last")
    last, [origin] = initial(config, 6)
    assert origin.file == f"{tmp_path / 'a'}, last checkpoint, step 20"
    assert_equal({"params": last.params}, {"params": tiny_state(config, 6, seed=20).ema_params})
    update(config, model__weights_checkpoint="best")

    update(config, model__args=ENCODED | {"act": "elu", "norm": "batch", "dropout": 0.25})
    assert plan_weights(build_parts(config, 6)).origin.notes == ("the run's network has other values of act, dropout",)
    update(config, model__args=ENCODED | {"widths": (5, 6)})
    differs = r"widths is \(4, 6\) there and \(5, 6\) here\. The weights do not fit the model\. "
    with pytest.raises(
        ConfigError, match=rf"model\.weights: the run in {tmp_path / 'a'}: {differs}\d+ of another shape"
    ):
        initial(config, 6)
    bare = ENCODED | {"encoder_args": ENCODED["encoder_args"] | {"output_norm": False}}
    update(config, model__args=bare)
    with pytest.raises(ConfigError, match=r"encoder_args\.output_norm is True there and False here"):
        initial(config, 6)
    update(config, model__args=ENCODED, adversarial__weight=0.1, adversarial__widths=(4,))
    dueling, _ = initial(config, 6)  # the discriminator, which is not in the file, keeps its random parameters
    assert dueling.params.keys() == theirs.ema_params.keys() | {"discriminator"}
    assert_equal(dueling.params["encoder"], theirs.ema_params["encoder"])
    assert np.abs(dueling.params["discriminator"]["conv1"]["kernel"]).max() > 0
    update(config, adversarial__weight=0.0, adversarial__widths=(64, 128, 256, 512))

    update(config, model__weights="", model__encoder_weights=str(tmp_path / "a"), ema__decay=0.0)
    state, [origin] = initial(config, 2)
    assert origin.notes == ("took the encoder out of the network",) and state.ema_params is None
    assert_equal(state.params["encoder"], theirs.ema_params["encoder"])


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("fpn", {}, "the run's network is a UNet, this one a FPN."),
        ("unet", {"encoder": "plain"}, "encoder is residual there and plain here."),
        (
            "unet",
            {"encoder_args": {"widths": (4, 6, 9)}},
            "encoder_args.widths is (4, 6, 8) there and (4, 6, 9) here.",
        ),
        (
            "unet",
            {"norm": "group", "act": "elu"},
            "act is relu there and elu here; norm is batch there and group here.",
        ),
    ],
)
def test_why_the_weights_of_another_run_do_not_fit_is_said_first(tmp_path, monkeypatch, name, fields, words):
    theirs = tiny_config(model__name="unet", model__args=ENCODED)
    (tmp_path / "config.json").write_text("{}")
    run = SimpleNamespace(model=build.make_model(theirs, 6), variables=network(num_classes=6)[1])
    monkeypatch.setattr(load, "load_run", lambda *_: run)
    ours = {"width": 4} if name == "fpn" else ENCODED
    config = tiny_config(model__name=name, model__args=ours | fields, model__weights=str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        plan_weights(build_parts(config, 6))
    assert f"the run in {tmp_path}: {words} The weights do not fit the model. " in str(raised.value)


@pytest.mark.parametrize(
    ("other", "words"), [("unusable", "another process .* cannot use"), ("0" * 64, "different weights")]
)
def test_processes_agree_on_what_they_read(tmp_path, monkeypatch, other, words):
    _, theirs = network(num_classes=6)
    config = tiny_config(model__name="unet", model__args=ENCODED, model__weights=save(tmp_path / "x.npz", theirs))
    sent = []
    monkeypatch.setattr(snapshot, "all_processes", lambda text: sent.append(text) or [text, other])
    with pytest.raises(ConfigError, match=rf"model\.weights: .*{words}.* {tmp_path / 'x.npz'}"):
        plan_weights(build_parts(config, 6))
    (tmp_path / "x.npz").unlink()
    with pytest.raises(ConfigError, match="There is no file of weights"):
        plan_weights(build_parts(config, 6))
    assert len(sent[0]) == 64 and sent[1:] == ["unusable"]  # no other process waits for this one


def test_a_folder_as_the_hub_has_it_is_read_as_its_file(tmp_path):
    _, ours = network()
    with pytest.raises(WeightsError, match=r"^The folder .* holds no file of weights under a name of the Hub"):
        pretrained.load(ours, str(tmp_path), model="unet")
    (tmp_path / "config.json").write_text('{"architectures": []}')
    config = tiny_config(model__name="unet", model__args=ENCODED, model__weights=str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"model\.weights: .* neither a run \(.*architectures.*\) nor a file of weights"
    ):
        plan_weights(build_parts(config, 6))
    flat = {name: np.asarray(x) for name, x in pretrained.flatten(ours).items()}
    save_file(flat, tmp_path / "model.safetensors")
    loaded = pretrained.load(ours, str(tmp_path), model="unet")
    assert loaded.file == str(tmp_path / "model.safetensors")
    _, six = network(num_classes=6)
    save_file({name: np.asarray(x) for name, x in pretrained.flatten(six).items()}, tmp_path / "model.safetensors")
    planned = plan_weights(build_parts(config, 6))
    assert planned is not None and planned.origin.file == str(tmp_path / "model.safetensors")


OWN = {"model__args__encoder": None, "model__args__encoder_args": None}
CNN = OWN | {"experiment": "experiments/cnn.py"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__encoder_weights": "imagenett"}, "There are no published weights 'imagenett' for the encoder"),
        ({"model__encoder_weights": "a.pth", "model__weights": "b.pth"}, "not both"),
        ({"model__weights_skip": "head"}, "model.weights_skip needs model.weights"),
        ({"model__weights": "nowhere/x.pth"}, "There is no file of weights 'nowhere/x.pth'"),
        ({"model__weights": "hf://x"}, "hf://OWNER/NAME"),
        ({"optimizer__encoder_rate": -0.1}, "optimizer.encoder_rate must be a number of at least 0"),
        (OWN | {"model__encoder_weights": "imagenet"}, "the network 'unet' has its own encoder here"),
        (CNN | {"model__encoder_weights": "imagenet"}, "the network 'cnn' takes no encoder but its own"),
    ],
)
def test_wrong_weights_are_one_sentence_before_anything_compiles(tmp_path, capsys, monkeypatch, changes, words):
    merged = {key: value for key, value in ({**UNET} | changes).items() if value is not None}

    def compiled(*_):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(jax, "jit", lambda *_, **__: compiled)
    assert main(arguments(tmp_path / "run", **merged)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_network_without_an_encoder_names_those_with_one():
    config = tiny_config(model__encoder_weights="imagenet")
    with pytest.raises(ConfigError, match=r"networks that take others: .*\bfpn\b.*\bunet\b") as raised:
        find_weights(config, build.make_model(config, 2))
    named = str(raised.value).rpartition(": ")[2].removesuffix(".").split(", ")
    for name in models.names():
        assert (name in named) == hasattr(models.build(name, num_classes=2), "encoder"), name


def test_without_a_network_one_sentence_is_all_that_comes(tmp_path, capfd, monkeypatch):
    changes = {"model__args__encoder": "resnet18", "model__args__widths": "(4,4,4,4)"}
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.close()
        assert main(arguments(tmp_path / "run", UNET["experiment"], **changes, model__encoder_weights="imagenet")) == 1
        out, error = capfd.readouterr()
        assert out == "" and error.startswith("error: model.encoder_weights: timm/resnet18.tv_in1k is not in the cache")
        assert error.count("\n") == 1 and hub.said == []
        # It comes before the data are read, which are not there.
        changes |= {"data__source": "folder", "data__dir": str(tmp_path / "none")}
        assert main(arguments(tmp_path / "run", UNET["experiment"], **changes, model__encoder_weights="imagenet")) == 1
        assert capfd.readouterr().err == error
    assert not (tmp_path / "run").exists()

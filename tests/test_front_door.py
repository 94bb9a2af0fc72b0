"""`import jaxseg`: what it offers, that it is light, and the four things people come for, wrong ways too."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny_weights
from helpers.marks import some_slow
from helpers.tiny_run import TINY, make_folder, make_run, tiny_config
from PIL import Image

import jaxseg
from jaxseg import build, losses, models, pretrained, state, step
from jaxseg.api import create
from jaxseg.api.create import SegmentationModel
from jaxseg.compiler import options_for_once
from jaxseg.config import default_config, update
from jaxseg.data.transforms import resize_image
from jaxseg.errors import ArgumentError, CheckpointError, ConfigError, DataError, JaxsegError, WeightsError
from jaxseg.inference import load_run, make_segmenter
from jaxseg.inference.folded import fold_run
from jaxseg.run.weights import find_weights
from jaxseg.run.weights_source import resolve

ROOT = Path(__file__).parent.parent
EXPERIMENT = f"""
from jaxseg.config import default_config, update

def get_config(arg=None):
    config = default_config()
    update(config, model__name="cnn", model__args={TINY!r}, data__size=(16, 16), data__shapes_train=8)
    update(config, data__shapes_val=3, steps=2, batch_size=8, eval__batch_size=8, log__images=1, log__tensorboard=False)
    return config
"""


def in_python(code):
    """Returns what a fresh Python prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return jaxseg.load(make_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_config(), {10: 0.9, 20: 0.4}))


# The package.


def test_type_checkers_see_what_the_package_gives():
    tree = ast.parse((ROOT / "jaxseg" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    seen |= {node.target.id for node in block.body if isinstance(node, ast.AnnAssign)} - {"TrainModule"}
    assert seen - {"TrainModule"} | {"__version__", "JaxsegError"} == set(jaxseg.__all__)


def test_every_name_of_the_contract_is_there():
    assert len(set(jaxseg.__all__)) == len(jaxseg.__all__)
    for name in jaxseg.__all__:
        assert getattr(jaxseg, name) is not None
    assert set(jaxseg.__all__) <= set(dir(jaxseg))
    assert jaxseg.losses is losses and jaxseg.models is models


def test_every_network_is_there_by_the_name_of_its_class():
    classes = {type(models.build(name, num_classes=2)).__name__ for name in models.names()}
    for name in classes:
        assert name in jaxseg.__all__ and getattr(jaxseg, name).__name__ == name
    assert jaxseg.UNet is models.network_class("UNet")
    with pytest.raises(ValueError, match="Did you mean 'UNet'"):
        models.network_class("Unet")


def test_importing_loads_no_jax():
    loaded = in_python("import sys, jaxseg; dir(jaxseg); print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))")
    assert loaded == "[]"


@pytest.mark.parametrize(("name", "hint"), [("create_modle", " Did you mean 'create_model'?"), ("_private", "")])
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(AttributeError) as error:
        getattr(jaxseg, name)
    assert str(error.value) == f"jaxseg has no attribute {name!r}.{hint}"


def test_lists_match_patterns():
    assert jaxseg.list_models() == sorted(models.names())
    assert jaxseg.list_models("*unet") == sorted(name for name in models.names() if name.endswith("unet"))
    assert jaxseg.list_models("unet*") == ["unet", "unetplusplus", "unetr"]
    assert jaxseg.list_encoders("resnet5?d") == ["resnet50d"]
    assert jaxseg.list_encoders("nothing*") == []


# create_model.


def tiny_model(**fields):
    return jaxseg.create_model("unet", **({"num_classes": 3, **tiny_weights.ENCODED} | fields))


def test_a_long_wait_for_a_network_is_said(monkeypatch, caplog):
    monkeypatch.setattr(create, "_PATIENCE", 600.0)
    jaxseg.create_model("cnn", num_classes=3, **TINY)
    assert caplog.messages == []
    monkeypatch.setattr(create, "_PATIENCE", 0.0)
    model = jaxseg.create_model("cnn", num_classes=4, **TINY)
    parameters = state.count_parameters(model.variables["params"])
    assert [text.partition(":")[0] for text in caplog.messages] == [f"Drawing the {parameters:,} parameters of cnn"]


@pytest.mark.parametrize("channels", some_slow((1, 3, 7), (1, 7)))
def test_a_model_has_the_variables_that_a_run_of_its_seed_starts_from(channels):
    model = tiny_model(in_channels=channels, seed=5)
    key = jax.random.split(jax.random.key(5))[0]

    def init(key):
        return state.init_state(model.module, optax.sgd(1.0), key, (16, 16, channels))

    fresh = jax.jit(init, compiler_options=options_for_once())(key)  # as `run.weights.initial_state` compiles it
    tiny_weights.assert_equal(model.variables, {"params": fresh.params, "batch_stats": fresh.batch_stats})
    image = np.random.default_rng(0).normal(size=(2, 13, 22, channels)).astype(np.float32)
    logits, out = model(image)
    of_module, of_model = (jax.jit(functools.partial(f, train=False)) for f in (model.module.apply, model.apply))
    expected = of_module(model.variables, image)
    assert logits.shape == (2, 13, 22, 3) and "encoder/stage0" in out
    np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(of_model(model.variables, image)[0], expected[0])


def test_a_model_is_a_pytree_that_trains():
    model = tiny_model()
    doubled = jax.tree.map(lambda x: 2 * x, model)
    assert doubled.module is model.module and len(jax.tree.leaves(model)) == len(jax.tree.leaves(model.variables))
    image = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    by_batch, _ = model(image, train=True)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    expected = apply(model.variables, image)[0][0]
    np.testing.assert_allclose(by_batch, expected, rtol=1e-4, atol=1e-4)
    optimiser = optax.adam(1e-3)
    train_step = jax.jit(step.make_train_step(model.module, optimiser, losses.make_loss("dice", num_classes=3)))
    batch = {"image": image, "label": np.ones((2, 16, 16), np.uint8)}
    after, _ = train_step(model.train_state(optimiser), batch, jax.random.key(0))
    trained = model.replace(variables=after.variables)
    assert int(after.step) == 1 and not np.array_equal(trained(image)[0], model(image)[0])


def test_weights_of_a_file_fill_the_network_or_its_encoder(tmp_path):
    _, variables = tiny_weights.network(seed=3)
    file = tiny_weights.save(tmp_path / "w.npz", variables)
    whole, encoder, drawn = tiny_model(weights=file), tiny_model(encoder_weights=Path(file)), tiny_model()
    tiny_weights.assert_equal(whole.variables, variables)
    for kind in ("params", "batch_stats"):
        tiny_weights.assert_equal(encoder.variables[kind]["encoder"], variables[kind]["encoder"])
        rest = {k: v for k, v in encoder.variables[kind].items() if k != "encoder"}
        tiny_weights.assert_equal(rest, {k: v for k, v in drawn.variables[kind].items() if k != "encoder"})
    assert whole.origin.file == file and "w.npz" in repr(whole) and "3 channels" in repr(whole)
    other = tiny_model(weights=file, num_classes=7)
    assert other(np.zeros((1, 8, 8, 3), np.float32))[0].shape[-1] == 7
    tiny_weights.assert_equal(other.variables["params"]["encoder"], variables["params"]["encoder"])


def test_rgb_weights_are_adapted_to_other_channels_and_the_log_says_so(tmp_path, caplog):
    _, variables = tiny_weights.network(seed=3)
    model = tiny_model(encoder_weights=tiny_weights.save(tmp_path / "w.npz", variables), in_channels=5)
    before, after = (pretrained.flatten(v["params"]["encoder"]) for v in (variables, model.variables))
    changed = [name for name in before if before[name].shape != after[name].shape]
    assert changed and all(before[name].shape[2] == 3 for name in changed), "those that see the image"
    assert model.origin.notes and caplog.messages == [f"{tmp_path / 'w.npz'}: {each}." for each in model.origin.notes]
    for name in changed:
        np.testing.assert_allclose(after[name], before[name][:, :, [0, 1, 2, 0, 1]] * 3 / 5, rtol=1e-6)


def test_weights_of_a_run_are_those_that_it_predicts_with(run):
    model = jaxseg.create_model("cnn", num_classes=run.num_classes, weights=run.workdir, **TINY)
    tiny_weights.assert_equal(model.variables, run.variables)


@pytest.mark.parametrize(
    ("name", "weights", "whole"),
    [("unet", "imagenet", False), ("eomt", "tue-mps/ade20k_semantic_eomt_large_512", True)],
)
def test_a_published_name_says_what_it_fills(name, weights, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").mkdir()  # a folder of the data, not of weights
    fields = {"encoder": "resnet18"} if name == "unet" else {}
    module = models.build(name, num_classes=3, **fields)
    wanted = resolve(module, name, weights=weights, encoder_weights=None)
    assert (wanted.model is not None) == whole and wanted.workdir is None
    update(config := default_config(), model__name=name, model__args=fields, model__weights=weights)
    assert find_weights(config, module) == wanted._replace(key="model.weights")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "unett"}, ConfigError, "There is no model 'unett'. Did you mean 'unet'?"),
        ({"name": "unett", "encoder": "resnet18"}, ConfigError, "Did you mean 'unet'?"),
        ({"encoder": "resnet19"}, ConfigError, "Did you mean 'resnet18"),
        ({"name": "cnn", "encoder": "resnet18"}, ConfigError, "takes no named encoder"),
        ({"width": (3,)}, ConfigError, "Did you mean 'widths'?"),
        ({"in_channels": 0}, ConfigError, "in_channels must be a whole number of at least 1, got 0"),
        ({"num_classes": 0}, ConfigError, "num_classes must be a whole number of at least 1"),
        ({"weights": "imagenet", "encoder_weights": "imagenet"}, ConfigError, "not both"),
        ({"encoder": "resnet18", "weights": "imagnet"}, WeightsError, "Did you mean 'imagenet'?"),
        ({"encoder": "mit_b0", "encoder_weights": "imagenet"}, WeightsError, "under the NVIDIA Source Code License"),
        ({"name": "segformer", "weights": "nvidia/segformer-b0-x"}, WeightsError, "NVIDIA Source Code License"),
        ({"encoder": "resnet18", "encoder_weights": "imagnet"}, WeightsError, "Did you mean 'imagenet'?"),
        ({"weights": "nowhere.safetensors"}, WeightsError, "nowhere.safetensors"),
        ({"weights": "/"}, ConfigError, "holds no run"),
    ],
)
def test_wrong_models_are_refused_in_one_sentence(arguments, error, words):
    with pytest.raises(error) as raised:
        jaxseg.create_model(**({"name": "unet", "num_classes": 3} | arguments))
    assert words in str(raised.value) and isinstance(raised.value, JaxsegError)


UNET_18 = {"encoder": "resnet18"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": "imagnet"} | UNET_18, "weights: There are no published weights 'imagnet' for the encoder"),
        ({"encoder_weights": "imagnet"} | UNET_18, "encoder_weights: There are no published weights"),
        ({"weights": "imagenet"}, "weights: the network 'unet' has its own encoder here, for which no weights are"),
        (
            {"encoder_weights": "nowhere.pth"},
            "encoder_weights: There is no file of weights 'nowhere.pth' (relative to ",
        ),
        ({"weights": "no/such/folder"}, "weights: There is no file or folder 'no/such/folder' (relative to "),
        (
            {"weights": "some/folder"},
            "weights: The folder 'some/folder' holds no run (no config.json); give the",
        ),
        ({"weights": "encoder.npz"} | UNET_18, "These are names of an encoder: load them as weights of the encoder."),
        ({"weights": "other.npz"} | tiny_weights.ENCODED, "The weights do not fit the model."),
    ],
)
def test_wrong_weights_are_refused_before_anything_is_drawn(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "folder").mkdir(parents=True)
    ones = np.ones((1, 1, 1, 1), np.float32)
    np.savez("encoder.npz", **{"conv1.weight": ones, "bn1.weight": ones})
    tiny_weights.save("other.npz", tiny_weights.network(widths=(4, 7))[1])
    monkeypatch.setattr(create, "_draw", lambda *_: pytest.fail("the network was drawn"))
    with pytest.raises((ConfigError, WeightsError)) as raised:
        jaxseg.create_model("unet", num_classes=3, **arguments)
    said = str(raised.value)
    assert words in said and not re.search(r"model\.(args|weights|encoder_weights)|--config", said)


def test_weights_of_the_whole_network_leave_nothing_to_draw(tmp_path, monkeypatch):
    _, variables = tiny_weights.network(seed=3)
    file = tiny_weights.save(tmp_path / "w.npz", variables)
    monkeypatch.setattr(create, "_draw", lambda *_: pytest.fail("the network was drawn"))
    tiny_weights.assert_equal(tiny_model(weights=file).variables, variables)


def test_a_model_imports_only_its_own_network_and_nothing_that_reads_data():
    heavy = ("orbax", "tensorstore", "grain", "tensorflow_datasets", "tensorboardX", "matplotlib", "PIL")
    code = f"""
import sys, jaxseg
from jaxseg.api import create
from jaxseg.api.create import SegmentationModel
create._draw = lambda *_: {{"params": {{}}, "batch_stats": {{}}}}
jaxseg.list_models(), jaxseg.list_encoders()
jaxseg.create_model("fpn", encoder="plain", num_classes=2)
loaded = set(sys.modules)
print(sorted(loaded & {{*{heavy}}}), [n for n in jaxseg.models.names() if f"jaxseg.models.{{n}}" in loaded])
"""
    assert in_python(code) == "[] ['fpn']"


# load.


def test_a_run_predicts_arrays_pictures_and_files_alike(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 33, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    model, state = fold_run(run)
    segment = functools.partial(make_segmenter(run.parts, model), state.variables)
    expected, unfolded = segment(image, True), make_segmenter(run.parts)(run.variables, image, True)
    np.testing.assert_allclose(expected.probabilities, unfolded.probabilities, rtol=1e-4, atol=1e-6)
    forms = [image, Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png"), jnp.asarray(image)]
    results = run.predict(forms, probabilities=True)
    assert isinstance(results, list) and run.predict(image).probabilities is None
    for result in [*results, run.predict(image, probabilities=True)]:
        np.testing.assert_array_equal(result.classes, expected.classes)
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    single = (image / 255).astype(np.float32)
    expected = segment(single, True)
    for result in run.predict([image / 255, single], probabilities=True):
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)
    assert run.predict([]) == []


def test_floats_are_resized_as_bytes_are_but_not_rounded():
    image = np.random.default_rng(0).integers(0, 256, (20, 33, 3), np.uint8)
    floats = resize_image((image / 255).astype(np.float32), (16, 16))
    assert floats.dtype == np.float32 and np.any(floats * 255 != np.rint(floats * 255))
    np.testing.assert_allclose(floats * 255, resize_image(image, (16, 16)), atol=1.01)


def test_floats_of_the_size_that_the_network_sees_give_the_same_as_bytes(run):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    a, b = run.predict([image, image / 255.0], probabilities=True)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)


def test_channels_are_converted_as_those_of_files(run):
    grey = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    expected = run.predict(np.repeat(grey[..., None], 3, -1)).classes
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    pictures = [Image.fromarray(x) for x in (grey, opaque, np.dstack([grey, opaque[..., 3]]))]
    for image in (grey, grey[..., None], opaque, *pictures):
        np.testing.assert_array_equal(run.predict(image).classes, expected)
    floats = np.repeat((grey / 255)[..., None], 3, -1)
    np.testing.assert_array_equal(run.predict(grey / 255).classes, run.predict(floats).classes)


def test_the_network_is_compiled_once_for_each_size(tmp_path, monkeypatch):
    traced, plain = [], build.make_prepare
    monkeypatch.setattr(build, "make_prepare", lambda c: lambda image: traced.append(image.shape) or plain(c)(image))
    run = jaxseg.load(make_run(tmp_path / "run", tiny_config(data__fit="crop")))
    for size in [(20, 30), (20, 31), (20, 30)]:
        run.predict(np.zeros((*size, 3), np.uint8))
    assert len(traced) == 2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "got (2, 8, 8, 3); give a list of images"),
        (np.zeros((3, 8, 8), np.uint8), "use transpose(1, 2, 0)"),
        (np.zeros((0, 8, 3), np.uint8), "got (0, 8, 3)"),
        (np.zeros((8, 8, 3), np.int64), "got int64"),
        (np.full((8, 8, 3), 128.0), "values from 128 to 128"),
        (np.full((8, 8, 3), -1.5), "not normalised yet"),
        (np.full((8, 8, 3), np.nan), "values from nan"),
        (None, "an object of type NoneType"),
        ("nowhere.png", "There is no file nowhere.png"),
        (
            np.array(["a"]),
            "The array of an image holds numbers, got objects of type str_; give",
        ),
        (np.zeros((8, 8, 2), np.uint8), "got (8, 8, 2); of grey and alpha give the grey, image[..., 0]"),
        ([[1, 2]], "an object of type list"),
        ("docs", "give its files: run.predict(sorted(Path('docs').glob(\"*.png\")))"),
        ("README.md", "README.md cannot be read as an image: it is damaged, cut short or of another type."),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(run, image, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(DataError) as error:
        run.predict(image)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[1, 2]], "an object of type list"),
        ("x.jpg", "an object of type str; files are read by the `predict` of a run"),
        (
            np.zeros((8, 8, 3), np.float32),
            "[b,h,w,3], no side of them 0, got [8, 8, 3]. One image is image[None]",
        ),
        (np.zeros((0, 8, 8, 3), np.float32), "no side of them 0, got [0, 8, 8, 3]."),
        (np.zeros((1, 3, 8, 8), np.float32), "got [1, 3, 8, 8]. Channels come last, as in np.moveaxis(image, 1, -1)"),
        (np.zeros((1, 8, 8, 2), np.float32), "got [1, 8, 8, 2]"),
        (np.zeros((1, 8, 8, 3), np.uint8), "floating-point numbers, got uint8"),
    ],
)
def test_a_model_refuses_what_is_no_batch_of_images(image, words):
    model = SegmentationModel({"params": {}, "batch_stats": {}}, models.build("cnn", num_classes=2), 3, None)
    with pytest.raises(ArgumentError) as error:
        model(image)
    assert words in str(error.value)


def test_a_run_is_scored_and_the_scores_print(run):
    evaluation = run.evaluate("test")
    assert evaluation.images == 5 and evaluation.confusion.sum() == 5 * 16 * 16 and evaluation.boundary is None
    assert evaluation.mean_iou == evaluation.scores.mean_iou == evaluation.to_dict()["mean_iou"]
    text = str(evaluation)
    assert repr(evaluation) == text and all(name in text for name in run.classes)
    assert "cnn after 10 steps (best checkpoint), split test:" in text and "expected calibration error" in text
    assert not list(run.workdir.glob("evaluate-*")), "asking writes nothing"
    files = evaluation.write_report()
    assert all(file.is_file() and file.parent == run.workdir for file in files.values())
    with pytest.raises(DataError, match=r"no split 'tset'\. Did you mean 'test'\?"):
        run.evaluate("tset")


def test_boundaries_are_scored_where_they_are_asked_for(run):
    near, far = run.evaluate(boundary=0), run.evaluate(boundary=30)
    assert np.nansum(near.boundary.boundary_f1) < np.nansum(far.boundary.boundary_f1)
    assert "boundary F1" in str(near) and "boundary" in near.to_dict()
    assert run.evaluate(boundary=True).boundary is not None and run.evaluate(boundary=False).boundary is None
    for wrong in (-1, float("nan"), "near"):
        with pytest.raises(ArgumentError, match="boundary must be True or a number of pixels"):
            run.evaluate(boundary=wrong)


def test_a_loaded_run_says_what_it_is(run):
    assert (run.step, run.which, run.config.model.name) == (10, "best", "cnn")
    assert jaxseg.load(run.workdir, which="last").step == 20
    assert isinstance(run, type(load_run(run.workdir)).__mro__[0]) and run.classes[0] in repr(run)
    tiny_weights.assert_equal(run.variables, load_run(run.workdir).variables)


def test_keys_that_change_nothing_can_be_given(tmp_path):
    data = make_folder(tmp_path / "data", [(16, 16)], split="train")
    make_folder(data, [(16, 16), (9, 20)])
    workdir = make_run(tmp_path / "run", tiny_config(data__source="folder", data__dir=str(data)))
    moved = data.rename(tmp_path / "moved")
    for words in ({"data.dir": moved}, {"data__dir": str(moved)}):
        run = jaxseg.load(workdir, **words, eval__batch_size=2)
        assert run.evaluate().images == 2 and run.config.eval.batch_size == 2
    with pytest.raises(ConfigError, match=r"model\.name belongs to the trained run"):
        jaxseg.load(workdir, model__name="unet")
    with pytest.raises(ConfigError, match=r"Did you mean 'data\.dir'"):
        jaxseg.load(workdir, **{"data.dri": "x"})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("none", ConfigError, "holds no run (no config.json); give the workdir of a training run."),
        ("which", ArgumentError, "which must be one of 'best', 'last', got 'bset'. Did you mean 'best'?"),
        ("empty", CheckpointError, "has no checkpoint yet"),
        ("no path", ArgumentError, "workdir must be a path, as text or pathlib.Path, got None."),
        ("a file", ConfigError, "config.json' is a file; give the workdir of a training run."),
        ("missing", ConfigError, "does not exist; give the workdir"),
    ],
)
def test_what_is_no_run_is_refused(run, tmp_path, change, error, words):
    if change == "empty":
        for name in ("config.json", "data.json"):
            (tmp_path / name).write_bytes((run.workdir / name).read_bytes())
    places = {"which": run.workdir, "no path": None, "a file": run.workdir / "config.json", "missing": tmp_path / "a"}
    with pytest.raises(error) as raised:
        jaxseg.load(places[change] if change in places else tmp_path, "bset" if change == "which" else "best")
    assert words in str(raised.value)


# train.


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    return "tiny.py"


def test_training_returns_the_run_and_resumes_it(experiment, tmp_path, capsys):
    run = jaxseg.train(experiment, **{"steps": 3, "optimizer.learning_rate": "1e-2"}, data__workers=0)
    assert run.workdir == Path("runs/tiny") and run.step == 3 and run.config.optimizer.learning_rate == 0.01
    assert run.predict(np.zeros((5, 6, 3), np.uint8)).classes.shape == (5, 6)
    again = jaxseg.train(Path(experiment), tmp_path / "runs" / "tiny", steps="3", optimizer__learning_rate=0.01)
    said = capsys.readouterr().err
    assert "had ended before" in said and "jaxseg.evaluate" not in said
    assert "evaluate:    run = jaxseg.load('runs/tiny'); run.evaluate('test')  (the best checkpoint)\n" in said
    first, second = (start["command"] for start in json.loads(Path("runs/tiny/run.json").read_text())["starts"])
    assert first == "jaxseg.train('tiny.py', steps=3, data__workers=0, **{'optimizer.learning_rate': '1e-2'})"
    assert second.startswith(f"jaxseg.train('tiny.py', workdir='{tmp_path}/runs/tiny', steps='3', ")
    tiny_weights.assert_equal(run.variables, again.variables)


def test_training_takes_a_configuration_and_leaves_it_alone(experiment):
    config = tiny_config(steps=1, batch_size=8, log__images=0)
    with pytest.raises(ConfigError, match="Give a workdir"):
        jaxseg.train(config)
    run = jaxseg.train(config, "here", seed=4, eval__batch_size=8)
    assert (run.config.seed, config.seed, run.config.steps) == (4, 0, 1)


@pytest.mark.parametrize(
    ("experiment_given", "overrides", "words"),
    [
        ("tiny.py", {"data.dri": "x"}, "Did you mean 'data.dir'"),
        ("tiny.py", {"steps": "many"}, "steps must be a whole number"),
        ("tiny.py", {"steps": 1.5}, "steps must be a whole number"),
        ("tiny.py", {"model.args.norm": object()}, "a config holds only names, numbers"),
        ("tiny.py", {"model.name": "cnnn"}, "Did you mean 'cnn'"),
        ("tiny.py", {"data.source": "folder", "data.dir": "nowhere"}, "nowhere"),
        ("tyni.py", {}, "Did you mean 'tiny.py'"),
        (3, {}, "got an object of type int"),
    ],
)
def test_training_refuses_as_the_command_line_does(experiment, tmp_path, experiment_given, overrides, words):
    with pytest.raises(JaxsegError) as error:
        jaxseg.train(experiment_given, **overrides)
    assert words in str(error.value) and not (tmp_path / "runs" / "tiny" / "checkpoints").exists()


@pytest.mark.parametrize(
    "order",
    [
        "import jaxseg; first = jaxseg.train; import jaxseg.train; second = jaxseg.train",
        *(
            pytest.param(order, marks=pytest.mark.slow)
            for order in (
                "import jaxseg.train; first = jaxseg.train; second = jaxseg.train",
                "from jaxseg import train as first; import jaxseg; second = jaxseg.train",
            )
        ),
        "from jaxseg.train import main; import jaxseg; first = second = jaxseg.train",
    ],
)
def test_train_is_a_module_and_a_function_whichever_is_imported_first(order):
    code = f"{order}\nassert first is second and callable(first)\nprint(first.__name__, first.main.__name__)\n"
    code += "import inspect; print(list(inspect.signature(first).parameters))"
    assert in_python(code) == "jaxseg.train main\n['experiment', 'workdir', 'overrides']"

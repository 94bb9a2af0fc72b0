"""Monte-Carlo dropout of a tiny run, what it finds, and the temperature that is kept with it."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import tiny
from helpers.tiny_run import TINY, make_run, tiny_config
from helpers.variables import variable_shapes
from PIL import Image

from jaxseg import metrics
from jaxseg import nn as jnn
from jaxseg.data import make_source
from jaxseg.errors import ConfigError
from jaxseg.evaluate import main as evaluate_main
from jaxseg.inference import temperature
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.uncertainty import combine, members, monte_carlo, random_layers, score_uncertainty
from jaxseg.predict import main as predict_main
from jaxseg.run.load import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network with dropout on five shapes of 16x16."""
    config = tiny_config(model__args={**TINY, "dropout": 0.5})
    return load_run(make_run(tmp_path_factory.mktemp("runs") / "dropout", config))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A network without dropout."""
    return load_run(make_run(tmp_path_factory.mktemp("runs") / "plain", tiny_config()))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def draws(run, image):
    return np.stack(list(members(run, image, 3, key=7)))


def test_draws_differ_and_depend_on_the_key_alone(run, image, draws, tmp_path):
    assert draws.shape == (3, 16, 16, 6) and draws.dtype == np.float32
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-5)
    assert np.abs(draws[0] - draws[1]).max() > 0.01
    Image.fromarray(image).save(tmp_path / "i.png")
    again = list(members(run, tmp_path / "i.png", 2, key=jax.random.key(7)))
    np.testing.assert_array_equal(again, draws[:2])


def test_a_draw_is_the_network_with_that_dropout(run, image, draws):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 0), 0)
    apply = jax.jit(lambda x: run.model.apply(run.variables, x, train=False, rngs={"monte_carlo": key})[0])
    logits = apply(run.parts.prepare(image[None]))
    np.testing.assert_allclose(draws[0], jax.nn.softmax(logits)[0], atol=1e-5)


def test_combining_members_is_their_uncertainty(draws):
    found = combine(iter(draws))
    np.testing.assert_allclose(found.mean, draws.mean(0), atol=1e-6)
    assert isinstance(found.entropy, np.ndarray) and found.mutual_information.max() > 0.01
    with pytest.raises(ValueError, match="at least one member"):
        combine([])


def test_the_layers_that_are_drawn_are_named(run, plain):
    assert random_layers(run).dropout and not random_layers(run).depth
    assert random_layers(plain) == ((), ())
    assert monte_carlo(run).streams == ("monte_carlo",)


def test_stochastic_depth_is_drawn_where_there_is_no_dropout_or_on_request():
    for dropout, depth, streams in (
        (0.0, None, ("monte_carlo_depth",)),
        (0.2, None, ("monte_carlo",)),
        (0.2, True, ("monte_carlo", "monte_carlo_depth")),
    ):
        model = tiny("resunet", dropout=dropout, drop_path=0.2)
        variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), variable_shapes(model, (1, 8, 8, 3)))
        stub = SimpleNamespace(model=model, variables=variables, parts=SimpleNamespace(image_shape=(8, 8, 3)))
        assert random_layers(stub).depth and bool(random_layers(stub).dropout) == (dropout > 0)
        assert monte_carlo(stub, depth).streams == streams


def test_a_network_with_nothing_to_draw_is_a_sentence(plain, run, image):
    with pytest.raises(
        ConfigError, match=r"The network cnn in .* has no dropout or stochastic depth.*model\.args\.dropout"
    ):
        members(plain, image)
    with pytest.raises(ConfigError, match="at least one draw, got 0"):
        members(run, image, 0)


def test_stochastic_depth_is_drawn_by_a_key_of_its_own():
    layer, x = jnn.StochasticDepth(0.5), jnp.ones((64, 1))
    call = jax.jit(lambda rngs: layer.apply({}, x, train=False, rngs=rngs))
    np.testing.assert_array_equal(call({}), x)
    np.testing.assert_array_equal(call({"monte_carlo": jax.random.key(0)}), x)
    kept = np.asarray(call({"monte_carlo_depth": jax.random.key(0)}))
    assert set(np.unique(kept)) == {0.0, 2.0}


def test_the_scores_of_a_split(run):
    scores = score_uncertainty(run, draws=2)
    assert scores.images == 5 and set(scores.by_score) >= {"entropy", "mutual_information", "confidence"}
    labelled = scores.confusion.sum()
    wrong = 1 - np.trace(scores.confusion) / labelled
    for found in scores.by_score.values():
        assert found.errors == pytest.approx(wrong) and found.least_area <= found.area
    assert "2 draws of dropout" in str(scores) and "| entropy" in str(scores)
    assert json.loads(json.dumps(scores.to_dict()))["draws"] == 2


def test_the_network_as_it_is_has_scores_too(plain):
    scores = score_uncertainty(plain, draws=0)
    assert set(scores.by_score) == {"entropy", "confidence"} and "the network as it is" in str(scores)


def test_the_commands_fit_and_use_the_temperature(plain, image, tmp_path, capsys):
    Image.fromarray(image).save(tmp_path / "i.png")
    words = ["--workdir", str(plain.workdir), str(tmp_path / "i.png"), "--probabilities", "--out"]
    assert predict_main([*words, str(tmp_path / "no"), "--temperature"]) == 1
    assert f"evaluate --workdir {plain.workdir} --fit-temperature fits one" in capsys.readouterr().err
    assert evaluate_main(["--workdir", str(plain.workdir), "--fit-temperature"]) == 0
    assert f"scaling:    {plain.workdir / 'temperature.json'}" in capsys.readouterr().out
    found = {}
    for name, more in (("before", []), ("after", ["--temperature"])):
        assert predict_main([*words, str(tmp_path / name), *more]) == 0
        found[name] = np.log(np.load(tmp_path / name / "i.npz")["probabilities"].astype(float))
    value = temperature.read(plain)
    for log in found.values():
        log -= log.mean(-1, keepdims=True)  # the logits, but for their mean
    np.testing.assert_allclose(found["after"], found["before"] / value, atol=1e-3)
    (plain.workdir / "temperature.json").unlink()


def test_the_temperature_is_fitted_to_tiles_where_the_run_is_scored_in_tiles(plain, capsys):
    run = load_run(plain.workdir, overrides={"eval.tiles": "8x8"})
    scaling, whole = temperature.fit(run), temperature.fit(plain)
    predictor, sums = make_predictor([plain], tiles=8), []
    for example in make_source(plain.config, "val"):
        logits = predictor.scores(example["image"]).values
        sums.append(metrics.temperature_stats(logits, jnp.asarray(example["label"], jnp.int32)[None]))
    expected = metrics.fit_temperature(jax.tree.map(lambda *parts: sum(np.asarray(x, float) for x in parts), *sums))
    for found in ("nll_before", "nll_after", "value"):
        assert getattr(scaling.fitted, found) == pytest.approx(getattr(expected, found), rel=1e-4)
    assert scaling.fitted.nll_before != pytest.approx(whole.fitted.nll_before, rel=1e-3)
    assert scaling.error_after < scaling.error_before and scaling.images == 5
    (plain.workdir / "temperature.json").write_text('{"mine": 1}')
    assert evaluate_main(["--workdir", str(plain.workdir), "--fit-temperature"]) == 1
    assert "temperature.json would replace a file that jaxseg did not write" in capsys.readouterr().err
    (plain.workdir / "temperature.json").unlink()


def test_the_temperature_is_fitted_kept_and_read(plain):
    with pytest.raises(ConfigError, match=r"There is no .*temperature.json: .* fits one"):
        temperature.read(plain)
    scaling = temperature.fit(plain)
    # A network that was never trained is far too sure.
    assert scaling.fitted.value > 1.5 and scaling.fitted.nll_after < scaling.fitted.nll_before
    assert scaling.error_after < scaling.error_before and scaling.classes_after.shape == (6,)
    path = scaling.write()
    assert temperature.read(plain) == scaling.fitted.value and "| mean of the classes" in str(scaling)
    content = json.loads(path.read_text())
    assert content["step"] == 10 and content["images"] == 5 and len(content["class_calibration_error"]["after"]) == 6
    path.write_text(json.dumps({**content, "step": 9}))
    with pytest.raises(ConfigError, match="after 9 steps, and this one has 10"):
        temperature.read(plain)
    path.write_text(json.dumps({**content, "temperature": -1}))
    with pytest.raises(ConfigError, match="where a number above 0 is needed"):
        temperature.read(plain)
    path.write_text("{")
    with pytest.raises(ConfigError, match="holds no temperature; delete it"):
        temperature.read(plain)

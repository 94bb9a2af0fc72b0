"""Fine-tuning by the command: adapters in checkpoints, resumed runs, loading, and what is refused."""

import logging
import shutil

import jax
import numpy as np
import pytest
from helpers.tiny_run import TINY, make_run, short_config, tiny_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg.build import build_parts
from jaxseg.config import update, validate
from jaxseg.errors import ConfigError
from jaxseg.inference.evaluation import evaluate
from jaxseg.run.check import check
from jaxseg.run.load import load_run
from jaxseg.run.weights import plan_weights
from jaxseg.state import by_path
from jaxseg.train import train

ARGS = TINY | {"hidden_kernel": 1}


def config_of(**values):
    return short_config(**{"model__args": ARGS, **values})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run to start from."""
    return make_run(tmp_path_factory.mktemp("base") / "run", tiny_config(model__args=ARGS))


def test_a_run_with_adapters_resumes_and_loads_as_the_network(base, tmp_path, capsys):
    config = config_of(model__weights=str(base), lora__rank=2, lora__alpha=16.0, optimizer__frozen_norms="encoder")
    result = train(config, tmp_path / "a", "again")
    out = "".join(capsys.readouterr())
    assert " parameters, of which " in out
    stored = state_of(tmp_path / "a")
    adapters = [name for name in stored if "params/lora/hidden/conv/kernel/" in name]
    assert len([name for name in adapters if name.startswith("params/")]) == 2

    run = load_run(tmp_path / "a", "last")
    start = load_run(base)
    assert run.state.params.keys() == start.state.params.keys()
    new, old = by_path(run.state.params), by_path(start.state.params)
    change = np.asarray(new["hidden/conv/kernel"] - old["hidden/conv/kernel"])[0, 0]
    assert np.linalg.matrix_rank(change, tol=1e-6) == 2
    np.testing.assert_allclose(
        change, 8 * stored["params/lora/hidden/conv/kernel/a"] @ stored["params/lora/hidden/conv/kernel/b"], atol=1e-6
    )
    same = {path for path in new if np.array_equal(new[path], old[path])}
    assert set(new) - same == {"hidden/conv/kernel", "head/kernel", "head/bias"}
    assert by_path(run.state.batch_stats).keys() == by_path(start.state.batch_stats).keys()
    # What the training scored with the adapters is what the merged network scores.
    np.testing.assert_array_equal(evaluate(run, "val").confusion, result.confusion)

    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    train(config, tmp_path / "b", "again")
    assert_identical(state_of(tmp_path / "b"), stored)


def test_what_is_frozen_must_have_weights(base):
    for values, message in (
        ({"optimizer__train_only": ("probe",)}, r"^optimizer\.train_only freezes a part of a network that has learned"),
        ({"lora__rank": 2}, r"^lora\.rank adds adapters to a network that has learned already, but neither"),
        (
            {"optimizer__encoder_rate": 0.0},
            r"^optimizer\.encoder_rate=0 freezes the encoder of a network that has learned",
        ),
        ({"optimizer__frozen_norms": "all"}, r"^optimizer\.frozen_norms freezes the statistics of a network"),
        (
            {"optimizer__frozen_norms": "all", "model__encoder_weights": str(base)},
            r"^optimizer\.frozen_norms=all freezes the statistics of the decoder too",
        ),
        ({"optimizer__layer_decay": 1.5}, r"^optimizer\.layer_decay must be a number above 0 and at most 1"),
        ({"lora__rank": 2, "lora__targets": ("nowhere",), "model__weights": str(base)}, r"^lora\.targets=nowhere is"),
        (
            {"optimizer__train_only": ("decodr",), "model__weights": str(base)},
            r"^optimizer\.train_only=decodr is found in no path",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            config = config_of(**values)
            validate(config)
            check(config)
    probe = config_of(model__encoder_weights=str(base), optimizer__train_only=("probe",))
    with pytest.raises(
        ConfigError,
        match=r"^optimizer\.train_only=probe freezes 3 parameters that model\.encoder_weig.*train_only=probe,\^hidden,",
    ):
        plan_weights(build_parts(probe, 6))
    frozen = config_of(
        model__encoder_weights=str(base), model__weights_skip=("conv1/norm",), optimizer__encoder_rate=0.0
    )
    with pytest.raises(
        ConfigError, match=r"^optimizer\.encoder_rate=0 freezes 2 parameters that model\.encoder_weights "
    ):
        plan_weights(build_parts(frozen, 6))
    with pytest.raises(ConfigError, match=r"^optimizer\.train_only freezes a part of a network that has learned"):
        plan_weights(build_parts(config_of(optimizer__train_only=("probe",)), 6))
    update(probe, optimizer__train_only=("probe", "hidden"))
    assert plan_weights(build_parts(probe, 6)) is not None


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        ({"batch_size": 8, "accumulate": 8}, True),
        ({"batch_size": 8, "accumulate": 4}, False),
        ({"batch_size": 8, "accumulate": 8, "model.args": ARGS | {"norm": "group"}}, False),
    ],
)
def test_batch_norm_of_single_images_is_noted(values, noted, caplog, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
    with caplog.at_level(logging.WARNING, logger="jaxseg"):
        check(config_of(**values))
    found = [message for message in caplog.messages if "in micro-batches of one image" in message]
    assert len(found) == noted
    if noted:
        assert "--config.model.args.norm=group" in found[0] and "optimizer.frozen_norms=all" in found[0]

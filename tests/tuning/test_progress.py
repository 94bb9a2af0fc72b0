"""Plateaus of the validation score: the rate against torch; a run that ends, whole, resumed and on both strategies."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_run import short_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg import optim
from jaxseg.config import default_config, update
from jaxseg.errors import ConfigError
from jaxseg.inference.score import Result
from jaxseg.run.report import read_log
from jaxseg.session import Session
from jaxseg.sweep.records import is_last_step
from jaxseg.train import train
from jaxseg.tuning import Progress, after_evaluation, following_progress, progress_of, with_progress

SCORES = (0.5, 0.4, 0.6, 0.3, 0.2, 0.55)


def _first() -> Progress:
    return Progress(np.float32(1), np.float32(-np.inf), np.int32(0), np.int32(0))


def test_the_rate_is_that_of_torch():
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(0).integers(0, 6, 60) / 8
    for patience, factor, end in ((1, 0.5, 0.0), (2, 0.1, 1e-3), (4, 0.75, 0.5)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", factor=factor, patience=patience - 1, threshold=0, min_lr=end, eps=0
        )
        ours = _first()
        for score in scores:
            theirs.step(float(score))
            ours = after_evaluation(ours, float(score), patience=patience, factor=factor, end=end)
            assert float(ours.share) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


def test_progress_by_hand():
    seen, progress = [], _first()
    for score in (0.5, 0.4, np.nan, 0.5, 0.6, 0.6, 0.1):
        progress = after_evaluation(progress, score, patience=2, factor=0.5)
        seen.append(tuple(float(value) for value in progress))
    half, six = np.float32(0.5), float(np.float32(0.6))
    assert seen == [
        (1, half, 0, 0),
        (1, half, 1, 1),
        (1, half, 1, 1),  # no label, no score
        (0.5, half, 2, 0),  # an equal score is no higher one
        (0.5, six, 0, 0),
        (0.5, six, 1, 1),
        (0.25, six, 2, 0),
    ]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_share_of_the_updates_is_a_share_of_the_rate(name):
    params = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}
    grads = jax.tree.map(jnp.cos, params)

    def made(rate: float) -> optax.GradientTransformation:
        return optim.make_optimizer(name=name, schedule=optax.constant_schedule(rate), weight_decay=0.1)

    following = following_progress(made(0.5))
    state = with_progress(following.init(params), _first()._replace(share=np.float32(0.25)))
    ours, state = following.update(grads, state, params)
    lower = made(0.125)
    theirs, _ = lower.update(grads, lower.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)
    assert float(progress_of(state).share) == 0.25


def _config(**values: Any):
    config = short_config(steps=12, eval__every=1, checkpoint__every=1, **values)
    update(config, schedule__name="plateau", schedule__patience=1, schedule__factor=0.5, stop__patience=3)
    update(config, optimizer__learning_rate=0.25, optimizer__name="sgd")
    return config


@pytest.fixture
def scored(monkeypatch):
    """Evaluations with the scores of `SCORES`, one after the other, by the step of the state."""

    def evaluate(session: Session, state: Any) -> Result:
        share = SCORES[int(session.strategy.first(state.step)) - 1]
        right = round(1000 * share)
        confusion = np.zeros((6, 6), np.int64)
        confusion[0, :2] = right, 1000 - right
        return Result(confusion, 0.5, 8, {})

    monkeypatch.setattr(Session, "evaluate", evaluate)


def _train(config, workdir: Path, until: int | None = None):
    return train(config, workdir, "again", until=until)


def test_a_plateau_lowers_the_rate_and_ends_the_run(scored, tmp_path, capsys):
    assert _train(_config(), tmp_path / "whole") is not None
    said = capsys.readouterr().err
    log = read_log(tmp_path / "whole" / "log.jsonl")
    rates = {record["step"]: record["learning_rate"] for record in log if record["split"] == "train"}
    assert rates == {1: 0.25, 2: 0.25, 3: 0.125, 4: 0.125, 5: 0.0625, 6: 0.03125}
    stale = [record["evaluations_since_best"] for record in log if record["split"] == "val"]
    assert stale == [0, 1, 0, 1, 2, 3]
    assert said.rstrip().endswith(
        "Stopped early, after step 6 of 12: the last 3 evaluations had no higher mIoU (stop.patience=3); the best "
        "checkpoint, which evaluate and predict use, is that of step 3."
    )
    end = json.loads((tmp_path / "whole" / "run.json").read_text())["starts"][-1]["end"]
    assert end["step"] == 6 and end["early"].startswith("Stopped early, after step 6 of 12")

    assert is_last_step(tmp_path / "whole", _config(), 6) and not is_last_step(tmp_path / "whole", _config(), 5)
    assert not is_last_step(tmp_path / "none", _config(), 6)  # for sweeps and folds

    before = state_of(tmp_path / "whole")
    assert _train(_config(), tmp_path / "whole") is not None  # ended: it is scored, and makes no step
    said = capsys.readouterr().err
    assert "This run had ended before, after 6 steps" in said and "Stopped early, after step 6 of 12" in said
    assert_identical(before, state_of(tmp_path / "whole"))

    assert _train(_config(), tmp_path / "stopped", until=5) is None
    assert _train(_config(), tmp_path / "stopped") is not None
    assert_identical(before, state_of(tmp_path / "stopped"))
    again = read_log(tmp_path / "stopped" / "log.jsonl")
    assert [r["learning_rate"] for r in again if r["split"] == "train"] == list(rates.values())

    assert _train(_config(strategy="pmap"), tmp_path / "pmap") is not None
    other = state_of(tmp_path / "pmap")
    assert other.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_allclose(other[name], array, rtol=2e-4, atol=1e-6, err_msg=name)
    pmap = read_log(tmp_path / "pmap" / "log.jsonl")
    assert [r["learning_rate"] for r in pmap if r["split"] == "train"] == list(rates.values())


def test_pruned_weights_stay_zero_and_both_players_follow(tmp_path):
    config = default_config()
    update(config, schedule__name="plateau", optimizer__name="sgd", optimizer__learning_rate=1.0)
    update(config, optimizer__momentum=0.0, optimizer__weight_decay=0.0, adversarial__weight=0.1)
    update(config, adversarial__learning_rate=0.5)
    params = {"head": jnp.ones(1), "discriminator": jnp.ones(1)}
    tx, _ = optim.from_config(config)
    state = with_progress(tx.init(params), _first()._replace(share=np.float32(0.5)))
    moved, _ = tx.update(params, state, params)
    np.testing.assert_allclose([moved["head"][0], moved["discriminator"][0]], [-0.5, -0.25], rtol=1e-5)
    config = default_config()
    update(config, schedule__name="plateau", optimizer__name="sgd", optimizer__learning_rate=0.1)
    update(config, prune__sparsity=0.5, prune__begin=1, prune__end=2, prune__every=1)
    kernels = {"conv": {"kernel": jnp.arange(1.0, 9.0).reshape(2, 4)}, "head": {"kernel": jnp.ones((2, 2))}}
    tx, _ = optim.from_config(config)
    state = with_progress(tx.init(kernels), _first()._replace(share=np.float32(0.5)))
    for _ in range(4):
        moved, state = tx.update(jax.tree.map(jnp.ones_like, kernels), state, kernels)
        kernels = optax.apply_updates(kernels, moved)
    assert sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(kernels)) == 4  # half of what prune.keep leaves


def test_a_factor_that_raises_the_rate_is_refused():
    config = default_config()
    update(config, schedule__name="plateau", schedule__factor=2.0)
    with pytest.raises(ConfigError, match=r"schedule\.factor must be below 1 for the schedule 'plateau', got 2"):
        optim.from_config(config)

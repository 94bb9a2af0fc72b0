"""Adversarial training on several devices and by the command: exact sums, checkpoints, resumed runs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_adversarial import LOSS, SEMI, make_batch, make_pair, players, quick, start
from helpers.tiny_run import tiny_config
from helpers.tiny_step import Tiny, assert_same

from jaxseg import optim
from jaxseg.adversarial import segmenter_of
from jaxseg.config import update, validate
from jaxseg.data.augment import to_float
from jaxseg.errors import ConfigError
from jaxseg.parallel import make_strategy
from jaxseg.run.check import check
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.load import load_run
from jaxseg.run.report import read_log
from jaxseg.state import init_state
from jaxseg.step import make_eval_step, make_train_step
from jaxseg.train import train


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def run(batch, *, strategy="jit", devices=1, accumulate=1):
    """The state and the last metrics after two steps."""
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    tx, model = players(), make_pair(strat.axis_name)
    step = make_train_step(model, tx, SEMI, prepare=to_float, accumulate=accumulate, axis_name=strat.axis_name)
    compiled = strat.compile_train(step)
    state, key = strat.put_state(start(tx)), strat.put_key(jax.random.key(2))
    for _ in range(2):
        state, metrics = compiled(state, strat.put_batch(batch), key)
    return jax.device_get(strat.get_state(state)), jax.device_get(strat.first(metrics))


def test_same_numbers_however_the_batch_is_cut(batch):
    state, metrics = run(batch)
    for how in ({"strategy": "pmap", "devices": 8}, {"accumulate": 4, "devices": 2}):
        other, measured = run(batch, **how)
        assert_same(other.params, state.params)
        assert_same(measured, metrics)


def test_state_resumes_bit_for_bit(batch, tmp_path):
    tx = optax.partition({"segmenter": optax.adamw(1e-2), "discriminator": optax.adam(1e-2)}, optim.players)
    step = quick(make_train_step(make_pair(rate=0.3), tx, SEMI, prepare=to_float, ema_decay=0.9))
    init = init_state(make_pair(), tx, jax.random.key(1), (6, 5, 3), ema=True)
    state = init
    for number in range(1, 5):
        state, _ = step(state, batch, jax.random.key(2))
        if number == 2:
            with Checkpoints(tmp_path) as checkpoints:
                checkpoints.save(2, state, wait=True)
    with Checkpoints(tmp_path) as checkpoints:
        again = jax.tree.map(jnp.asarray, checkpoints.restore(jax.eval_shape(lambda: init)).state)
    for _ in range(2):
        again, _ = step(again, batch, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert len(jax.tree.leaves(state.opt_state)) > 2 * len(jax.tree.leaves(state.params))  # moments of both networks


def test_evaluation_looks_at_the_segmenter_alone(batch):
    state = start(players())
    step = quick(make_eval_step(Tiny(), LOSS, prepare=to_float))
    jax.tree.map(np.testing.assert_array_equal, step(state, batch), step(segmenter_of(state), batch))


def test_a_run_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(
        steps=2,
        batch_size=8,
        data__shapes_train=8,
        eval__every=1,
        checkpoint__every=1,
        log__every=1,
        log__images=1,
        log__tensorboard=False,
        ema__decay=0.9,
        adversarial__weight=0.05,
        adversarial__widths=(4,),
        adversarial__semi_weight=0.1,
        adversarial__unlabelled_from=1,
    )
    update(config, eval__batch_size=8)
    validate(config)
    check(config)
    assert train(config, tmp_path / "run", "again").confusion.sum() > 0
    assert [r["step"] for r in read_log(tmp_path / "run/log.jsonl") if r["split"] == "train"] == [1, 2]
    loaded = load_run(tmp_path / "run")
    assert "discriminator" not in loaded.variables["params"] and "discriminator" not in loaded.state.params
    assert train(config, tmp_path / "run", "again").confusion.sum() > 0  # resumes a finished run


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adversarial__weight": -0.1}, "adversarial.weight must be a number of at least 0"),
        ({"adversarial__semi_weight": 0.1}, "semi_weight needs a discriminator"),
        (
            {"adversarial__weight": 0.1, "adversarial__unlabelled_from": -1},
            "unlabelled_from must be a whole number",
        ),
        ({"adversarial__weight": 0.1, "adversarial__learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"adversarial__widths": ()}, "adversarial.widths must be"),
        ({"adversarial__semi_threshold": 1.5}, r"adversarial.semi_threshold must be a number in \[0, 1\]"),
    ],
)
def test_wrong_keys_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(tiny_config(**values))

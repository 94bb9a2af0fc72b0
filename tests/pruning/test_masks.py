"""Pruning by magnitude: the schedule by hand, exact and monotone masks, equal results however a step is split, runs."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.tiny_run import tiny_config
from helpers.tiny_step import K, assert_same
from helpers.tiny_training import assert_identical, state_of

from jaxseg import parallel
from jaxseg.build import build_parts
from jaxseg.config import update, validate
from jaxseg.errors import ConfigError
from jaxseg.losses import make_loss
from jaxseg.optim import from_config
from jaxseg.pruning.masks import Masked, Pruning, masks_of, pruned, pruning_of, with_pruned_average, zero_share
from jaxseg.run.load import load_run
from jaxseg.run.report import read_log
from jaxseg.state import by_path, init_state
from jaxseg.step import make_train_step
from jaxseg.train import train
from jaxseg.tuning import EVERYTHING

SCHEDULE = Pruning(0.8, begin=2, end=9, every=3)


def test_the_schedule_is_equation_1():
    assert list(SCHEDULE.steps) == [2, 5, 8, 9]
    by_hand = [0.0, 0.8 * (1 - (4 / 7) ** 3), 0.8 * (1 - (1 / 7) ** 3), 0.8]
    np.testing.assert_allclose(SCHEDULE.share(SCHEDULE.steps), by_hand, rtol=1e-12)
    np.testing.assert_allclose(SCHEDULE.share([0, 20]), [0.0, 0.8])
    start = Pruning(0.9, begin=4, end=8, every=4, initial=0.5)
    np.testing.assert_allclose(start.share([4, 6, 8]), [0.5, 0.9 - 0.4 / 8, 0.9])
    assert Pruning(0.9, begin=3, end=3).share(3) == 0.9


PARAMS = {
    "a": {"kernel": np.random.default_rng(0).normal(size=(3, 3, 2, 5)), "bias": np.ones(5)},
    "b": {"kernel": 10 * np.random.default_rng(1).normal(size=(5, 7))},
    "head": {"kernel": np.random.default_rng(2).normal(size=(7, 3))},
    "norm": {"scale": np.full(5, 0.01)},
}


def updates_of(pruning, steps=11):
    """The parameters and masks after each step of a descent whose gradients are random."""
    tx = pruned(optax.sgd(0.1, momentum=0.9), pruning)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    state, rng, seen = tx.init(params), np.random.default_rng(3), []
    step = jax.jit(tx.update)
    for _ in range(steps):
        gradients = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
        before = params
        updates, state = step(gradients, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(jax.device_get((before, params, by_path(state.masks))))
    return seen


@pytest.fixture(scope="module")
def by_layer():
    return updates_of(SCHEDULE)


def test_each_kernel_has_its_exact_share_and_zeros_stay(by_layer):
    shares = [SCHEDULE.share(max(s for s in (2, *SCHEDULE.steps) if s <= max(t, 2))) for t in range(11)]
    shares[:2] = [0.0, 0.0]
    before = None
    for share, (_, params, masks) in zip(shares, by_layer):
        assert masks.keys() == {"a/kernel", "b/kernel"}
        for path, mask in masks.items():
            kernel = by_path(params)[path]
            assert np.sum(~mask) == round(share * mask.size)
            np.testing.assert_array_equal(kernel == 0, ~mask)
            assert before is None or not np.any(mask & ~before[path])
        before = masks
        assert np.all(params["head"]["kernel"]) and np.all(params["a"]["bias"]) and np.all(params["norm"]["scale"])
    assert zero_share(by_layer[-1][1], SCHEDULE) == (72 + 28) / 125


def test_the_smallest_weights_before_the_step_are_pruned(by_layer):
    for t in (5, 9):
        before, _, masks = by_layer[t]
        for path, mask in masks.items():
            kernel = np.abs(by_path(before)[path])
            assert kernel[~mask].max() <= kernel[mask].min()


def test_the_whole_network_can_have_the_share(by_layer):
    *_, (before, params, masks) = updates_of(Pruning(0.8, begin=2, end=9, every=3, scope="global"), steps=10)
    gone = {path: np.sum(~mask) for path, mask in masks.items()}
    assert sum(gone.values()) == 100 and gone["a/kernel"] > 80  # of 90, whose weights are ten times smaller
    weights = {path: np.abs(by_path(before)[path]) for path in masks}
    kept = min(weights[path][mask].min() for path, mask in masks.items())
    assert max(weights[path][~mask].max() for path, mask in masks.items()) <= kept
    assert zero_share(params, SCHEDULE) == 0.8


def test_the_zeros_of_a_pruned_network_stay_with_their_share_as_the_initial():
    old = PARAMS["a"]["kernel"]
    PARAMS["a"]["kernel"] = np.where(np.abs(old) < np.median(np.abs(old)), 0, old)
    try:
        *_, (_, params, _) = updates_of(Pruning(0.5, initial=0.5, end=3), steps=3)
    finally:
        zero, PARAMS["a"]["kernel"] = PARAMS["a"]["kernel"] == 0, old
    np.testing.assert_array_equal(params["a"]["kernel"] == 0, zero)


# --- in a training step ---


class Two(nn.Module):
    """Two convolutions, of which the second gives the logits."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.tanh(nn.Conv(6, (3, 3), name="conv")(image))
        return nn.Conv(K, (1, 1), name="head")(x), {"aux": ()}


def steps_of(name, devices, accumulate):
    tx = pruned(optax.adam(0.02), Pruning(0.6, end=3))
    strategy = parallel.make_strategy(name, {"batch_size": 16}, jax.devices()[:devices])
    loss = make_loss("cross_entropy", num_classes=K)
    step = make_train_step(
        Two(), tx, loss, accumulate=accumulate, ema_decay=0.9, axis_name=strategy.axis_name, gradients=False
    )
    compiled = strategy.compile_train(with_pruned_average(step))
    state = strategy.put_state(jax.jit(lambda: init_state(Two(), tx, jax.random.key(1), (8, 8, 3), ema=True))())
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(16, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(0, K, (16, 8, 8)).astype(np.uint8),
    }
    for _ in range(5):
        state, _ = compiled(state, strategy.put_batch(batch), strategy.put_key(jax.random.key(2)))
    return jax.device_get(strategy.get_state(state))


def test_masks_are_the_same_however_the_batch_is_split_and_hold_for_the_average():
    state = steps_of("jit", 1, 1)
    [mask] = jax.tree.leaves(masks_of(state.opt_state))
    assert np.sum(~mask) == round(0.6 * 162)
    for params in (state.params, state.ema_params):
        np.testing.assert_array_equal(params["conv"]["kernel"] == 0, ~mask)
        assert np.all(params["head"]["kernel"])
    for how in (("jit", 8, 1), ("pmap", 8, 2)):
        other = steps_of(*how)
        np.testing.assert_array_equal(jax.tree.leaves(masks_of(other.opt_state))[0], mask)
        assert_same(other, state)


# --- runs ---


def config_of(**values):
    config = tiny_config(steps=4, batch_size=8, data__shapes_train=8, eval__every=2, checkpoint__every=2)
    update(config, log__every=1, log__images=0, log__tensorboard=False, ema__decay=0.9, eval__batch_size=8, **values)
    return config


def test_a_pruned_run_resumes_bit_for_bit_and_reports_its_zeros(tmp_path):
    config = config_of(prune__sparsity=0.75, prune__end=3, prune__every=1)
    train(config, tmp_path / "a", "again")
    scored = [record["sparsity"] for record in read_log(tmp_path / "a" / "log.jsonl") if record["split"] == "val"]
    assert 0 < scored[0] < scored[1] == pytest.approx(0.75, abs=1e-3)
    stored = state_of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    train(config, tmp_path / "b", "again")
    assert_identical(state_of(tmp_path / "b"), stored)
    run = load_run(tmp_path / "a", "last")
    assert run.parts.sparsity(lambda: run.variables)["sparsity"] == scored[1]
    for kernel in Pruning(0.75).kernels(run.variables["params"]).values():
        assert np.sum(np.asarray(kernel) == 0) == round(0.75 * kernel.size)


def test_the_keys_reach_the_schedule():
    values = {"sparsity": 0.8, "initial": 0.2, "begin": 1, "end": 3, "every": 2, "scope": "global", "keep": ("head",)}
    config = config_of(**{f"prune__{name}": value for name, value in values.items()})
    pruning = pruning_of(config, EVERYTHING)
    assert {name: getattr(pruning, name) for name in values} == values
    update(config, prune__end=0)
    assert pruning_of(config, EVERYTHING).end == 2  # half of the steps


def test_without_the_keys_the_optimiser_has_no_masks():
    parts = build_parts(config_of(), 3)
    state = jax.eval_shape(parts.init, jax.random.key(0))
    assert masks_of(state.opt_state) == {} and parts.sparsity(lambda: state.variables) == {}
    pruning = from_config(config_of(prune__sparsity=0.5))[0]
    assert isinstance(jax.eval_shape(pruning.init, state.params), Masked)


def test_a_discriminator_is_not_pruned():
    parts = build_parts(config_of(prune__sparsity=0.5, adversarial__weight=0.01), 3)
    state = jax.eval_shape(parts.init, jax.random.key(0))
    assert "discriminator" in state.params
    kernels = by_path(masks_of(state.opt_state))
    assert kernels and not any("discriminator" in path or "head" in path for path in kernels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prune__sparsity": 1.0}, r"^prune\.sparsity must be .*got 1\.0"),
        ({"prune__sparsity": 0.5, "prune__end": 4}, r"^prune\.end is 4, which must be below steps=4"),
        ({"prune__sparsity": 0.5, "prune__begin": 9}, r"^prune\.begin is 9, which must be below steps=4"),
        (
            {"prune__sparsity": 0.5, "prune__begin": 3, "prune__end": 2},
            r"^prune\.end=2 must not be before prune\.begin=3",
        ),
        ({"prune__sparsity": 0.5, "prune__initial": 0.7}, r"^prune\.initial=0\.7 must not be above"),
        ({"prune__sparsity": 0.5, "lora__rank": 2}, r"^prune\.sparsity sets weights of kernels to 0, to which lora"),
    ],
)
def test_values_that_do_not_agree_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(config_of(**values))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (("stem9",), r"^prune\.keep=stem9 is found in no path of a kernel; one is "),
        (("(",), r"^prune\.keep must be regular expressions, got '\('"),
        (("kernel",), r"^prune\.sparsity has no kernel to prune"),
    ],
)
def test_kernels_that_are_not_there_are_refused(keep, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(build_parts(config_of(prune__sparsity=0.5, prune__keep=keep), 3).init, jax.random.key(0))

"""MixUp: both labels of a pair count, each with its share; and every way to mix at once, however the batch is cut."""

import shutil

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.parity import FAST_COMPILE
from helpers.tiny_run import short_config
from helpers.tiny_training import assert_identical, state_of
from scipy import stats

from jaxseg import build, losses, parallel
from jaxseg.arguments import MIXING
from jaxseg.config import default_config, update
from jaxseg.errors import ConfigError
from jaxseg.mixing import MixedLoss, Second, larger_shares, make_mix
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.train import train
from jaxseg.types import IGNORE, LESSON


def unchanged(key, image, label):
    return image, label


def configured(**changes):
    config = default_config()
    net = {"model__name": "cnn", "model__args": {"widths": (4,), "dropout": 0.0, "norm": "none"}}
    update(config, **{**net, "data__size": (16, 16), **changes})
    return config


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_the_larger_shares_are_those_of_a_beta_distribution(alpha):
    shares = larger_shares(alpha)
    expected = stats.beta(alpha, alpha).ppf(0.5 + np.linspace(0, 1, len(shares)) / 2)
    np.testing.assert_allclose(shares, expected, atol=2e-3)
    assert shares.dtype == np.float32 and shares[0] == 0.5


def test_mixup_adds_pairs_and_keeps_both_labels():
    rng = np.random.default_rng(1)
    batch = {"image": rng.random((6, 8, 8, 2), np.float32), "label": rng.integers(0, 7, (6, 8, 8)).astype(np.int32)}
    batch["keys"] = jax.random.split(jax.random.key(0), 6)
    mix = make_mix(unchanged, mixup=0.7, mixup_alpha=1.0)
    image, label, second = jax.jit(mix, compiler_options=FAST_COMPILE)(batch, None)
    assert second is not None
    share = np.asarray(second.share)
    assert (share >= 0.5).all() and len(set(share[share < 1])) > 2 and (share == 1).any()
    other = np.arange(6) ^ 1
    np.testing.assert_array_equal(label, batch["label"])
    np.testing.assert_array_equal(second.label, batch["label"][other])
    parts = share[:, None, None, None]
    expected = np.where(parts < 1, parts * batch["image"] + (1 - parts) * batch["image"][other], batch["image"])
    np.testing.assert_allclose(image, expected, rtol=1e-6)


@pytest.mark.parametrize("terms", ["cross_entropy", "focal + 0.5 * mse", "sets"])
def test_the_loss_of_a_mixture_is_the_sum_of_two(terms):
    """Of each image alone it is that sum; of several, sums and weights of pixels are added before they are divided."""
    rng = np.random.default_rng(0)
    k = 3
    sets = terms == "sets"
    loss = losses.make_loss("binary_cross_entropy" if sets else terms, num_classes=k, multilabel=sets)
    logits = rng.normal(size=(3, 4, 5, k)).astype(np.float32)
    label, other = rng.integers(0, 2**k if sets else k, (2, 3, 4, 5)).astype(np.int32)
    share = np.array([1.0, 0.6, 0.8], np.float32)
    mixed = MixedLoss(loss)

    @jax.jit
    def value(logits, label, other, share):
        return mixed.value(mixed.stats(logits, label, {LESSON: Second(other, share)}))

    alone = jax.jit(loss)
    for i in range(3):
        one = slice(i, i + 1)
        expected = share[i] * alone(logits[one], label[one]) + (1 - share[i]) * alone(logits[one], other[one])
        np.testing.assert_allclose(value(logits[one], label[one], other[one], share[one]), expected, rtol=1e-5)
    if terms == "cross_entropy":
        label[0, :3], other[1] = IGNORE, IGNORE
        log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
        total = weight = 0.0
        for i, y, x in np.ndindex(3, 4, 5):
            for number, part in ((label[i, y, x], share[i]), (other[i, y, x], 1 - share[i])):
                if number != IGNORE:
                    total, weight = total - part * log_p[i, y, x, number], weight + part
        np.testing.assert_allclose(value(logits, label, other, share), total / weight, rtol=1e-5)


@pytest.mark.parametrize(
    ("terms", "named"),
    [("cross_entropy + dice", "dice"), ("lovasz", "lovasz"), ("ohem", "ohem"), ("boundary + mse", "boundary")],
)
def test_what_mixup_cannot_mix_is_refused(terms, named):
    config = configured(augment__mixup=0.5, loss__terms=terms)
    with pytest.raises(ConfigError, match=f"augment.mixup=0.5: .*the term {named} is no mean over pixels"):
        build.build_parts(config, 3)


class Twice(nn.Module):
    """Logits of each pixel alone, twice: as those of the network and of an auxiliary head."""

    @nn.compact
    def __call__(self, image, *, train):
        logits = nn.Dense(3)(image)
        return logits, {"aux": (logits,)}


def test_an_auxiliary_head_learns_from_both_labels():
    rng = np.random.default_rng(2)
    batch = {"image": rng.random((4, 4, 4, 2), np.float32), "label": rng.integers(0, 3, (4, 4, 4)).astype(np.int32)}
    loss, tx = MixedLoss(losses.make_loss("cross_entropy", num_classes=3)), optax.sgd(0.1)
    teach = make_mix(unchanged, mixup=1.0, mixup_alpha=5.0)
    step = make_train_step(Twice(), tx, loss, teach=teach, aux_weight=0.5)
    state = init_state(Twice(), tx, jax.random.key(0), (4, 4, 2), ema=False)
    _, metrics = jax.jit(step, compiler_options=FAST_COMPILE)(state, batch, jax.random.key(1))
    np.testing.assert_array_equal(metrics["terms"]["auxiliary1"], metrics["terms"]["cross_entropy"])
    np.testing.assert_allclose(metrics["loss"], 1.5 * metrics["terms"]["cross_entropy"], rtol=1e-6)


EVERY_WAY = {
    **dict.fromkeys((f"augment__{name}" for name in MIXING), 0.25),
    "augment__copy_paste_scale": (0.5, 2.0),
    "augment__mixup_alpha": 1.0,
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def steps_of():
    """Returns the parameters and metrics after two steps with every way to mix, by strategy, devices, micro-batches."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (16, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    batch = {"image": rng.integers(0, 255, (16, 16, 16, 3), np.uint8), "label": label}

    def run(name, devices, accumulate=1):
        config = configured(**EVERY_WAY, accumulate=accumulate)
        options = FAST_COMPILE if name == "jit" else None
        strategy = parallel.make_strategy(name, {"batch_size": 16}, jax.devices()[:devices], options=options)
        parts = build.build_parts(config, 3, axis_name=strategy.axis_name)
        step = strategy.compile_train(parts.train_step())
        state, key = strategy.put_state(jax.jit(parts.init)(jax.random.key(0))), strategy.put_key(jax.random.key(1))
        for _ in range(2):
            state, metrics = step(state, strategy.put_batch(batch), key)
        return jax.device_get((strategy.get_state(state).params, strategy.first(metrics)))

    return run


@pytest.fixture(scope="module")
def on_one_device(steps_of):
    return steps_of("jit", 1)


@pytest.mark.parametrize(
    ("name", "devices", "accumulate"),
    [("jit", 8, 1), ("pmap", 8, 1), pytest.param("jit", 2, 4, marks=pytest.mark.slow)],
)
def test_all_mixings_are_the_same_on_one_device_and_eight(steps_of, on_one_device, name, devices, accumulate):
    params, metrics = steps_of(name, devices, accumulate)
    np.testing.assert_array_equal(metrics["confusion"], on_one_device[1]["confusion"])
    for got, expected in zip(
        *map(jax.tree.leaves, ((params, metrics["terms"]), (on_one_device[0], on_one_device[1]["terms"])))
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_with_every_mixing_resumes_bit_for_bit(tmp_path):
    config = short_config(
        **{key: value for key, value in EVERY_WAY.items() if key.startswith("augment")}, loss__terms="cross_entropy"
    )
    train(config, tmp_path / "a", "a test", "")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / str(config.steps))
    train(config, tmp_path / "b", "a test", "")
    assert_identical(state_of(tmp_path / "b"), state_of(tmp_path / "a"))

"""Adversarial training: both gradients, exact sums, who moves whom, unlabelled images, and runs that resume."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity import FAST_COMPILE
from test_step import K, Tiny, assert_same
from tiny_run import tiny_config

from jaxseg import optim, setup
from jaxseg.adversarial import (
    AdversarialLoss,
    Discriminator,
    Duel,
    label_maps,
    segmenter_of,
    true_maps,
    without_discriminator,
)
from jaxseg.checkpoint import Checkpoints
from jaxseg.config import ConfigError, update, validate
from jaxseg.data.augment import to_float
from jaxseg.inference.run import load_run
from jaxseg.losses import make_loss
from jaxseg.parallel import make_strategy
from jaxseg.report import read_log
from jaxseg.state import init_state
from jaxseg.step import make_eval_step, make_train_step
from jaxseg.train import train
from jaxseg.types import IGNORE

LOSS = make_loss("cross_entropy + 0.5 * dice", num_classes=K)
quick = functools.partial(jax.jit, compiler_options=FAST_COMPILE)
SEMI = AdversarialLoss(LOSS, weight=0.3, unlabelled_weight=0.2, taught_weight=0.4, threshold=0.45)


def duel(axis_name=None, rate=0.0, image=False):
    return Duel(Tiny(rate=rate, axis_name=axis_name), Discriminator((4,)), image)


def players(segmenter=0.5, discriminator=0.5):
    """Plain gradient steps of both, at a rate each."""
    return optax.partition(
        {"segmenter": optax.sgd(segmenter), "discriminator": optax.sgd(discriminator)}, optim._player
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (8, 6, 5)).astype(np.uint8)
    label[:3] = IGNORE  # unlabelled images
    label[5, :4] = IGNORE
    return {"image": rng.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8), "label": label}


def start(tx, model=None):
    state = init_state(model or duel(), tx, jax.random.key(1), (6, 5, 3))
    # Away from the near-zero start of both heads, where gradients through them vanish.
    rng = np.random.default_rng(1)
    return state.replace(
        params=jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(np.float32), state.params)
    )


def one_step(batch, objective=SEMI, tx=None, model=None, **options):
    tx = tx or players()
    state = start(tx, model)
    step = quick(make_train_step(model or duel(), tx, objective, prepare=to_float, aux_weight=0.0, **options))
    return state, *step(state, batch, jax.random.key(2))


def moved(before, after, rate=0.5):
    """The gradient that a step of plain descent took, of the (segmenter, discriminator)."""
    gradient = jax.tree.map(lambda a, b: np.asarray(a - b) / rate, before.params, after.params)
    return without_discriminator({"params": gradient})["params"], gradient["discriminator"]


def mean(values, where):
    """The mean over the pixels of a mask."""
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.sum(where)


def written_out(segmenter, discriminator, batch, objective, threshold):
    """(loss of S, loss of D) as the papers have them, each by itself."""
    label = batch["label"].astype(np.int32)
    logits, _ = Tiny().apply({"params": segmenter}, to_float(jnp.asarray(batch["image"])), train=True)
    known = label != IGNORE
    empty = np.broadcast_to(~known.any((1, 2), keepdims=True), label.shape)
    p = jnp.where((known | empty)[..., None], jax.nn.softmax(logits), 0.0)
    truth = np.eye(K, dtype=np.float32)[np.where(known, label, 0)] * known[..., None]

    def judge(maps):
        return jax.nn.sigmoid(Discriminator((4,)).apply({"params": discriminator}, maps))

    d = judge(p)
    taught = -jnp.max(jax.nn.log_softmax(logits), axis=-1)  # of the likeliest class
    of_s = (
        LOSS(logits, label)
        - objective.weight * mean(jnp.log(d), known)
        - objective.unlabelled_weight * mean(jnp.log(d), empty)
        + objective.taught_weight * mean(taught, empty & (d > threshold))
    )
    return of_s, -0.5 * (mean(jnp.log(judge(truth)), known) + mean(jnp.log(1 - d), known))


def test_both_gradients_are_those_of_the_two_losses_apart(batch):
    before, after, metrics = one_step(batch)
    segmenter = without_discriminator({"params": before.params})["params"]
    discriminator = before.params["discriminator"]

    @quick
    def losses(s, d, threshold):
        return written_out(s, d, batch, SEMI, threshold)

    @quick
    def gradients(s, d, threshold):
        of_s = jax.grad(lambda s: written_out(s, d, batch, SEMI, threshold)[0])(s)
        return of_s, jax.grad(lambda d: written_out(s, d, batch, SEMI, threshold)[1])(d)

    both = segmenter, discriminator
    np.testing.assert_allclose(metrics["loss"], sum(losses(*both, SEMI.threshold)), rtol=1e-5)
    assert_same(moved(before, after), gradients(*both, SEMI.threshold), rtol=2e-4)
    # Finite differences along either gradient; with a threshold of 0, which no small step crosses.
    for which, gradient in enumerate(gradients(*both, 0.0)):
        norm = optax.tree.norm(gradient)

        def at(step, which=which, gradient=gradient, norm=norm):
            there = list(both)
            there[which] = jax.tree.map(lambda x, g: x + step * g / norm, both[which], gradient)
            return float(losses(*there, 0.0)[which])

        np.testing.assert_allclose((at(1e-2) - at(-1e-2)) / 2e-2, norm, rtol=1e-2)


def test_discriminator_is_its_layers_in_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    model, maps = Discriminator((4, 6)), rng.uniform(size=(2, 16, 24, 3)).astype(np.float32)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), model.init(jax.random.key(0), maps)["params"]
    )
    leaves = {}
    x = torch.tensor(maps.transpose(0, 3, 1, 2))
    for name in ("conv1", "conv2", "head"):
        kernel = torch.tensor(params[name]["kernel"].transpose(3, 2, 0, 1), requires_grad=True)
        leaves[name] = kernel
        x = torch.nn.functional.conv2d(x, kernel, torch.tensor(params[name]["bias"]), stride=2, padding=1)
        x = x if name == "head" else torch.nn.functional.leaky_relu(x, 0.2)
    x = torch.nn.functional.interpolate(x, size=(16, 24), mode="bilinear", align_corners=False)[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.ones_like(x))
    loss.backward()

    def ours(params):
        return jnp.mean(jax.nn.softplus(-model.apply({"params": params}, maps)))

    np.testing.assert_allclose(model.apply({"params": params}, maps), x.detach().numpy(), rtol=1e-4, atol=1e-4)
    value, gradient = jax.value_and_grad(ours)(params)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for name, kernel in leaves.items():
        expected = kernel.grad.numpy().transpose(2, 3, 1, 0)
        np.testing.assert_allclose(gradient[name]["kernel"], expected, rtol=1e-3, atol=1e-6)


def test_discriminator_takes_any_size():
    model = Discriminator()
    for size in ((1, 1), (33, 47), (64, 64)):
        maps = jax.ShapeDtypeStruct((2, *size, 5), jnp.float32)
        verdict, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), maps)
        assert verdict.shape == (2, *size) and verdict.dtype == jnp.float32


def test_neither_moves_the_other(batch):
    """The gradient of D is the same whatever S is given to learn, and S's whatever D is taught."""
    before, after, _ = one_step(batch)
    _, of_d = moved(before, after)
    for objective in (AdversarialLoss(LOSS, weight=7.0), AdversarialLoss(make_loss("mse", num_classes=K), weight=0.0)):
        assert_same(moved(*one_step(batch, objective)[:2])[1], of_d)
    plain = make_train_step(Tiny(), optax.sgd(0.5), LOSS, prepare=to_float, aux_weight=0.0)
    alone = segmenter_of(before).replace(opt_state=optax.sgd(0.5).init(None))
    trained, _ = quick(plain)(alone, batch, jax.random.key(2))
    assert_same(segmenter_of(one_step(batch, AdversarialLoss(LOSS, weight=0.0))[1]).params, trained.params)

    for rates, still in (((0.0, 0.5), "segmenter"), ((0.5, 0.0), "discriminator")):
        before, after, _ = one_step(batch, tx=players(*rates))
        for name, child in before.params.items():
            player = name if name == "discriminator" else "segmenter"
            same = all(
                np.array_equal(a, b) for a, b in zip(jax.tree.leaves(child), jax.tree.leaves(after.params[name]))
            )
            assert same == (player == still or name == "aux"), name


@pytest.mark.parametrize("image", [False, True])
def test_the_image_may_be_shown(batch, image):
    state = start(players(), duel(image=image))
    assert state.params["discriminator"]["conv1"]["kernel"].shape[2] == K + 3 * image
    _, after, metrics = one_step(batch, model=duel(image=image))
    assert np.isfinite(metrics["loss"]) and all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_learning_is_a_contest(batch):
    """D alone learns to tell; S alone, against a fixed D, to be taken for true."""
    objective = AdversarialLoss(LOSS, weight=5.0)

    def fooled(rates):
        tx = players(*rates)
        state, step = start(tx), quick(make_train_step(duel(), tx, objective, prepare=to_float, aux_weight=0.0))
        verdicts = []
        for _ in range(10):
            verdicts.append(float(taken_for_true(state.params)))
            state, _ = step(state, batch, jax.random.key(2))
        return verdicts[0], verdicts[-1]

    @quick
    def taken_for_true(params):
        logits, _ = Tiny().apply(without_discriminator({"params": params}), to_float(batch["image"]))
        verdict = Discriminator((4,)).apply({"params": params["discriminator"]}, label_maps(logits))
        return jax.nn.sigmoid(verdict).mean()

    first, last = fooled((0.0, 0.5))
    assert last < first
    first, last = fooled((0.1, 0.0))
    assert last > first


# --- unlabelled images and label maps ---------------------------------------------------------------------------------


def test_unlabelled_images_teach_the_segmenter_alone(batch):
    void = {**batch, "label": np.full_like(batch["label"], IGNORE)}
    before, after, _ = one_step(void)
    of_s, of_d = moved(before, after)
    assert all((x == 0).all() for x in jax.tree.leaves(of_d))
    assert any((x != 0).any() for x in jax.tree.leaves(of_s))
    before, after, metrics = one_step(void, AdversarialLoss(LOSS, weight=0.3))
    assert metrics["loss"] == 0
    assert_same(after.params, before.params, rtol=0)


def test_void_pixels_of_labelled_images_change_nothing():
    """What S says where a labelled image has no label must reach neither D nor the losses."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, K, (2, 4, 4))
    labels[0, 0] = IGNORE
    logits = rng.normal(size=(2, 4, 4, K)).astype(np.float32)
    other = logits.copy()
    other[0, 0] += rng.normal(size=(4, K))
    params = Discriminator((4,)).init(jax.random.key(0), jnp.zeros((1, 4, 4, K)))
    out = {"discriminator": lambda maps, frozen: Discriminator((4,)).apply(params, maps)}
    assert_same(SEMI.stats(logits, labels, out), SEMI.stats(other, labels, out), rtol=0)


def test_threshold_chooses_what_is_taught():
    labels, logits = np.full((1, 1, 4), IGNORE), np.zeros((1, 1, 4, K), np.float32)
    logits[..., 1] = [[[1.0, 2.0, 3.0, 4.0]]]
    verdict = jnp.asarray([[[-2.0, -1.0, 0.1, 3.0]]])
    for threshold, taught in ((0.2, [1, 2, 3]), (0.5, [2, 3]), (0.0, [0, 1, 2, 3]), (0.99, [])):
        objective = AdversarialLoss(LOSS, taught_weight=1.0, threshold=threshold)
        total, weight = objective.stats(logits, labels, {"discriminator": lambda maps, frozen: verdict})["taught"]
        each = -np.asarray(jax.nn.log_softmax(logits))[0, 0, :, 1]
        assert weight == len(taught)
        np.testing.assert_allclose(total, each[taught].sum(), rtol=1e-5)


def test_maps():
    one = np.array([[[[0.0], [2.0]]]], np.float32)
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(label_maps(one)[0, 0], [[0.5, 0.5], [1 - p, p]], rtol=1e-6)
    labels, predicted = (
        np.array([[[0, 2, 1, IGNORE]]]),
        np.array([[[[0.5, 0.3, 0.2], [0, 0.02, 0.98], [0, 1, 0], [1, 0, 0]]]]),
    )
    np.testing.assert_array_equal(true_maps(labels, predicted)[0, 0], [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
    soft = np.asarray(true_maps(labels, predicted, 0.9))[0, 0]
    np.testing.assert_allclose(soft, [[0.9, 0.06, 0.04], [0, 0.02, 0.98], [0, 1, 0], [0, 0, 0]], atol=1e-6)


# --- devices, checkpoints, the command --------------------------------------------------------------------------------


def run(batch, *, strategy="jit", devices=1, accumulate=1):
    """The state and the last metrics after two steps."""
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    tx, model = players(), duel(strat.axis_name)
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
    tx = optax.partition({"segmenter": optax.adamw(1e-2), "discriminator": optax.adam(1e-2)}, optim._player)
    step = quick(make_train_step(duel(rate=0.3), tx, SEMI, prepare=to_float, ema_decay=0.9))
    init = init_state(duel(), tx, jax.random.key(1), (6, 5, 3), ema=True)
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
        steps=2, batch_size=8, data__shapes_train=8, eval__every=1, checkpoint__every=1, log__every=1, log__images=1,
        log__tensorboard=False, ema__decay=0.9, adversarial__weight=0.05, adversarial__widths=(4,),
        adversarial__taught_weight=0.1,
    )  # fmt: skip
    update(config, eval__batch_size=8)
    validate(config)
    setup.check(config)
    assert train(config, tmp_path / "run", "again").confusion.sum() > 0
    assert [r["step"] for r in read_log(tmp_path / "run/log.jsonl") if r["split"] == "train"] == [1, 2]
    loaded = load_run(tmp_path / "run")
    assert "discriminator" not in loaded.variables["params"] and "discriminator" not in loaded.state.params
    assert train(config, tmp_path / "run", "again").confusion.sum() > 0  # resumes, and finds the run ended


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adversarial__weight": -0.1}, "adversarial.weight must not be negative"),
        ({"adversarial__taught_weight": 0.1}, "taught_weight needs a discriminator"),
        ({"adversarial__weight": 0.1, "adversarial__learning_rate": 0.0}, "learning_rate must be positive"),
        ({"adversarial__widths": ()}, "adversarial.widths must be"),
        ({"adversarial__threshold": 1.5}, r"adversarial.threshold must lie in \[0, 1\]"),
    ],
)
def test_wrong_keys_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        validate(tiny_config(**values))

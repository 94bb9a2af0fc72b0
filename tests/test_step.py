"""The steps: exact gradients for every division of the batch, and the same numbers from every strategy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_step import K, Tiny, assert_same
from jax.test_util import check_grads

from jaxseg.data.augment import to_float
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.losses import make_loss
from jaxseg.nn import resize
from jaxseg.parallel import make_strategy
from jaxseg.state import count_parameters, init_state
from jaxseg.step import make_eval_step, make_train_step
from jaxseg.types import IGNORE


def jitter(key, image, label):
    """An augmentation that depends on the example's key alone."""
    noise = jax.random.normal(key, image.shape) * 0.1
    flip = jax.random.bernoulli(jax.random.fold_in(key, 1))
    image = to_float(image) + noise
    return jnp.where(flip, image[:, ::-1], image), jnp.where(flip, label[:, ::-1], label)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (16, 6, 5)).astype(np.uint8)
    # Examples have very different numbers of labelled pixels, so that a mean of means is wrong.
    label[:7] = IGNORE
    label[8, :4] = IGNORE
    return {"image": rng.integers(0, 256, (16, 6, 5, 3)).astype(np.uint8), "label": label}


def run(
    batch,
    *,
    strategy="jit",
    devices=1,
    accumulate=1,
    norm="group",
    rate=0.0,
    terms="cross_entropy + 0.5 * dice",
    augment=jitter,
    steps=2,
    ema=0.0,
    remat=False,
):
    """Returns the state and the last metrics after some steps."""
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    model = Tiny(norm=norm, rate=rate, axis_name=strat.axis_name)
    tx = optax.sgd(0.5, momentum=0.9)
    init = init_state(Tiny(norm=norm), tx, jax.random.key(1), (6, 5, 3), ema=ema > 0)
    step = make_train_step(
        model,
        tx,
        make_loss(terms, num_classes=K),
        augment=augment,
        accumulate=accumulate,
        ema_decay=ema,
        remat=remat,
        axis_name=strat.axis_name,
    )
    compiled = strat.compile_train(step, remat=remat)
    state, key = strat.put_state(init), strat.put_key(jax.random.key(2))
    for _ in range(steps):
        state, metrics = compiled(state, strat.put_batch(batch), key)
    return jax.device_get(strat.get_state(state)), jax.device_get(strat.first(metrics))


@pytest.fixture(scope="module")
def reference(batch):
    return run(batch)


@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "jit", "devices": 8},
        {"strategy": "pmap", "devices": 1},
        {"strategy": "pmap", "devices": 8},
        {"accumulate": 4},
        {"accumulate": 2, "strategy": "jit", "devices": 4},
        {"accumulate": 2, "strategy": "pmap", "devices": 8},
        {"remat": True, "strategy": "jit", "devices": 8},
        {"remat": True, "accumulate": 2, "strategy": "pmap", "devices": 8},
    ],
    ids=str,
)
def test_same_numbers_however_the_batch_is_cut(batch, reference, how):
    state, metrics = run(batch, **how)
    assert_same(state, reference[0])
    assert_same(metrics, reference[1])


# Only batch norm sums over devices.
@pytest.mark.parametrize("norm", ["batch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("instance", "layer"))])
def test_pmap_equals_jit_with_every_norm_and_dropout(batch, norm):
    one = run(batch, norm=norm, rate=0.4)
    many = run(batch, norm=norm, rate=0.4, strategy="pmap", devices=8)
    sharded = run(batch, norm=norm, rate=0.4, devices=8)
    again = run(batch, norm=norm, rate=0.4, strategy="pmap", devices=8, remat=True)
    for other in (many, sharded, again):
        assert_same(other[0], one[0], rtol=1e-4)
        assert_same(other[1], one[1], rtol=1e-4)


def test_loss_and_gradient_are_those_of_the_plain_formula(batch):
    """The step's two-phase gradient equals jax.grad of the loss written out in one piece."""
    loss = make_loss("cross_entropy + 0.5 * dice", num_classes=K)
    model = Tiny()
    lr = 0.1
    state = init_state(model, optax.sgd(lr), jax.random.key(1), (6, 5, 3))
    step = jax.jit(make_train_step(model, optax.sgd(lr), loss, prepare=to_float, aux_weight=0.4, accumulate=2))
    new, metrics = step(state, batch, jax.random.key(0))

    def plain(params):
        label = jnp.asarray(batch["label"], jnp.int32)
        logits, out = model.apply({"params": params}, to_float(jnp.asarray(batch["image"])), train=True)
        aux = jax.image.resize(out["aux"][0], logits.shape, "bilinear", antialias=False)
        total = 0.0
        for weight, each in ((1.0, logits), (0.4, aux)):
            total += weight * loss.value(loss.stats(each, label))
        return total, {name: make_loss(name, num_classes=K)(logits, label) for name in ("cross_entropy", "dice")}

    (value, alone), grads = jax.jit(jax.value_and_grad(plain, has_aux=True))(state.params)
    terms = metrics["terms"]
    assert set(terms) == {"cross_entropy", "dice", "auxiliary1"}
    for name in alone:
        np.testing.assert_allclose(terms[name], alone[name], rtol=1e-6)
    parts = terms["cross_entropy"] + 0.5 * terms["dice"] + 0.4 * terms["auxiliary1"]
    np.testing.assert_allclose(parts, metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    taken = jax.tree.map(lambda a, b: (a - b) / lr, state.params, new.params)
    assert_same(taken, grads, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    check_grads(jax.jit(plain), (state.params,), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("weights, expected", [((0.3,), 0.3), (0.3, 0.3), ((0.0,), 0.0)])
def test_auxiliary_losses_are_weighed_one_by_one(batch, weights, expected):
    loss, state = make_loss(num_classes=K), init_state(Tiny(), optax.sgd(0.1), jax.random.key(1), (6, 5, 3))
    step = jax.jit(make_train_step(Tiny(), optax.sgd(0.1), loss, prepare=to_float, aux_weight=weights))
    logits, out = Tiny().apply(state.variables, to_float(jnp.asarray(batch["image"])), train=True)
    label = jnp.asarray(batch["label"], jnp.int32)
    aux = jax.image.resize(out["aux"][0], logits.shape, "bilinear", antialias=False)
    plain = loss(logits, label) + expected * loss(aux, label)
    np.testing.assert_allclose(step(state, batch, jax.random.key(0))[1]["loss"], plain, rtol=1e-6)


def test_a_wrong_number_of_auxiliary_weights_is_refused(batch):
    loss, state = make_loss(num_classes=K), init_state(Tiny(), optax.sgd(0.1), jax.random.key(1), (6, 5, 3))
    step = make_train_step(Tiny(), optax.sgd(0.1), loss, prepare=to_float, aux_weight=(0.5, 0.25))
    with pytest.raises(
        ValueError, match=r"\(0.5, 0.25\), but the model has 1 auxiliary output: give 1 number, such as \(0.5,\)"
    ):
        jax.eval_shape(step, state, batch, jax.random.key(0))


def test_all_void_batch_changes_nothing_and_is_finite(batch):
    void = {**batch, "label": np.full_like(batch["label"], IGNORE)}
    state, metrics = run(void, steps=1)
    start = init_state(Tiny(), optax.sgd(0.5, momentum=0.9), jax.random.key(1), (6, 5, 3))
    assert metrics["loss"] == 0.0 and metrics["grad_norm"] == 0.0
    assert_same(state.params, jax.device_get(start.params), rtol=0)


def test_train_confusion_counts_valid_pixels(batch, reference):
    assert reference[1]["confusion"].sum() == (batch["label"] != IGNORE).sum()


def test_another_key_or_step_augments_otherwise(batch):
    tx = optax.sgd(0.1)
    state = init_state(Tiny(), tx, jax.random.key(1), (6, 5, 3))
    step = jax.jit(make_train_step(Tiny(), tx, make_loss("cross_entropy", num_classes=K), augment=jitter))
    losses = [
        float(step(s, batch, k)[1]["loss"])
        for s, k in [
            (state, jax.random.key(0)),
            (state, jax.random.key(0)),
            (state, jax.random.key(1)),
            (state.replace(step=state.step + 1), jax.random.key(0)),
        ]
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_ema_follows_the_warmed_up_recursion(batch):
    decay, lr = 0.9, 0.5
    tx = optax.sgd(lr)
    state = init_state(Tiny(), tx, jax.random.key(1), (6, 5, 3), ema=True)
    step = jax.jit(
        make_train_step(Tiny(), tx, make_loss("cross_entropy", num_classes=K), prepare=to_float, ema_decay=decay)
    )
    average = np.asarray(state.ema_params["head"]["kernel"], np.float64)
    for t in range(3):
        state, _ = step(state, batch, jax.random.key(0))
        d = min(decay, (1 + t) / (10 + t))
        average = d * average + (1 - d) * np.asarray(state.params["head"]["kernel"], np.float64)
    np.testing.assert_allclose(state.ema_params["head"]["kernel"], average, rtol=1e-6)
    assert state.variables["params"] is state.ema_params


def test_one_compilation_and_no_transfer_inside(batch):
    strat = make_strategy("jit", {"batch_size": 16})
    tx = optax.adam(1e-3)
    compiled = strat.compile_train(
        make_train_step(Tiny(), tx, make_loss("cross_entropy", num_classes=K), prepare=to_float)
    )
    state = strat.put_state(init_state(Tiny(), tx, jax.random.key(1), (6, 5, 3)))
    key = strat.put_key(jax.random.key(2))
    placed = strat.put_batch(batch)
    state, _ = compiled(state, placed, key)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = compiled(state, placed, key)
    assert compiled._cache_size() == 1


def test_donation_frees_the_old_state_and_leaves_the_given_one(batch):
    strat = make_strategy("jit", {"batch_size": 16})
    tx = optax.sgd(0.1)
    init = init_state(Tiny(), tx, jax.random.key(1), (6, 5, 3))
    compiled = strat.compile_train(
        make_train_step(Tiny(), tx, make_loss("cross_entropy", num_classes=K), prepare=to_float)
    )
    placed = strat.put_state(init)
    compiled(placed, strat.put_batch(batch), strat.put_key(jax.random.key(2)))
    assert placed.params["head"]["kernel"].is_deleted()
    assert not init.params["head"]["kernel"].is_deleted()


def test_batch_that_micro_batches_cannot_share(batch):
    tx = optax.sgd(0.1)
    state = init_state(Tiny(), tx, jax.random.key(1), (6, 5, 3))
    step = make_train_step(Tiny(), tx, make_loss("cross_entropy", num_classes=K), prepare=to_float, accumulate=3)
    with pytest.raises(ValueError, match=r"accumulate=3 does not divide the batch of 16"):
        jax.eval_shape(step, state, batch, jax.random.key(0))


def test_labels_of_floating_point_are_refused_and_not_cut(batch):
    tx, loss = optax.sgd(0.1), make_loss("cross_entropy", num_classes=K)
    state = jax.eval_shape(lambda key: init_state(Tiny(), tx, key, (6, 5, 3)), jax.random.key(1))
    wrong = {**batch, "label": batch["label"].astype(np.float32) + 0.5}
    train, evaluate = (
        make_train_step(Tiny(), tx, loss, prepare=to_float),
        make_eval_step(Tiny(), loss, prepare=to_float),
    )
    for step, key in ((train, [jax.random.key(0)]), (evaluate, [])):
        jax.eval_shape(step, state, {**batch, "label": batch["label"].astype(np.int64)}, *key)
        with pytest.raises(ArgumentError, match=r"^Labels must be integers, .*, got float32"):
            jax.eval_shape(step, state, wrong, *key)


@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_evaluation_sums_add_up_over_batches_and_devices(batch, strategy):
    loss = make_loss("cross_entropy + dice", num_classes=K)
    strat = make_strategy(strategy, {"b": 8})
    state = init_state(Tiny("batch"), optax.sgd(0.1), jax.random.key(1), (6, 5, 3))
    whole = jax.jit(make_eval_step(Tiny("batch"), loss, prepare=to_float))(state, batch)
    compiled = strat.compile_eval(make_eval_step(Tiny("batch"), loss, prepare=to_float, axis_name=strat.axis_name))
    placed = strat.put_state(state)
    parts = [
        strat.first(compiled(placed, strat.put_batch({k: v[i : i + 8] for k, v in batch.items()}))) for i in (0, 8)
    ]
    total = jax.tree.map(lambda a, b: np.asarray(a) + np.asarray(b), *parts)
    np.testing.assert_array_equal(total["confusion"], whole["confusion"])
    np.testing.assert_allclose(loss.value(total["stats"]), loss.value(whole["stats"]), rtol=1e-6)


def test_evaluation_scores_at_the_native_size_of_each_label(batch):
    """Labels of two native sizes on one canvas: the confusion matrix is that of resizing each image's logits alone."""
    rng = np.random.default_rng(1)
    model, loss = Tiny(), make_loss("cross_entropy", num_classes=K)
    state = init_state(model, optax.sgd(0.1), jax.random.key(1), (6, 5, 3))
    image = batch["image"][:3]
    for sizes, canvas in (([(9, 7), (4, 11), (6, 5)], (12, 12)), ([(6, 5), (4, 5), (6, 3)], (6, 5))):
        label = np.full((3, *canvas), IGNORE, np.uint8)
        for i, (h, w) in enumerate(sizes):
            label[i, :h, :w] = rng.integers(0, K, (h, w))
        given = {"image": image, "label": label, "size": np.array(sizes, np.int32)}
        got = np.asarray(jax.jit(make_eval_step(model, loss, prepare=to_float))(state, given)["confusion"])
        expected = np.zeros((K, K), int)
        for i, (h, w) in enumerate(sizes):
            logits, _ = model.apply(state.variables, to_float(image[i : i + 1]))
            classes = np.asarray(resize(logits, (h, w))[0]).argmax(-1)
            np.add.at(expected, (label[i, :h, :w].ravel(), classes.ravel()), 1)
        np.testing.assert_array_equal(got, expected)


def test_count_parameters():
    state = jax.eval_shape(lambda: init_state(Tiny(), optax.sgd(0.1), jax.random.key(1), (6, 5, 3)))
    # conv 3*3*3*8 + 8, group norm 2*8, aux 2*2*8*3 + 3, head 8*3 + 3
    assert count_parameters(state.params) == (216 + 8) + 16 + (96 + 3) + (24 + 3)


def test_strategy_errors():
    with pytest.raises(
        ConfigError, match=r"batch_size is 12, which is not divisible by the number of devices, 8;.*8 or 16"
    ):
        make_strategy("jit", {"batch_size": 12})
    with pytest.raises(ArgumentError, match="strategy must be one of 'jit', 'pmap', got"):
        make_strategy("xmap", {})

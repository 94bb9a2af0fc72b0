"""Learning from images without labels: the loss by hand, the views, and one gradient however the batch is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.parity import FAST_COMPILE
from helpers.tiny_step import K, Tiny, assert_same

from jaxseg import consistency
from jaxseg.consistency import ConsistencyLoss, DroppedFeatures, Lesson, make_teach
from jaxseg.data.augment import random_zoom, to_float
from jaxseg.errors import ArgumentError
from jaxseg.losses import label_maps, make_loss
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE

LOSS = make_loss("cross_entropy + 0.5 * dice", num_classes=K)
quick = functools.partial(jax.jit, compiler_options=FAST_COMPILE)


def jitter(key, image, label):
    """An augmentation that depends on the example's key alone."""
    return to_float(image) + jax.random.normal(key, image.shape) * 0.1, label


def tinted(key, image):
    return image * jax.random.uniform(key, (1, 1, 3), minval=0.2, maxval=0.8)


@pytest.fixture(scope="module")
def batch():
    """Sixteen images, ten of them without labels, in pairs of one and of both kinds."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (16, 6, 5)).astype(np.uint8)
    label[[0, 1, 2, 4, 7, 8, 9, 12, 13, 15]] = IGNORE
    label[5, :4] = IGNORE
    return {"image": rng.integers(0, 256, (16, 6, 5, 3)).astype(np.uint8), "label": label}


def start(tx=None, ema=True, network=Tiny):
    """A state whose moving average differs from its parameters."""
    state = init_state(network(), tx or optax.sgd(0.5), jax.random.key(1), (6, 5, 3), ema=ema)
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), state.params)
    return state.replace(params=moved)


def run(
    batch,
    loss,
    *,
    strategy="jit",
    devices=1,
    accumulate=1,
    cutmix=1.0,
    steps=2,
    network=Tiny,
    both=False,
    remat=False,
    rate=0.5,
):
    """Returns the state and the last metrics after some steps."""
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    model, tx = network(axis_name=strat.axis_name), optax.sgd(0.5, momentum=0.9)
    model = DroppedFeatures(model, rate, strat.axis_name) if both else model
    teach = make_teach(model, augment=jitter, stronger=tinted, cutmix=cutmix, both=both)
    step = make_train_step(
        model, tx, loss, teach=teach, accumulate=accumulate, ema_decay=0.9, axis_name=strat.axis_name, remat=remat
    )
    compiled = strat.compile_train(step, remat=remat)
    state, key = strat.put_state(start(tx, network=network)), strat.put_key(jax.random.key(2))
    for _ in range(steps):
        state, metrics = compiled(state, strat.put_batch(batch), key)
    return jax.device_get(strat.get_state(state)), jax.device_get(strat.first(metrics))


BALANCED = ConsistencyLoss(LOSS, "fixmatch", weight=0.7, ramp_up=5, threshold=0.5, class_share=0.4)


@pytest.fixture(scope="module")
def reference(batch):
    return run(batch, BALANCED)


@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "jit", "devices": 8},
        {"strategy": "pmap", "devices": 8},
        {"accumulate": 4, "devices": 2},
        {"accumulate": 2, "strategy": "pmap", "devices": 4},
    ],
    ids=str,
)
def test_same_numbers_however_the_batch_is_cut(batch, reference, how):
    state, metrics = run(batch, BALANCED, **how)
    assert_same(state, reference[0])
    assert_same(metrics, reference[1])
    assert 0 < metrics["terms"]["confident"] < 1 and metrics["terms"]["consistency"] > 1e-4


@pytest.mark.parametrize("ema", [True, False])
def test_the_gradient_is_that_of_the_network_alone(batch, ema):
    """One step of descent is jax.grad of the formula in which the teacher's probabilities are numbers."""
    rate, weight = 0.5, 3.0
    state, key = start(ema=ema), jax.random.key(2)
    teach = make_teach(Tiny(), augment=jitter, stronger=tinted)
    loss = ConsistencyLoss(LOSS, "mean_teacher", weight=weight)
    step = quick(make_train_step(Tiny(), optax.sgd(rate), loss, teach=teach, aux_weight=0.0))
    after, metrics = step(state, batch, key)

    augment_key, _ = jax.random.split(jax.random.fold_in(key, 0))
    keys = jax.vmap(lambda i: jax.random.fold_in(augment_key, i))(jnp.arange(16))
    weak, label = jax.vmap(jitter)(keys, batch["image"], batch["label"].astype(np.int32))
    void = (batch["label"] == IGNORE).all((1, 2))
    strong = jax.vmap(tinted)(jax.vmap(lambda k: jax.random.fold_in(k, 2))(keys), weak)
    teacher = state.ema_params if ema else state.params
    target = np.asarray(jax.nn.softmax(Tiny().apply({"params": teacher}, weak)[0]))

    def formula(params):
        logits, _ = Tiny().apply({"params": params}, jnp.where(void[:, None, None, None], strong, weak))
        agreement = jnp.mean(jnp.square(jax.nn.softmax(logits)[void] - target[void]))
        return LOSS(logits, label) + weight * agreement, agreement

    (value, agreement), gradient = jax.value_and_grad(formula, has_aux=True)(state.params)
    assert_same(after.params, jax.tree.map(lambda p, g: p - rate * g, state.params, gradient))
    np.testing.assert_allclose((metrics["loss"], metrics["terms"]["consistency"]), (value, agreement), rtol=1e-5)


def test_a_batch_with_labels_alone_has_the_loss_of_labels(batch):
    labelled = {**batch, "label": np.random.default_rng(3).integers(0, K, (16, 6, 5)).astype(np.uint8)}
    teach = make_teach(Tiny(), augment=jitter, stronger=tinted, cutmix=1.0)
    plain = quick(make_train_step(Tiny(), optax.sgd(0.5), LOSS, augment=jitter))
    taught = quick(make_train_step(Tiny(), optax.sgd(0.5), ConsistencyLoss(LOSS, "fixmatch"), teach=teach))
    (a, measured), (b, expected) = (each(start(), labelled, jax.random.key(2)) for each in (taught, plain))
    assert_same(a.params, b.params)
    assert measured["terms"]["consistency"] == 0
    np.testing.assert_allclose(measured["loss"], expected["loss"], rtol=1e-6)


def lesson_of(target, seen=None):
    target = jnp.asarray(target, jnp.float32)
    return Lesson(target, jnp.ones(target.shape[:-1]) if seen is None else jnp.asarray(seen, jnp.float32))


def agreement(loss, logits, lesson, step=0):
    labels = np.full(logits.shape[:-1], IGNORE)
    stats = loss.stats(logits, labels, {"lesson": lesson, "step": jnp.int32(step)})
    return loss.report(stats)[1]


def test_agreement_by_hand():
    """Four pixels, of which the last is not seen."""
    logits = np.log(np.array([[[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]]]], np.float32))
    target = [[[[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [0.1, 0.6, 0.3], [0, 0, 1]]]]
    lesson = lesson_of(target, [[[1, 1, 1, 0]]])
    squares = (0.04 + 0.01 + 0.01, 0.0025 + 0.3025 + 0.36, 0.01 + 0.16 + 0.09)
    got = agreement(ConsistencyLoss(LOSS, "mean_teacher"), logits, lesson)
    np.testing.assert_allclose(got["consistency"], sum(squares) / 9, rtol=1e-5)
    got = agreement(ConsistencyLoss(LOSS, "fixmatch", threshold=0.7), logits, lesson)
    np.testing.assert_allclose(got["consistency"], -(np.log(0.5) + np.log(0.3)) / 3, rtol=1e-5)
    np.testing.assert_allclose(got["confident"], 2 / 3, rtol=1e-6)
    # Twenty of a hundred steps: exp(-5 (1 - 1/5)²); after them 1.
    for method in ("mean_teacher", "fixmatch"):
        loss = ConsistencyLoss(LOSS, method, ramp_up=100, threshold=0.7)
        early, late = (float(agreement(loss, logits, lesson, step)["consistency"]) for step in (20, 250))
        np.testing.assert_allclose(early, np.exp(-3.2) * late, rtol=1e-5)


def test_agreement_of_sigmoids():
    """One logit, and one sigmoid a class."""
    logits = np.array([[[[2.0], [-1.0]]]], np.float32)
    lesson = lesson_of([[[[0.1, 0.9], [0.2, 0.8]]]])
    loss = ConsistencyLoss(make_loss("cross_entropy", num_classes=1), "fixmatch", threshold=0.85)
    np.testing.assert_allclose(agreement(loss, logits, lesson)["consistency"], np.log1p(np.exp(-2.0)) / 2, rtol=1e-5)
    each = make_loss("binary_cross_entropy", num_classes=K)
    logits = np.array([[[[2.0, -1.0, 0.5]]]], np.float32)
    lesson = lesson_of([[[[0.3, 0.9, 0.2]]]])
    p = 1 / (1 + np.exp(-logits[0, 0, 0]))
    got = agreement(ConsistencyLoss(each, "fixmatch", threshold=0.85), logits, lesson)["consistency"]
    np.testing.assert_allclose(got, -(np.log(1 - p[0]) + np.log(p[1]) + np.log(1 - p[2])) / 3, rtol=1e-5)
    got = agreement(ConsistencyLoss(each, "mean_teacher"), logits, lesson)["consistency"]
    np.testing.assert_allclose(got, np.mean((p - [0.3, 0.9, 0.2]) ** 2), rtol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_threshold_of_each_class_is_that_of_the_whole_batch(share):
    """NumPy sorts all pixels of a class; the sums of the two halves add to the same."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4, 5, 6, K)).astype(np.float32)
    target = np.asarray(jax.nn.softmax(rng.normal(size=(4, 5, 6, K)) * [3.0, 1.0, 1.0]))
    seen = rng.integers(0, 2, (4, 5, 6)).astype(np.float32)
    loss = ConsistencyLoss(LOSS, "fixmatch", threshold=0.9, class_share=share)
    halves = [
        loss.stats(logits[part], np.full((2, 5, 6), IGNORE), {"lesson": lesson_of(target[part], seen[part]), "step": 0})
        for part in (slice(0, 2), slice(2, 4))
    ]
    got = loss.report(jax.tree.map(jnp.add, *halves))[1]
    bins, classes = np.floor(target.max(-1) * 100), target.argmax(-1)
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), classes[..., None], -1)[..., 0]
    total, taken = 0.0, 0.0
    for c in range(K):
        mine = (classes == c) & (seen == 1)
        order = np.sort(bins[mine])[::-1]
        limit = min(90, order[int(np.ceil(share * len(order))) - 1])  # the bin in which the share is reached
        teaches = mine & (bins >= limit)
        total, taken = total + nll[teaches].sum(), taken + teaches.sum()
        assert teaches.sum() >= share * mine.sum()
    np.testing.assert_allclose(got["consistency"], total / seen.sum(), rtol=1e-5)
    np.testing.assert_allclose(got["confident"], taken / seen.sum(), rtol=1e-6)


class Colors:
    """A network whose probabilities tell the first two channels of a pixel."""

    def apply(self, variables, image, *, train):
        assert not train
        return jnp.log(jnp.concatenate([image[..., :2], 1 - image[..., :2].sum(-1, keepdims=True)], -1)), {}


class Encoded(nn.Module):
    """Two levels of the child "encoder", of which one is half as large, and a head over both."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train=False):
        fine, coarse = Pyramid(name="encoder")(image, train=train)
        coarse = jnp.repeat(coarse, 2, axis=1)
        levels = {"fine": fine, "coarse": coarse}
        return nn.Conv(K, (1, 1), name="head")(jnp.concatenate([fine, coarse], -1)), {"aux": (), **levels}


class Adapted(nn.Module):
    """Levels of the child "adapter", which calls the child "encoder"."""

    @nn.compact
    def __call__(self, image, *, train=False):
        encoder = Pyramid(name="encoder")
        return None, {"fine": Around(name="adapter")(lambda: encoder(image, train=train))[0]}


class Around(nn.Module):
    @nn.compact
    def __call__(self, encode):
        return tuple(nn.Conv(8, (1, 1), name=name)(level) for name, level in zip(("fine", "coarse"), encode()))


class Pyramid(nn.Module):
    @nn.compact
    def __call__(self, image, *, train=False):
        fine = nn.Conv(8, (3, 3), name="conv")(image)
        return fine, fine[:, ::2]


def test_every_second_example_loses_channels_of_the_encoder():
    image = np.random.default_rng(0).normal(size=(64, 4, 5, 3)).astype(np.float32)
    network = DroppedFeatures(Encoded(), 0.25)
    variables = network.init({"params": jax.random.key(0)}, image)
    rngs = {"dropout": jax.random.key(1)}
    _, whole = Encoded().apply(variables, image, train=True)
    _, seen = network.apply(variables, image, train=True, rngs=rngs)
    dropped = []
    for level in ("fine", "coarse"):
        np.testing.assert_array_equal(seen[level][::2], whole[level][::2])
        lost = (seen[level][1::2] == 0).all((1, 2))
        np.testing.assert_allclose(seen[level][1::2], np.where(lost[:, None, None], 0, whole[level][1::2] / 0.75))
        assert 0.15 < lost.mean() < 0.35 and len({tuple(row) for row in lost.tolist()}) > 20
        dropped.append(lost)
    assert (dropped[0] != dropped[1]).any()
    assert_same(network.apply(variables, image, train=False), Encoded().apply(variables, image))
    plain = DroppedFeatures(Tiny(), 0.25)
    with pytest.raises(ArgumentError, match="child named encoder, which it does not have"):
        plain.apply(plain.init({"params": jax.random.key(0)}, image), image, train=True)


def test_an_adapter_around_the_encoder_loses_channels_of_its_own_levels():
    image = np.random.default_rng(0).normal(size=(4, 4, 5, 3)).astype(np.float32)
    network = DroppedFeatures(Adapted(), 0.5)
    variables = network.init({"params": jax.random.key(0)}, image)
    whole = Adapted().apply(variables, image, train=True)[1]["fine"]
    seen = network.apply(variables, image, train=True, rngs={"dropout": jax.random.key(1)})[1]["fine"]
    lost = (seen[1::2] == 0).all((1, 2))
    assert lost.any() and not lost.all()
    np.testing.assert_array_equal(seen[::2], whole[::2])
    np.testing.assert_allclose(seen[1::2], np.where(lost[:, None, None], 0, whole[1::2] / 0.5))


def test_the_second_views_are_those_of_the_teacher():
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 0.4, (8, 16, 20, 3)).astype(np.float32)
    label = np.full((8, 16, 20), IGNORE)
    label[::4] = 1
    batch = {"image": image, "label": label, "keys": jax.random.split(jax.random.key(0), 8)}
    form = {"augment": lambda key, image, label: (image, label), "stronger": tinted, "cutmix": 1.0}
    (view, given, lesson), (more, labels, lessons) = (
        jax.tree.map(np.asarray, jax.jit(make_teach(Colors(), **form, both=both))(batch, {})) for both in (False, True)
    )
    assert_same((more[::2], labels[::2], jax.tree.map(lambda x: x[::2], lessons)), (view, given, lesson))
    np.testing.assert_array_equal(more[1::2], image)
    assert (labels[1::2] == IGNORE).all()
    np.testing.assert_allclose(lessons.target[1::2, ..., :2], image[..., :2], rtol=1e-5)  # its own, without the box
    np.testing.assert_array_equal(lessons.seen[1::2], lesson.seen)
    assert lesson.seen[1::4].all() and not lesson.seen[::4].any()


DROPPED = {"network": Encoded, "both": True, "steps": 1}
DROPPED_LOSS = ConsistencyLoss(LOSS, "fixmatch", weight=0.7, threshold=0.4)


@pytest.fixture(scope="module")
def dropped(batch):
    return run(batch, DROPPED_LOSS, **DROPPED)


@pytest.mark.parametrize(
    "how", [{"strategy": "jit", "devices": 8}, {"strategy": "pmap", "devices": 4}, {"remat": True}], ids=str
)
def test_the_same_features_are_dropped_on_several_devices_and_when_computed_again(batch, dropped, how):
    state, metrics = run(batch, DROPPED_LOSS, **DROPPED, **how)
    assert_same(state, dropped[0])
    assert_same(metrics, dropped[1])
    assert metrics["confusion"].sum() == (batch["label"] != IGNORE).sum()  # the second views are not scored
    assert 0 < metrics["terms"]["confident"] < 1


def test_each_micro_batch_drops_features_of_its_own(batch, dropped):
    """So the division changes the gradient by what is dropped, and by nothing else."""
    _, halves = run(batch, DROPPED_LOSS, **DROPPED, accumulate=2)
    assert abs(halves["grad_norm"] - dropped[1]["grad_norm"]) > 1e-3 * dropped[1]["grad_norm"]
    np.testing.assert_array_equal(halves["confusion"], dropped[1]["confusion"])
    kept = [run(batch, DROPPED_LOSS, **DROPPED, rate=0.0, accumulate=parts) for parts in (1, 2)]
    assert_same(*kept)


def test_a_box_of_the_view_and_of_the_answer_is_that_of_the_partner():
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 0.4, (64, 16, 20, 3)).astype(np.float32)
    label = np.full((64, 16, 20), IGNORE)
    label[::4] = 1  # the first of every second pair has labels
    keys = jax.random.split(jax.random.key(0), 64)
    batch = {"image": image, "label": label, "keys": keys}
    plain = {"augment": lambda key, image, label: (image, label), "stronger": lambda key, image: image}
    teach = make_teach(Colors(), **plain, cutmix=0.75)
    view, given, (target, seen) = jax.tree.map(np.asarray, jax.jit(teach)(batch, {}))
    np.testing.assert_array_equal(given, label)
    np.testing.assert_array_equal(view[::4], image[::4])
    partner = image.reshape(32, 2, 16, 20, 3)[:, ::-1].reshape(image.shape)
    void = np.arange(64) % 4 > 0
    taken = (view == partner).all(-1)[void]
    np.testing.assert_array_equal(view[void], np.where(taken[..., None], partner[void], image[void]))
    np.testing.assert_allclose(target[void][..., :2], view[void][..., :2], rtol=1e-5)
    np.testing.assert_array_equal(seen, np.broadcast_to(void[:, None, None], seen.shape))
    mixed = taken.any((1, 2))
    assert 0.55 < mixed.mean() < 0.95
    for box in taken[mixed]:  # a rectangle of about half the image
        rows, columns = box.any(1), box.any(0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None])
        assert 0.38 < box.mean() < 0.62
    with pytest.raises(ArgumentError, match=r"pairs of images, but a device has 3 of them"):
        teach({name: each[:3] for name, each in batch.items()}, {})


def test_what_the_augmentation_adds_around_an_image_does_not_teach():
    def shrunk(key, image, label):
        return random_zoom(key, image, label, 0.5, 0.5)

    image = np.random.default_rng(0).uniform(0.1, 0.4, (2, 8, 8, 3)).astype(np.float32)
    label = np.stack([np.full((8, 8), IGNORE), np.ones((8, 8), int)])
    keys = jnp.stack([jax.random.key(0)] * 2)  # the same view of both
    teach = make_teach(Colors(), augment=shrunk, stronger=lambda key, image: image)
    _, given, (_, seen) = teach({"image": image, "label": label, "keys": keys}, {})
    assert (given[0] == IGNORE).all() and (seen[1] == 0).all()
    np.testing.assert_array_equal(seen[0] == 1, given[1] == 1)
    assert 12 <= seen[0].sum() <= 20


class Truth:
    """A network that reads the class of a pixel from its third channel, with certainty."""

    def apply(self, variables, image, *, train):
        assert not train
        return 50.0 * jax.nn.one_hot(jnp.round(image[..., 2] * 255).astype(int), K), {}


def test_a_teacher_that_is_always_right_teaches_what_the_labels_would():
    """Half of the images have the true classes for answers: the gradient is that of labels for all, in these views."""

    def flipped(key, image, label):
        """A view of another geometry, of which one column lies outside the image."""
        flip = jax.random.bernoulli(key)
        image, label = (jnp.where(flip, each[:, ::-1], each) for each in (to_float(image), label))
        return image, label.at[:, 0].set(IGNORE)

    def own_view(key, image, label):
        image, label = flipped(key, image, label)
        strong = tinted(jax.random.fold_in(key, 2), image)
        return jnp.where(image[0, 0, 1] > 0.5, strong, image), label

    rng = np.random.default_rng(4)
    label = rng.integers(0, K, (16, 6, 5)).astype(np.uint8)
    void = np.arange(16) % 4 > 1
    kind = np.broadcast_to(255 * void[:, None, None], label.shape)
    image = np.stack([rng.integers(0, 256, label.shape), kind, label])
    image = np.moveaxis(image, 0, -1).astype(np.uint8)
    hidden = np.where(void[:, None, None], IGNORE, label).astype(np.uint8)
    loss, key = make_loss("cross_entropy", num_classes=K), jax.random.key(2)
    teach = make_teach(Truth(), augment=flipped, stronger=tinted)
    # The loss is the sum of two means over as many pixels each, that of the labels is their mean.
    taught = make_train_step(
        Tiny(), optax.sgd(0.5), ConsistencyLoss(loss, "fixmatch", threshold=0.99), teach=teach, aux_weight=0.0
    )
    told = make_train_step(Tiny(), optax.sgd(1.0), loss, augment=own_view, aux_weight=0.0)
    a, measured = quick(taught)(start(), {"image": image, "label": hidden}, key)
    b, expected = quick(told)(start(), {"image": image, "label": label}, key)
    assert_same(a.params, b.params)
    np.testing.assert_allclose(measured["loss"], 2 * expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(measured["terms"]["confident"], 1.0, rtol=1e-6)


def test_the_maps_of_one_logit_are_two_classes():
    np.testing.assert_allclose(label_maps(np.zeros((1, 1, 1, 1))), [[[[0.5, 0.5]]]])


def test_pixels_beyond_the_whole_numbers_of_float32_are_counted():
    """2^24 + 2^20 pixels in one bin of a batch: float32 that counts one by one stays at 2^24."""
    images, side = 17, 2**10
    flat = np.full((images, side, side), 0.505, np.float32)
    ones = np.ones_like(flat)
    lesson = Lesson(np.broadcast_to(np.float32(0), (*flat.shape, 2)), ones)
    sums, counts = consistency._in_bins(flat, np.zeros(flat.shape, np.int32), lesson, 0 * flat)
    assert float(counts[0, 50]) == float(counts.sum()) == 2**24 + 2**20 and not sums.any()

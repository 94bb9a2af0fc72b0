"""Adversarial training: both gradients, the discriminator, and which loss has an effect on which network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.tiny_adversarial import LOSS, SEMI, make_batch, make_pair, moved, one_step, players, quick, start
from helpers.tiny_step import K, Tiny, assert_same

from jaxseg.adversarial import AdversarialLoss, Discriminator, label_maps, segmenter_of, without_discriminator
from jaxseg.data.augment import to_float
from jaxseg.losses import make_loss
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@pytest.fixture(scope="module")
def stepped(batch):
    """What a step with every term does: (before, after, metrics)."""
    return one_step(batch)


def mean(values, where):
    """The mean over the pixels of a mask."""
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.sum(where)


def written_out(segmenter, discriminator, batch, objective, threshold):
    """Returns (loss of S, loss of D), each written out as in the papers."""
    label = batch["label"].astype(np.int32)
    logits, _ = Tiny().apply({"params": segmenter}, to_float(jnp.asarray(batch["image"])), train=True)
    known = label != IGNORE
    empty = np.broadcast_to(~known.any((1, 2), keepdims=True), label.shape)
    p = jnp.where((known | empty)[..., None], jax.nn.softmax(logits), 0.0)
    truth = np.eye(K, dtype=np.float32)[np.where(known, label, 0)] * known[..., None]

    def judge(maps):
        return jax.nn.sigmoid(Discriminator((4,)).apply({"params": discriminator}, maps))

    d = judge(p)
    taught = -jnp.max(jax.nn.log_softmax(logits), axis=-1)  # of the most probable class
    of_s = (
        LOSS(logits, label)
        - objective.weight * mean(jnp.log(d), known)
        - objective.unlabelled_weight * mean(jnp.log(d), empty)
        + objective.semi_weight * mean(taught, empty & (d > threshold))
    )
    return of_s, -0.5 * (mean(jnp.log(judge(truth)), known) + mean(jnp.log(1 - d), known))


def test_both_gradients_are_those_of_the_two_losses_apart(batch, stepped):
    before, after, metrics = stepped
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
    of_s, of_d = losses(*both, SEMI.semi_threshold)
    np.testing.assert_allclose(metrics["loss"], of_s, rtol=1e-5)
    terms = dict(metrics["terms"])
    np.testing.assert_allclose(terms.pop("discriminator"), of_d, rtol=1e-5)
    assert terms.pop("auxiliary1") > 0  # its weight is 0 here
    weights = {"adversarial": SEMI.weight, "adversarial_unlabelled": SEMI.unlabelled_weight, "semi": SEMI.semi_weight}
    weights |= {term.name: term.weight for term in SEMI.loss.terms}
    np.testing.assert_allclose(sum(weights[name] * value for name, value in terms.items()), of_s, rtol=1e-5)
    assert set(terms) == set(weights)
    assert_same(moved(before, after), gradients(*both, SEMI.semi_threshold), rtol=2e-4)
    # Finite differences along either gradient; with a threshold of 0, which no small step crosses.
    for which, gradient in enumerate(gradients(*both, 0.0)):
        norm = optax.tree.norm(gradient)

        def at(step, which=which, gradient=gradient, norm=norm):
            there = list(both)
            there[which] = jax.tree.map(lambda x, g: x + step * g / norm, both[which], gradient)
            return float(losses(*there, 0.0)[which])

        np.testing.assert_allclose((at(1e-2) - at(-1e-2)) / 2e-2, norm, rtol=1e-2)


def test_the_label_maps_of_one_sigmoid_a_class():
    """A segmenter that learns with one sigmoid for each class shows D these, and learns from its own classes so."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, K)), jnp.float32)
    np.testing.assert_allclose(label_maps(logits, True), 1 / (1 + np.exp(-np.asarray(logits))), rtol=1e-5)
    labels = jnp.full((2, 3, 4), IGNORE).at[0].set(1)
    seen = []

    def judge(maps, frozen):
        seen.append(maps)
        return jnp.ones(maps.shape[:-1])

    objective = AdversarialLoss(make_loss("binary_cross_entropy", num_classes=K), weight=0.3, semi_weight=0.4)
    stats = objective.stats(logits, labels, {"discriminator": judge})
    np.testing.assert_allclose(seen[0], label_maps(logits, True), rtol=1e-6)
    own = jnp.where(labels == IGNORE, jnp.argmax(logits, -1), IGNORE)
    expected = make_loss("binary_cross_entropy", num_classes=K)(logits, own)
    np.testing.assert_allclose(stats["semi"][0] / stats["semi"][1], expected, rtol=1e-6)


def test_discriminator_is_its_layers_in_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    model, maps = Discriminator((4, 6)), rng.uniform(size=(2, 16, 24, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), maps)["params"]
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
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

    @quick
    def ours(params):
        def loss(params):
            verdict = model.apply({"params": params}, maps)
            return jnp.mean(jax.nn.softplus(-verdict)), verdict

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, verdict), gradient = ours(params)
    np.testing.assert_allclose(verdict, x.detach().numpy(), rtol=1e-4, atol=1e-4)
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


def test_neither_moves_the_other(batch, stepped):
    """The gradient of D does not depend on the terms of S, and that of S not on the terms of D."""
    before, after, _ = stepped
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


def test_a_step_that_computes_stages_anew_is_the_same(batch, stepped):
    """Those of the segmenter; the discriminator is not part of the network."""
    assert_same(one_step(batch, remat=True)[1:], stepped[1:])


@pytest.mark.parametrize("image", [False, True])
def test_the_image_may_be_shown(batch, image):
    state, after, metrics = one_step(batch, model=make_pair(image=image))
    assert state.params["discriminator"]["conv1"]["kernel"].shape[2] == K + 3 * image
    assert np.isfinite(metrics["loss"]) and all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def test_learning_is_a_contest(batch):
    """D alone learns to distinguish the maps; S alone, with a fixed D, learns maps that D classifies as true."""
    objective = AdversarialLoss(LOSS, weight=5.0)

    def fooled(rates):
        tx = players(*rates)
        state, step = start(tx), quick(make_train_step(make_pair(), tx, objective, prepare=to_float, aux_weight=0.0))
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

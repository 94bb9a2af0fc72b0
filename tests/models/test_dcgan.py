"""DCGAN: the layers in torch, which loss reaches which player, where the noise comes from, and refusals."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import tiny
from helpers.variables import count_parameters, drawn, shapes

from jaxseg import models
from jaxseg.losses import make_loss
from jaxseg.models.dcgan import ImageDiscriminator, ImageGenerator
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_train_step

PLAYERS = ("generator", "discriminator", "head")
quick = functools.partial(jax.jit, compiler_options=FAST_COMPILE)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_shapes_and_parameters_are_those_of_the_paper():
    """Radford 2016, Figure 1: 100 numbers, 4x4x1024, 8x8x512, 16x16x256, 32x32x128, 64x64x3."""
    model = models.build("dcgan", num_classes=2, width=128)
    variables, _, out = shapes(model, (2, 64, 64, 3))
    widths = [128, 256, 512, 1024]
    assert [out[f"generator/stage{i}"].shape for i in range(4)] == [(2, 32 >> i, 32 >> i, widths[i]) for i in range(4)]
    assert jax.eval_shape(model.generate, variables, jnp.zeros((5, 100))).shape == (5, 64, 64, 3)
    up = 100 * 16 * 1024 + 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 3 + 2 * sum(widths)
    down = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024) + 128 + 1 + 2 * sum(widths[1:])
    assert count_parameters(model) == up + down + (sum(widths) + 1) * 2


def test_kernels_start_as_in_the_paper():
    model = models.build("dcgan", num_classes=2, size=16, width=16)
    variables = quick(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    for player in ("generator", "discriminator"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"][player]):
            if path[-1].key == "kernel" and leaf.size > 500:
                assert abs(leaf.std() / 0.02 - 1) < 0.1 and abs(leaf.mean()) < 0.003, path


@pytest.mark.parametrize("train", [False, True])
def test_players_are_their_layers_in_torch(train):
    torch = pytest.importorskip("torch")
    nn, noise, image = torch.nn, draw(3, 5), draw(3, 16, 16, 3)
    g, d = ImageGenerator(4, 2, 3), ImageDiscriminator(4, 2)
    of_g, of_d = drawn(g, noise), drawn(d, image)

    def take(module, variables):
        """Copies a convolution (or its transpose), or a norm with its statistics."""
        kernel = variables["params"]["kernel"] if "kernel" in variables["params"] else None
        with torch.no_grad():
            if kernel is None:
                module.weight.copy_(torch.tensor(variables["params"]["scale"]))
                module.running_mean.copy_(torch.tensor(variables["batch_stats"]["mean"]))
                module.running_var.copy_(torch.tensor(variables["batch_stats"]["var"]))
            else:
                turned = isinstance(module, nn.ConvTranspose2d)
                module.weight.copy_(torch.tensor(kernel.transpose((2, 3, 0, 1) if turned else (3, 2, 0, 1))))
            if module.bias is not None:
                module.bias.copy_(torch.tensor(variables["params"]["bias"]))
        return module.train(train)

    def part(variables, *path):
        """The variables of one layer."""
        found = dict(variables)
        for name in path:
            found = {group: tree[name] for group, tree in found.items() if name in tree}
        return found

    project = nn.ConvTranspose2d(5, 8, 4, 1, 0, bias=False)
    kernel = of_g["params"]["project"]["kernel"].reshape(5, 4, 4, 8)  # the projection to 4x4 pixels
    with torch.no_grad():
        project.weight.copy_(torch.tensor(kernel.transpose(0, 3, 1, 2)))
    theirs_g = nn.Sequential(
        project,
        take(nn.BatchNorm2d(8), part(of_g, "norm")),
        nn.ReLU(),
        take(nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), part(of_g, "stage0", "up")),
        take(nn.BatchNorm2d(4), part(of_g, "stage0", "norm")),
        nn.ReLU(),
        take(nn.ConvTranspose2d(4, 3, 4, 2, 1), part(of_g, "image")),
        nn.Tanh(),
    )
    theirs_d = nn.Sequential(
        take(nn.Conv2d(3, 4, 4, 2, 1), part(of_d, "stem")),
        nn.LeakyReLU(0.2),
        take(nn.Conv2d(4, 8, 4, 2, 1, bias=False), part(of_d, "stage1", "conv")),
        take(nn.BatchNorm2d(8), part(of_d, "stage1", "norm")),
        nn.LeakyReLU(0.2),
        take(nn.Conv2d(8, 1, 4, 1, 0), part(of_d, "verdict")),
    )
    run = functools.partial(quick, static_argnums=0)(
        lambda module, variables, x: module.apply(variables, x, train=train, mutable=["batch_stats"])[0][0]
    )
    made, verdicts = run(g, of_g, noise), run(d, of_d, image)
    with torch.no_grad():
        expected = theirs_g(torch.tensor(noise)[:, :, None, None]).numpy().transpose(0, 2, 3, 1)
        judged = theirs_d(torch.tensor(image.transpose(0, 3, 1, 2))).numpy()[:, 0, 0, 0]
    np.testing.assert_allclose(made, expected, atol=2e-5)
    np.testing.assert_allclose(verdicts, judged, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def gradients():
    """{term of the loss: {player: norm of its gradient}}, and the outputs of the network in training."""
    model, image = tiny("dcgan", 3), jnp.asarray(draw(4, 16, 16, 3))
    variables, label = drawn(model, image), np.random.default_rng(0).integers(0, 3, (4, 16, 16))
    loss = make_loss("generator + discriminator + cross_entropy", num_classes=3)

    @quick
    def sizes(variables):
        def each(params):
            both = {**variables, "params": params}
            rngs = {"dropout": jax.random.key(1)}
            (logits, out), changed = model.apply(both, image, train=True, rngs=rngs, mutable=["batch_stats"])
            return loss.values(loss.stats(logits, label, out)), (out["verdicts"], changed)

        jacobian, rest = jax.jacrev(each, has_aux=True)(variables["params"])
        norms = {term: {name: optax.tree.norm(tree[name]) for name in PLAYERS} for term, tree in jacobian.items()}
        return norms, rest

    return model, variables, image, *sizes(variables)


def test_each_loss_moves_its_own_player_alone(gradients):
    norms = gradients[3]
    for term, player in zip(("generator", "discriminator", "cross_entropy"), PLAYERS):
        assert norms[term][player] > 0
        assert all(norms[term][other] == 0 for other in PLAYERS if other != player), term


def test_verdicts_and_statistics_in_training(gradients):
    model, variables, image, _, (verdicts, changed) = gradients
    np.testing.assert_array_equal(verdicts["fake"], verdicts["fooled"])
    own = {group: tree["discriminator"] for group, tree in variables.items() if "discriminator" in tree}
    d = ImageDiscriminator(model.width, 2)
    (real, _), moved = jax.jit(lambda v, x: d.apply(v, x, train=True, mutable=["batch_stats"]))(own, image)
    np.testing.assert_allclose(verdicts["real"], real, rtol=1e-4, atol=1e-5)
    # The running statistics of the discriminator are those of real images.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        changed["batch_stats"]["discriminator"],
        moved["batch_stats"],
    )


def test_evaluation_draws_from_the_image_whatever_its_batch():
    model, image = tiny("dcgan", 3), jnp.asarray(draw(3, 16, 16, 3))
    variables = drawn(model, image)
    apply = quick(lambda image: model.apply(variables, image)[1]["verdicts"]["fake"])
    whole, turned = apply(image), apply(image[::-1])
    np.testing.assert_allclose(whole, turned[::-1], rtol=1e-4, atol=1e-5)
    assert np.ptp(whole) > 0


def test_noise_changes_with_step_and_example():
    model = tiny("dcgan", 3)
    one, other = (np.asarray(model._noise(jax.random.key(seed), 4)) for seed in (0, 1))
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 8 and one.shape == (4, 5)
    np.testing.assert_array_equal(one[:2], model._noise(jax.random.key(0), 2))


def test_same_numbers_under_jit_and_pmap():
    loss, tx = make_loss("generator + discriminator + cross_entropy", num_classes=3), optax.sgd(0.05)
    batch = {"image": draw(8, 8, 8, 3), "label": np.zeros((8, 8, 8), np.uint8)}
    ends = []
    strategies: tuple[tuple[Literal["jit", "pmap"], int], ...] = (("jit", 1), ("pmap", 4))
    for name, devices in strategies:
        strategy = make_strategy(name, {"batch_size": 8}, jax.devices()[:devices])
        fields: dict[str, Any] = {"num_classes": 3, "size": 8, "width": 4, "latent": 3}
        model = models.build("dcgan", axis_name=strategy.axis_name, **fields)
        step = strategy.compile_train(make_train_step(model, tx, loss, axis_name=strategy.axis_name))
        apart = models.build("dcgan", **fields)
        state = strategy.put_state(init_state(apart, tx, jax.random.key(1), (8, 8, 3)))
        for _ in range(2):
            state, metrics = step(state, strategy.put_batch(batch), strategy.put_key(jax.random.key(2)))
        ends.append((jax.device_get(strategy.get_state(state)), jax.device_get(strategy.first(metrics))))
    assert set(ends[0][1]["terms"]) == {"generator", "discriminator", "cross_entropy"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *ends)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 48}, "size must be one of 8, 16, 32, 64, 128, 256, got 48"),
        ({"width": 0}, "width must be a whole number of at least 1"),
        ({"widths": [4]}, "widths is not an argument of the model dcgan. Did you mean 'width'"),
        ({"encoder": "plain"}, "takes no named encoder"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        models.build("dcgan", num_classes=2, **fields)


def test_the_networks_that_generate_are_known_by_name() -> None:
    assert tuple(n for n in models.MODELS if hasattr(models._class(n), "generate")) == models.GENERATORS

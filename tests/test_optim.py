"""Schedules against their formulas, optimisers against torch, and the masking of weight decay."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import optim
from jaxseg.config import default_config, from_dict, set_key, to_dict, update
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.tuning import Selection


def rates(steps: int = 10, at=None, **options) -> np.ndarray:
    schedule = jax.jit(optim.make_schedule(**({"name": "poly", "learning_rate": 0.5, "steps": steps} | options)))
    return np.array([schedule(t) for t in (range(steps + 3) if at is None else at)])


def test_poly_is_its_formula_and_torchs():
    expected = [0.5 * (1 - t / 10) ** 0.9 for t in range(10)] + [0.0] * 3
    np.testing.assert_allclose(rates(), expected, rtol=1e-6, atol=1e-12)
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10, power=0.9)
    theirs = []
    for _ in range(13):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(), theirs, rtol=1e-5, atol=1e-7)


def test_cosine_constant_step_and_the_floor():
    expected = [0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi * t / 10)) / 2) for t in range(11)]
    np.testing.assert_allclose(rates(name="cosine", end=0.1)[:11], expected, rtol=1e-6)
    assert rates(name="cosine", end=0.1)[-1] == pytest.approx(0.05)
    assert rates(name="poly", end=0.2, power=2.0)[5] == pytest.approx(0.5 * (0.2 + 0.8 * 0.25))
    np.testing.assert_allclose(rates(name="constant"), 0.5)
    np.testing.assert_allclose(rates(name="exponential", end=0.01)[:11], 0.5 * 0.01 ** (np.arange(11) / 10), rtol=1e-5)
    steps = rates(name="step", boundaries=(3, 6), factor=0.1)
    np.testing.assert_allclose(steps, [0.5] * 3 + [0.05] * 3 + [0.005] * 7, rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "poly", "cosine", "exponential", "step"])
def test_warm_up_rises_to_the_peak_and_the_rest_decays_over_what_is_left(name):
    options = {"step": {"boundaries": (7,)}, "exponential": {"end": 0.1}}
    options = options[name] if name in options else {}
    warm = rates(name=name, warmup=4, **options)
    np.testing.assert_allclose(warm[:5], 0.5 * np.array([0.2, 0.4, 0.6, 0.8, 1.0]), rtol=1e-6)
    if name in ("poly", "cosine"):
        np.testing.assert_allclose(warm[4:], rates(steps=6, name=name), rtol=1e-5, atol=1e-9)
    assert np.all(np.diff(warm[4:]) <= 0) and np.isfinite(warm).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": "polly"}, "'poly'"),
        ({"warmup": 10}, "warmup"),
        ({"name": "step"}, "boundaries"),
        ({"name": "exponential"}, "end must be above 0"),
        ({"name": "step", "boundaries": (5, 3)}, "ascending"),
        ({"end": 2.0}, "end"),
        ({"power": 0.0}, "power"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_invalid_schedules_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        rates(**options)


def test_only_kernels_decay():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "layer_scale": {"scale": jnp.ones((1, 4))},
        "attention": {
            "query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))},
            "positional": jnp.ones((9, 4)),
        },
        "temperature": jnp.ones(()),
        "stem": {name: jnp.ones((1, 4, 8)) for name in ("class_token", "registers", "position")},
        "query": jnp.ones((1, 9, 8)),
        "query_position": jnp.ones((9, 8)),
        "level": jnp.ones((3, 8)),
        "head": {"embedding": jnp.ones((8, 4))},
    }
    mask = optim.decay_mask(params)
    decayed = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(mask) if leaf]
    assert decayed == ["['attention']['query']['kernel']", "['conv']['kernel']"]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_zero_gradients_move_decayed_kernels_alone(name):
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 3.0)}
    tx = optim.make_optimizer(name=name, schedule=optax.constant_schedule(0.1), weight_decay=0.01)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert np.all(np.asarray(updates["bias"]) == 0) and np.all(np.asarray(updates["kernel"]) < 0)
    still = optim.make_optimizer(name=name, schedule=optax.constant_schedule(0.1), weight_decay=0.0)
    updates, _ = still.update(jax.tree.map(jnp.zeros_like, params), still.init(params), params)
    assert np.all(np.asarray(updates["kernel"]) == 0)


TORCH = [
    ("sgd", {"momentum": 0.0}, "SGD", {}),
    ("sgd", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "args": {"nesterov": True}}, "SGD", {"momentum": 0.9, "nesterov": True}),
    ("adam", {}, "Adam", {}),
    ("adam", {"args": {"b1": 0.8, "b2": 0.99}}, "Adam", {"betas": (0.8, 0.99)}),
    ("adamw", {}, "AdamW", {}),
    ("rmsprop", {"args": {"decay": 0.99, "eps_in_sqrt": False}}, "RMSprop", {"alpha": 0.99}),
]


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("name, ours, torch_name, theirs", TORCH)
def test_trajectories_are_torchs(name, ours, torch_name, theirs, clip):
    """Twelve steps down a quadratic with weight decay on the kernel alone, poly schedule, with and without clipping."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
    goal = {key: rng.normal(size=value.shape).astype(np.float32) for key, value in start.items()}
    schedule = optim.make_schedule(name="poly", learning_rate=0.05, steps=20)
    tx = optim.make_optimizer(name=name, schedule=schedule, weight_decay=0.1, clip=clip, **ours)
    params, state = start, tx.init(start)

    @jax.jit
    def step(params, state):
        gradients = jax.tree.map(lambda p, g: p - g, params, goal)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    weights = {key: torch.tensor(value, requires_grad=True) for key, value in start.items()}
    groups = [
        {"params": [weights["kernel"]], "weight_decay": 0.1},
        {"params": [weights["bias"]], "weight_decay": 0.0},
    ]
    optimizer = getattr(torch.optim, torch_name)(groups, lr=0.05, **theirs)
    for t in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - t / 20) ** 0.9
        params, state = step(params, state)
        for key, weight in weights.items():
            weight.grad = weight.detach() - torch.tensor(goal[key])
        if clip:
            torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        optimizer.step()
        for key in start:
            np.testing.assert_allclose(params[key], weights[key].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    gradients = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 4.0)}  # norm sqrt(36 + 32)
    tx = optim.make_optimizer(name="sgd", schedule=optax.constant_schedule(1.0), momentum=0.0, clip=1.0)
    updates, _ = tx.update(gradients, tx.init(gradients), gradients)
    np.testing.assert_allclose(updates["kernel"], -3.0 / np.sqrt(68), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Specifying a key:UserWarning")
@pytest.mark.parametrize("name", optim.optimizers())
def test_every_optimiser_by_name_takes_a_step(name):
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    gradients = jax.tree.map(lambda p: 0.1 * p, params)
    schedule = optim.make_schedule(name="cosine", learning_rate=0.01, steps=10, warmup=2)
    tx = optim.make_optimizer(name=name, schedule=schedule, weight_decay=0.01, clip=1.0)
    updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
    assert np.abs(updates["kernel"]).max() > 0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": "adamm"}, "'adamw?'"),
        ({"name": "lbfgs"}, "^name=lbfgs is not possible: this optimiser of optax needs the value of the loss"),
        ({"name": "sm3"}, "^name=sm3 is not possible: this optimiser of optax takes no schedule"),
        ({"name": "lbfgss"}, "an optimiser of optax, got 'lbfgss'"),
        ({"weight_decay": -1.0}, "^weight_decay must be a number of at least 0"),
        ({"clip": float("nan")}, "^clip must be"),
        ({"momentum": 1.0}, r"^momentum must be a number in \[0, 1\)"),
        ({"args": {"nestrov": True}}, "'nesterov'"),
        ({"args": {"momentum": 0.5}}, "^args.momentum is set already; set momentum itself"),
        ({"args": {"learning_rate": 0.5}}, "^args.learning_rate is set already"),
        ({"name": "adamw", "args": {"mask": None}}, "^args.mask is set already"),
        ({"name": "muon", "args": {"adam_learning_rate": 0.1}}, r"^args\.adam_learning_rate is set already\.$"),
        ({"name": "muon", "args": {"consistent_rms": 0.0}}, r"args\.consistent_rms must be"),
        ({"name": "muon", "args": {"beta": 1.0}}, r"args\.beta must be a number in \[0, 1\)"),
    ],
)
def test_invalid_optimisers_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        optim.make_optimizer(**({"name": "sgd", "schedule": optax.constant_schedule(0.1)} | options))


def steps(tx, params, count=3):
    """The updates of the last of some steps, each with another gradient of the parameters' shapes."""
    state, updates = tx.init(params), params
    for t in range(count):
        gradients = jax.tree.map(lambda p, t=t: jnp.cos(jnp.arange(p.size) * 1.3 + t).reshape(p.shape), params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return updates, params


def test_muon_reads_the_kernel_of_a_convolution_as_a_matrix_and_leaves_norms_to_adamw():
    """Each parameter moves as optax moves it alone: the kernel reshaped, its decay with it, and the rest by AdamW."""
    kernel = jnp.sin(jnp.arange(72.0)).reshape(3, 3, 2, 4)
    params = {"conv": {"kernel": kernel, "bias": jnp.ones(4)}, "norm": {"scale": jnp.ones(4)}}
    schedule = optim.make_schedule(name="cosine", learning_rate=0.1, steps=10, warmup=1)
    ours = optim.make_optimizer(name="muon", schedule=schedule, weight_decay=0.1, args={"consistent_rms": 0.2})
    _, found = jax.jit(lambda p: steps(ours, p))(params)
    theirs = optax.contrib.muon(schedule, weight_decay=0.1, consistent_rms=0.2)
    _, matrix = jax.jit(lambda p: steps(theirs, p))({"kernel": kernel.reshape(18, 4)})
    np.testing.assert_allclose(found["conv"]["kernel"].reshape(18, 4), matrix["kernel"], rtol=1e-5, atol=1e-6)
    rest = {"bias": params["conv"]["bias"], "scale": params["norm"]["scale"]}
    _, rest = jax.jit(lambda p: steps(optax.adamw(schedule, weight_decay=0.0, nesterov=True), p))(rest)
    np.testing.assert_allclose(found["conv"]["bias"], rest["bias"], rtol=1e-6)
    np.testing.assert_allclose(found["norm"]["scale"], rest["scale"], rtol=1e-6)


def test_the_update_of_muon_is_about_orthogonal():
    """Five Newton-Schulz steps move every singular value of the first gradient to about 1, and turn no direction."""
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32)
    tx = optim.make_optimizer(name="muon", schedule=optax.constant_schedule(1.0))
    params = {"kernel": jnp.zeros(gradient.shape)}
    update, _ = jax.jit(tx.update)({"kernel": gradient}, tx.init(params), params)
    left, _, right = np.linalg.svd(gradient.reshape(36, 6).astype(np.float64), full_matrices=False)
    inner = -left.T @ np.asarray(update["kernel"], np.float64).reshape(36, 6) @ right.T
    assert np.all((np.diag(inner) > 0.6) & (np.diag(inner) < 1.3))
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-4)


def test_muon_takes_each_filter_of_a_depthwise_kernel_alone():
    gradient = np.random.default_rng(0).normal(size=(3, 3, 1, 5)).astype(np.float32)
    tx = optim.make_optimizer(name="muon", schedule=optax.constant_schedule(1.0))
    params = {"kernel": jnp.zeros(gradient.shape)}
    update, _ = jax.jit(tx.update)({"kernel": gradient}, tx.init(params), params)
    filters, moved = gradient.reshape(9, 5), -np.asarray(update["kernel"]).reshape(9, 5)
    lengths = np.linalg.norm(moved, axis=0)
    cosines = (filters * moved).sum(0) / (np.linalg.norm(filters, axis=0) * lengths)
    np.testing.assert_allclose(cosines, 1.0, rtol=1e-5)
    assert np.all((lengths > 0.6) & (lengths < 1.3))


def test_muon_trains_a_part_at_its_own_rate():
    """encoder_rate and train_only divide the parameters, and each part moves as it would without the other."""
    schedule = optax.constant_schedule(0.1)
    params = {"encoder": {"kernel": jnp.eye(3), "bias": jnp.ones(3)}, "decoder": {"kernel": 2 * jnp.eye(3)}}
    plain = jax.jit(lambda p: steps(optim.make_optimizer(name="muon", schedule=schedule), p)[0])(params)
    slow = optim.make_optimizer(name="muon", schedule=schedule, encoder_rate=0.5)
    slow = jax.jit(lambda p: steps(slow, p)[0])(params)
    np.testing.assert_allclose(slow["decoder"]["kernel"], plain["decoder"]["kernel"], rtol=1e-6)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(slow["encoder"][name], 0.5 * plain["encoder"][name], rtol=1e-6)
    part = optim.make_optimizer(name="muon", schedule=schedule, selection=Selection(("decoder/",)))
    part = jax.jit(lambda p: steps(part, p)[0])(params)
    np.testing.assert_allclose(part["decoder"]["kernel"], plain["decoder"]["kernel"], rtol=1e-6)
    assert not np.any(part["encoder"]["kernel"]) and not np.any(part["encoder"]["bias"])


def tree(value=1.0):
    return {"encoder": {"kernel": jnp.full((2, 2), value)}, "decoder": {"kernel": jnp.full((2, 3), value)}}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("factor", [0.1, 2.0])
def test_encoder_rate_is_a_factor_on_its_learning_rate(name, factor):
    """The trajectory of the encoder is that of a run with the factor on every rate, the rest that of a plain one."""
    schedule = optim.make_schedule(name="poly", learning_rate=0.05, steps=20, warmup=2)
    options = {"name": name, "weight_decay": 0.1, "clip": 0.5}

    def run(schedule, **more):
        tx = optim.make_optimizer(schedule=schedule, **options, **more)
        params, state = tree(), tx.init(tree())
        for t in range(6):
            gradients = jax.tree.map(
                lambda x, t=t: jnp.cos(jnp.arange(x.size, dtype=x.dtype) + t).reshape(x.shape), params
            )
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return params

    both = run(schedule, encoder_rate=factor)
    plain, scaled = run(schedule), run(lambda step: factor * schedule(step))
    np.testing.assert_allclose(both["encoder"]["kernel"], scaled["encoder"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(both["decoder"]["kernel"], plain["decoder"]["kernel"], rtol=1e-6)
    assert np.abs(plain["encoder"]["kernel"] - scaled["encoder"]["kernel"]).max() > 1e-3


def test_encoder_rate_0_freezes_it_and_leaves_it_out_of_the_norm():
    tx = optim.make_optimizer(
        name="sgd", schedule=optax.constant_schedule(1.0), momentum=0.0, clip=1.0, weight_decay=0.1, encoder_rate=0.0
    )
    gradients = {"encoder": {"kernel": jnp.full((2, 2), 100.0)}, "decoder": {"kernel": jnp.full((2, 3), 0.1)}}
    updates, _ = tx.update(gradients, tx.init(tree()), tree())
    assert np.all(np.asarray(updates["encoder"]["kernel"]) == 0)
    np.testing.assert_allclose(updates["decoder"]["kernel"], -0.2, rtol=1e-6)  # the gradient and 0.1 of decay
    adam = optim.make_optimizer(name="adam", schedule=optax.constant_schedule(1.0), encoder_rate=0.0)
    assert not any(leaf.shape == (2, 2) for leaf in jax.tree.leaves(adam.init(tree())))  # no moments are kept
    with pytest.raises(ArgumentError, match=r"^encoder_rate needs a network with an encoder; this one has kernel"):
        tx.init({"kernel": jnp.ones((2, 2))})
    with pytest.raises(ArgumentError, match=r"encoder_rate must be a number of at least 0, got -1\.0"):
        optim.make_optimizer(name="sgd", schedule=optax.constant_schedule(1.0), encoder_rate=-1.0)


def test_a_network_without_an_encoder_has_no_encoder_rate():
    config = default_config()
    update(config, optimizer__encoder_rate=0.1)
    tx, _ = optim.from_config(config)
    with pytest.raises(ConfigError, match=r"^optimizer\.encoder_rate needs a network with an encoder"):
        tx.init({"kernel": jnp.ones((2, 2))})


def test_from_config():
    config = default_config()
    update(config, steps=100, optimizer__name="sgd", optimizer__learning_rate=0.5, schedule__warmup=4)
    set_key(config, "optimizer.args.nesterov", True)
    tx, schedule = optim.from_config(config)
    params = {"kernel": jnp.ones((2, 2))}
    updates, _ = tx.update(params, tx.init(params), params)
    assert float(schedule(0)) == pytest.approx(0.1)
    # Nesterov's first step is (1 + momentum) times the gradient, here 1 plus the L2 term 1e-4.
    np.testing.assert_allclose(updates["kernel"], -0.1 * 1.9 * 1.0001, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer__weight_decay": -1.0}, "optimizer.weight_decay must be a number of at least 0, got -1.0."),
        ({"optimizer__args__nestrov": True}, "optimizer.args.nestrov is not an argument of the optimiser adamw."),
        ({"optimizer__args__b1": 1.5}, "optimizer.args.b1 must be a number in [0, 1), got 1.5."),
        ({"optimizer__name": "adamm"}, "optimizer.name must be that of an optimiser of optax, got 'adamm'."),
        ({"schedule__name": "step"}, "schedule.boundaries must not be empty"),
        ({"schedule__power": 0.0}, "schedule.power must be a number above 0, got 0.0."),
    ],
)
def test_the_configuration_names_the_key(changes, words):
    config = default_config()
    update(config, **changes)
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}"):
        optim.from_config(config)


def test_rmsprop_has_no_momentum_unless_its_arguments_set_it():
    """Thirty equal gradients: without momentum each step is at most the learning rate over the root of the average."""
    gradients = {"w": jnp.ones(3)}

    def moved(**arguments):
        tx = optim.make_optimizer(name="rmsprop", schedule=lambda _: 1e-3, **arguments)
        params, state = {"w": jnp.zeros(3)}, tx.init(gradients)
        for _ in range(30):
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return float(params["w"][0])

    average = 1.0 - 0.9 ** np.arange(1, 31)  # of the squared gradients, with optax's decay of .9
    np.testing.assert_allclose(moved(), -1e-3 * np.sum(average**-0.5), rtol=1e-5)
    assert moved(momentum=0.5) == moved()
    assert moved(args={"momentum": 0.9}) < 4 * moved()


def test_the_momentum_of_rmsprop_is_asked_for_by_its_own_key():
    config = default_config()
    update(config, optimizer__name="rmsprop", optimizer__momentum=0.5)
    with pytest.raises(ConfigError, match=r"give --config\.optimizer\.args\.momentum=0\.5"):
        optim.from_config(config)
    stored = to_dict(config)
    del stored["format"]
    read = from_dict(stored)  # rmsprop had this momentum then
    assert read.optimizer.args.to_dict() == {"momentum": 0.5} and read.optimizer.momentum == 0.9
    optim.from_config(read)

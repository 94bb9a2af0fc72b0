"""What trains and what does not: frozen parameters and norms, adapters, and what the compiled step saves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_adversarial import quick
from helpers.tiny_models import ADAPTER, TINY, tiny

from jaxseg import models, optim
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.losses import make_loss
from jaxseg.nn import rematerialised
from jaxseg.state import by_path, init_state
from jaxseg.step import make_train_step
from jaxseg.tuning import EVERYTHING, Lora, Selection, TunedNetwork, adapted_kernels, merged
from jaxseg.tuning.lora import init_adapters

K = 3
NET = models.build("unet", num_classes=K, encoder="residual", encoder_args={"widths": (4, 6)}, widths=(4,))
LOSS = make_loss("cross_entropy", num_classes=K)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
    return {"image": jnp.asarray(image), "label": jnp.asarray(rng.integers(0, K, (4, 16, 16)), jnp.uint8)}


def optimiser(selection=EVERYTHING, name="adam", **options):
    return optim.make_optimizer(name=name, schedule=optax.constant_schedule(0.05), selection=selection, **options)


def trained(learner, tx, batch, steps=2, **options):
    """(the first state, the last state, metrics, the compiled program)."""
    state = quick(lambda key: init_state(learner, tx, key, (16, 16, 3)))(jax.random.key(1))
    program = jax.jit(make_train_step(learner, tx, LOSS, **options)).lower(state, batch, jax.random.key(2))
    program = program.compile(FAST_COMPILE)
    after = state
    for _ in range(steps):
        after, metrics = program(after, batch, jax.random.key(2))
    return state, after, metrics, program


def changed(before, after):
    """The paths of the arrays that differ."""
    before, after = by_path(before), by_path(after)
    return {path for path in before if not np.array_equal(before[path], after[path])}


def flops(program):
    cost = program.cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["flops"]


def test_a_frozen_encoder_costs_no_backward_pass_and_keeps_parameters_and_statistics(batch):
    whole = trained(NET, optimiser(), batch)
    selection = Selection(encoder=False)
    frozen = TunedNetwork(NET, selection, frozen_norms="encoder")
    before, after, metrics, program = trained(frozen, optimiser(encoder_rate=0.0), batch)
    assert {path.split("/")[0] for path in changed(before.params, after.params)} == {"decoder", "head"}
    stats = changed(before.batch_stats, after.batch_stats)
    assert stats and all(path.startswith("decoder/") for path in stats)
    assert any(path.startswith("encoder/") for path in by_path(before.batch_stats))
    # The backward pass of a convolution has two products of the size of its forward pass, that of the first has one.
    encoder = NET.encoder(name=None)
    forward = jax.jit(lambda v, x: encoder.apply(v, x, train=True, mutable=["batch_stats"])).lower(
        jax.eval_shape(encoder.init, jax.random.key(0), batch["image"]), batch["image"]
    )
    assert flops(whole[3]) - flops(program) > 1.2 * flops(forward)
    assert np.isfinite(metrics["loss"])


def test_frozen_norms_give_the_features_of_evaluation_and_the_rest_those_of_training(batch):
    variables = quick(NET.init)(jax.random.key(0), batch["image"][:1])
    stats = jax.tree.map(lambda x: x + 0.3, variables["batch_stats"])
    variables = {"params": variables["params"], "batch_stats": stats}

    def outputs(learner, train):
        apply = quick(lambda v, x: learner.apply(v, x, train=train, mutable=["batch_stats"]))
        (_, out), new = apply(variables, batch["image"])
        return out, new["batch_stats"]

    calm, _ = outputs(NET, False)
    out, after = outputs(TunedNetwork(NET, frozen_norms="encoder"), True)
    np.testing.assert_array_equal(out["encoder/stage1"], calm["encoder/stage1"])
    assert np.abs(out["decoder/stage0"] - calm["decoder/stage0"]).max() > 1e-2
    assert changed(stats, after) == {path for path in by_path(stats) if path.startswith("decoder/")}
    out, after = outputs(TunedNetwork(NET, frozen_norms="all"), True)
    np.testing.assert_array_equal(out["decoder/stage0"], calm["decoder/stage0"])
    assert not changed(stats, after)


def test_rematerialisation_keeps_the_frozen_norms(batch):
    learner = TunedNetwork(NET, Selection(encoder=False), frozen_norms="encoder")
    variables = quick(NET.init)(jax.random.key(0), batch["image"][:1])

    def value(apply, params):
        (logits, _), new = apply({**variables, "params": params}, batch["image"], train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2), new["batch_stats"]

    results = [
        quick(jax.value_and_grad(lambda p, apply=apply: value(apply, p), has_aux=True))(variables["params"])
        for apply in (learner.apply, rematerialised(learner.apply))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results)
    assert not np.any([np.any(g) for path, g in by_path(results[1][1]).items() if path.startswith("encoder/")])


def test_a_probe_trains_the_classifier_alone_and_keeps_state_for_nothing_else(batch):
    probe = Selection(("probe",))
    before, after, metrics, _ = trained(TunedNetwork(NET, probe, "all"), optimiser(probe), batch, gradients=True)
    assert changed(before.params, after.params) == {"head/bias", "head/kernel"}
    assert not changed(before.batch_stats, after.batch_stats)
    moments = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * (4 * K + K)
    assert {path for path, norm in metrics["gradients"].items() if norm} == {"head/bias", "head/kernel"}


# One classifier, several, with auxiliary ones, of embeddings, of queries; those of others are like one of these.
CLASSIFIERS = ("ddrnet", "deeplabv2", "encnet", "eomt", "fcn", "mask2former", "pidnet", "segmenter", "stdc", "unet")


@pytest.mark.parametrize("name", some_slow(sorted(TINY), TINY.keys() - set(CLASSIFIERS)))
def test_a_probe_trains_every_layer_of_logits_and_no_other(name):
    """Auxiliary ones too; 37 classes, as no other layer has 37 or 38 (with "none of them") channels."""
    net = models.build(name, num_classes=37, **TINY[name])
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    found = {path for path in by_path(shapes) if Selection(("probe",)).trains(path)}
    of_classes = {path for path, leaf in by_path(shapes).items() if leaf.shape[-1:] in ((37,), (38,))}
    learned_up = {path for path in of_classes if path.startswith("up")}  # FCN's interpolation of logits
    extra = {"pidnet": "boundary", "stdc": "detail"}
    places = {f"{extra[name]}/{leaf}" for leaf in ("bias", "kernel")} if name in extra else set()
    assert found == of_classes - learned_up | places and found


def test_patterns_are_found_anywhere_in_a_path_and_must_be_found(batch):
    selection = Selection(("^decoder/", "probe"))
    before, after, _, _ = trained(TunedNetwork(NET, selection), optimiser(selection, "sgd", clip=1.0), batch, steps=1)
    assert {path.split("/")[0] for path in changed(before.params, after.params)} == {"decoder", "head"}
    with pytest.raises(
        ArgumentError, match=r"^train_only=decodr is found in no path of the \d+ parameters .* decoder,"
    ):
        optimiser(Selection(("decodr",))).init(before.params)
    with pytest.raises(ArgumentError, match=r"^train_only must be regular expressions, got '\('"):
        Selection(("(",))


# --- adapters ---

SEGFORMER = models.build("segformer", num_classes=K, **TINY["segformer"])


def test_the_merged_kernel_is_its_formula():
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in (("w", (1, 1, 5, 4)), ("a", (5, 2)), ("b", (2, 4)))}
    w, a, b = (jnp.asarray(arrays[name], jnp.float32) for name in "wab")
    params = {"conv": {"kernel": w, "bias": jnp.ones(4)}, "lora": {"conv": {"kernel": {"a": a, "b": b}}}}
    result = merged(params, Lora(rank=2, alpha=3.0))
    expected = arrays["w"][0, 0] + 3 / 2 * np.einsum("ir,rj->ij", arrays["a"], arrays["b"])
    np.testing.assert_allclose(result["conv"]["kernel"][0, 0], expected, rtol=1e-6)
    assert result.keys() == {"conv"} and result["conv"]["bias"] is params["conv"]["bias"]


def test_adapters_start_as_nothing_train_alone_and_merge_to_the_same_network(batch):
    selection, lora = Selection(("probe",)), Lora(rank=2, alpha=4.0)
    fields = TINY["segformer"] | {"encoder_args": TINY["segformer"]["encoder_args"] | {"depths": [1, 1]}}
    network = models.build("segformer", num_classes=K, **fields)
    learner = TunedNetwork(network, selection, lora=lora)
    before, after, _, _ = trained(learner, optimiser(selection, layer_decay=0.9), batch)
    base = {name: child for name, child in before.params.items() if name != "lora"}
    jax.tree.map(np.testing.assert_array_equal, merged(before.params, lora), base)
    moved = changed(before.params, after.params)
    assert {path for path in moved if not path.startswith("lora/")} == {"head/bias", "head/kernel"}
    assert {path for path in by_path(before.params) if path.startswith("lora/")} <= moved

    variables = {"params": after.params, "batch_stats": after.batch_stats}
    ours, _ = quick(lambda v, x: learner.apply(v, x, train=False, mutable=["batch_stats"])[0])(
        variables, batch["image"]
    )
    plain, _ = quick(lambda v, x: network.apply({**v, "params": merged(v["params"], lora)}, x, train=False))(
        variables, batch["image"]
    )
    np.testing.assert_array_equal(ours, plain)
    kernel = "encoder/stage1/block1/attention/attention/query/kernel"
    change = np.asarray(by_path(merged(after.params, lora))[kernel] - by_path(base)[kernel])
    assert np.linalg.matrix_rank(change, tol=1e-6) == 2


def test_the_gradient_of_an_adapter_is_that_of_finite_differences(batch):
    """Of the factors A and B of one kernel, along a random direction, in float64."""
    with jax.enable_x64(True):
        dense = {"dense": {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))}}
        adapters = {"dense": {"kernel": {"a": jnp.ones((3, 2)) * 0.3, "b": jnp.ones((2, 4)) * 0.2}}}
        x = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)))

        def loss(adapters):
            kernel = merged({**dense, "lora": adapters}, Lora(2, 4.0))["dense"]["kernel"]
            return jnp.sum(jnp.tanh(x @ kernel) ** 2)

        direction = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size).reshape(a.shape)), adapters)

        def along(step):
            return loss(jax.tree.map(lambda a, d: a + step * d, adapters, direction))

        inner = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (jax.grad(loss)(adapters), direction))))
        np.testing.assert_allclose(inner, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-7)


def test_the_kernels_that_get_an_adapter():
    params = jax.eval_shape(SEGFORMER.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    every = adapted_kernels(params, trains=Selection(("probe",)).trains)
    assert "encoder/stage0/block1/attention/attention/out/kernel" in every
    assert "encoder/stage0/block1/ffn/expand/kernel" in every
    assert not any("depthwise" in path or "patch" in path or path.startswith("head/") for path in every)
    assert every["encoder/stage1/block1/ffn/expand/kernel"] == (8, 32)
    some = adapted_kernels(params, ("query", "value"))
    assert {path.split("/")[-2] for path in some} == {"query", "value"} and len(some) == 6
    with pytest.raises(ConfigError, match=r"^lora\.targets=kwery is found in no path"):
        adapted_kernels(params, ("kwery",))
    with pytest.raises(ConfigError, match=r"^lora\.targets must be regular expressions, got '\['"):
        adapted_kernels(params, ("[",))
    plain = models.build("vgg_head", num_classes=K, **TINY["vgg_head"])
    with pytest.raises(ConfigError, match=r"^lora\.rank needs 1x1 convolutions or dense layers"):
        TunedNetwork(plain, Selection(("probe",)), lora=Lora(2)).init(
            {"params": jax.random.key(0)}, jnp.zeros((1, 16, 16, 3))
        )


def test_no_adapter_has_a_higher_rank_than_its_kernel():
    params = {"dense": {"kernel": jnp.zeros((3, 9))}}
    adapters = init_adapters(jax.random.key(0), params, Lora(8), lambda path: False)
    assert adapters["dense"]["kernel"]["a"].shape == (3, 3) and adapters["dense"]["kernel"]["b"].shape == (3, 9)


# --- ViT-Adapter, which is no adapter of kernels ---

VIT = tiny("fpn", K, **ADAPTER | {"encoder_args": ADAPTER["encoder_args"] | {"depth": 1, "taps": [1]}})
# A frozen transformer, and one whose kernels have adapters.
WAYS = {
    "frozen": (Selection(encoder=False), None),
    "lora": (Selection(("probe", "^decoder", "^branch", "^adapter")), Lora(2, targets=("^encoder",))),
}


def children(paths):
    return {path.split("/")[0] for path in paths}


@pytest.mark.parametrize("way", WAYS)
def test_vit_adapter_is_no_part_of_the_transformer_that_is_frozen_or_has_adapters(way):
    selection, lora = WAYS[way]
    learner = TunedNetwork(VIT, selection, lora=lora)
    params = by_path(
        jax.eval_shape(lambda key: learner.init({"params": key}, jnp.ones((1, 8, 8, 3))), jax.random.key(0))
    )
    params = {path.removeprefix("params/") for path in params if path.startswith("params/")}
    trains = {path for path in params if selection.trains(path)}
    assert children(params - trains) == {"encoder"} and {"adapter", "decoder", "head"} < children(trains)
    adapted = {path.removeprefix("lora/") for path in params if path.startswith("lora/")}
    assert children(adapted) == ({"encoder"} if lora else set())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_beside_a_transformer_that_stays_as_it_is_all_of_vit_adapter_trains(batch, way):
    """Convolutions, norms, attention both ways, and the scale of what the patches read.

    In three steps: the scale and the kernels that place the points start at 0, so that what stands before them has no
    gradient in the first two.
    """
    selection, lora = WAYS[way]
    tx = optimiser(selection, encoder_rate=0.0 if lora is None else 1.0)
    before, after, _, _ = trained(TunedNetwork(VIT, selection, "encoder", lora), tx, batch, steps=3)
    found = changed(before.params, after.params)
    own = {path for path in by_path(before.params) if path.startswith("adapter/")}
    assert len(own) > 100 and own <= found
    assert not any(path.startswith("encoder/") for path in found) and ("lora" in children(found)) == (way == "lora")
    statistics = {path for path in by_path(before.batch_stats) if path.startswith("adapter/")}
    assert statistics and statistics <= changed(before.batch_stats, after.batch_stats)

"""Kernels and inputs of few bits: numbers, gradients, that no layer of any network is left out, and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.tiny_adversarial import quick
from helpers.tiny_models import ENCODERS, TINY
from helpers.tiny_step import assert_same
from jax.test_util import check_grads

from jaxseg import models
from jaxseg.errors import ConfigError
from jaxseg.losses import make_loss
from jaxseg.models import encoders
from jaxseg.nn import (
    Conv,
    ConvTranspose,
    Dense,
    Quantisation,
    StripConv,
    WithCosineHead,
    WithQuantisedInputs,
    rematerialised,
    without_crf,
)
from jaxseg.nn.ops.forms import traced_for
from jaxseg.nn.quantisation import (
    RANGE,
    fake_input,
    fake_kernel,
    quantise_kernel,
    quantised_kernels,
    restored_kernel,
    restored_kernels,
    stored_kernels,
    with_fake_kernels,
    without_ranges,
)
from jaxseg.parallel import make_strategy
from jaxseg.state import by_path, init_state
from jaxseg.step import make_train_step
from jaxseg.tuning import TunedNetwork

RNG = np.random.default_rng(0)


def test_a_kernel_by_hand():
    kernel = jnp.asarray([[1.27, 0.0, -3.0], [-0.634, 0.0, 1.0], [0.016, 0.0, 0.5]])
    values, scales = quantise_kernel(kernel, 8)
    np.testing.assert_allclose(scales, [0.01, 1.0, 3 / 127], rtol=1e-6)
    # 1 / (3/127) = 42.3, 0.5 / (3/127) = 21.2
    assert values.dtype == jnp.int8
    np.testing.assert_array_equal(values, [[127, 0, -127], [-63, 0, 42], [2, 0, 21]])
    np.testing.assert_allclose(fake_kernel(kernel, 8)[:, 0], [1.27, -0.63, 0.02], rtol=1e-6)
    np.testing.assert_array_equal(quantise_kernel(kernel, 2)[0][:, 0], [1, 0, 0])  # -1, 0 and 1 alone; -.634/1.27 < .5


def test_an_input_by_hand():
    # 8 bits over [-1, 4]: steps of 5/255, 0 is 51 of them above -1.
    x = jnp.asarray([-2.0, -1.0, 0.0, 0.011, 4.0, 7.0])
    np.testing.assert_allclose(
        fake_input(x, jnp.asarray([-1.0, 4.0]), 8), [-1, -1, 0, 5 / 255, 4, 4], rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(fake_input(x, jnp.asarray([0.0, 3.0]), 2), [0, 0, 0, 0, 3, 3])
    np.testing.assert_array_equal(fake_input(x, jnp.zeros(2), 8), x)  # no range yet
    assert fake_input(x.astype(jnp.bfloat16), jnp.asarray([-1.0, 4.0]), 8).dtype == jnp.bfloat16


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_against_float64(bits):
    kernel = RNG.normal(size=(3, 3, 4, 5)).astype(np.float32)
    most = 2 ** (bits - 1) - 1
    scale = np.abs(kernel).max((0, 1, 2)).astype(np.float64) / most
    expected = np.clip(np.round(kernel / scale), -most, most) * scale
    np.testing.assert_allclose(fake_kernel(jnp.asarray(kernel), bits), expected, rtol=1e-6)
    assert np.abs(expected - kernel).max() <= 0.5001 * scale.max()

    x = RNG.normal(size=(50,)).astype(np.float32)
    step = 3.5 / (2**bits - 1)
    zero = np.round(1.5 / step)
    expected = (np.clip(np.round(x.astype(np.float64) / step) + zero, 0, 2**bits - 1) - zero) * step
    np.testing.assert_allclose(fake_input(jnp.asarray(x), jnp.asarray([-1.5, 2.0]), bits), expected, rtol=2e-6)


def test_against_torch():
    torch = pytest.importorskip("torch")
    kernel = RNG.normal(size=(3, 3, 4, 5)).astype(np.float32)
    values, scales = quantise_kernel(jnp.asarray(kernel), 8)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(kernel), torch.from_numpy(np.array(scales)), torch.zeros(5, dtype=torch.int32), 3, -128, 127
    )
    np.testing.assert_allclose(restored_kernel(values, scales), theirs, rtol=1e-6)

    x = torch.from_numpy(RNG.normal(size=(400,)).astype(np.float32)).requires_grad_()
    scale, zero = 3.5 / 255, round(1.5 / (3.5 / 255))
    y = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
    weight = torch.arange(400.0)
    (y * weight).sum().backward()
    ours, pull = jax.vjp(lambda x: fake_input(x, jnp.asarray([-1.5, 2.0]), 8), jnp.asarray(x.detach().numpy()))
    np.testing.assert_allclose(ours, y.detach(), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(pull(jnp.asarray(weight.numpy()))[0], x.grad)


def test_gradients_pass_straight_through():
    kernel = jnp.asarray([[1.0, 0.3], [-0.2, 0.7]])
    weight = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(jax.grad(lambda k: jnp.sum(weight * fake_kernel(k, 8)))(kernel), weight)
    # The chain rule sees the rounded value: d/dk Σ fake(k)² = 2 fake(k).
    rounded = fake_kernel(kernel, 3)
    np.testing.assert_allclose(jax.grad(lambda k: jnp.sum(fake_kernel(k, 3) ** 2))(kernel), 2 * rounded)
    x, span = jnp.asarray([-2.0, -0.9, 0.1, 1.9, 2.5]), jnp.asarray([-1.0, 2.0])
    into_x, into_span = jax.grad(lambda x, s: jnp.sum(fake_input(x, s, 8)), argnums=(0, 1))(x, span)
    np.testing.assert_array_equal(into_x, [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(into_span, [0, 0])
    check_grads(lambda x: fake_input(x, jnp.zeros(2), 8), (x,), order=1)  # without a range, the identity


# Every form that `nn.ops.conv` has: products, depthwise and grouped sums, taps, strides and shifts of the kernel.
LAYERS = {
    "3x3": (Conv(4, name="layer"), (1, 6, 6, 3)),
    "stride 2": (Conv(4, stride=2, name="layer"), (1, 7, 6, 3)),
    "1x1": (Conv(4, 1, name="layer"), (1, 5, 5, 3)),
    "depthwise": (Conv(3, groups=3, name="layer"), (1, 6, 6, 3)),
    "grouped": (Conv(4, groups=2, name="layer"), (1, 6, 6, 4)),
    "dilated": (Conv(4, dilation=5, name="layer"), (1, 6, 6, 3)),
    "transposed 2": (ConvTranspose(4, 2, 2, name="layer"), (1, 4, 4, 3)),
    "transposed 4": (ConvTranspose(4, 4, 2, name="layer"), (1, 4, 4, 3)),
    "dense": (Dense(4, name="layer"), (1, 5, 3)),
}


class Around(nn.Module):
    """A network of one layer."""

    layer: nn.Module

    @nn.compact
    def __call__(self, x, *, train=False):
        return self.layer(x), {"aux": ()}


@pytest.mark.parametrize(
    ("name", "forms"),
    [*((name, "usual") for name in LAYERS), *((name, "strips") for name in ("stride 2", "grouped", "transposed 4"))],
)
def test_each_form_of_a_layer_is_the_arithmetic_of_whole_numbers(name, forms):
    """The layer of few bits is s_x s_k Σ (q_x - z) q_k, with the sum in whole numbers of any size."""
    layer, shape = LAYERS[name]
    settings = Quantisation(8, 8)
    network = WithQuantisedInputs(Around(layer), settings)
    x = RNG.normal(size=shape).astype(np.float32)
    low, high = np.float32(-1.25), np.float32(2.0)
    with traced_for(forms):
        params = network.init(jax.random.key(0), x)["params"]
        params["layer"]["bias"] = jnp.zeros_like(params["layer"]["bias"])
        stats = {"layer": {RANGE: jnp.asarray([low, high])}}
        fake = with_fake_kernels(params, settings)
        found = network.apply({"params": fake, "batch_stats": stats}, x)[0]
        scale = (high - low) / np.float32(255)
        zero = np.round(-low / scale)
        q = np.clip(np.round(x / scale) + zero, 0, 255) - zero
        values, scales = quantise_kernel(params["layer"]["kernel"], 8)
        # Whole numbers below 2^24 are exact in float32, so the layer itself adds them up as int32 does.
        whole = {"params": {"layer": {"kernel": values.astype(jnp.float32), "bias": params["layer"]["bias"]}}}
        sums = np.asarray(Around(layer).apply(whole, jnp.asarray(q, jnp.float32))[0])
    np.testing.assert_array_equal(sums, np.round(sums))
    np.testing.assert_allclose(found, sums * np.asarray(scales) * scale, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, Around(layer).apply({"params": params}, x)[0], atol=1e-5)


def test_whole_numbers_pass_unchanged():
    kernel = jnp.asarray(RNG.integers(-127, 128, (3, 3, 2, 4)), jnp.float32).at[0, 0, 0].set(127.0)
    np.testing.assert_array_equal(fake_kernel(kernel, 8), kernel)
    x = jnp.asarray(RNG.integers(0, 256, (1, 6, 6, 2)), jnp.float32)
    np.testing.assert_array_equal(fake_input(x, jnp.asarray([0.0, 255.0]), 8), x)


def layers_of(model, image):
    """The paths of every convolution and dense layer that a network calls, and the shapes of its variables."""
    called = set()

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, Conv | ConvTranspose | Dense | StripConv):
            called.add("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    return called, shapes


# Each kind of layer: convolutions that are transposed, grouped, depthwise and of other sides, dense ones, attention,
# codewords, and kernels that a network reads itself. The others are made of the same.
QUICK = ("encnet", "enet", "eomt", "fast_scnn", "fcn", "mask2former", "unet", "convnext_tiny", "mit_b0")
OF_ENCODERS = (
    "convnext_tiny",
    "efficientnet_b0",
    "hrnet_w18",
    "mit_b0",
    "mobilenet_v2",
    "resnext50_32x4d",
    "vit_base_dinov2_reg",
)
ALL = [*(name for name in models.names() if name not in models.GENERATORS), *OF_ENCODERS]


class Encoder(nn.Module):
    """An encoder as a network."""

    name_of_encoder: str

    @nn.compact
    def __call__(self, x, *, train=False):
        name = self.name_of_encoder
        return encoders.factory(name, **ENCODERS[name])(name="encoder")(x, train=train), {}


@pytest.mark.parametrize("name", some_slow(ALL, set(ALL) - set(QUICK)))
def test_no_layer_of_any_network_escapes(name):
    """Every kernel of every network has few bits, and every layer with a kernel has a range."""
    model = Encoder(name) if name in OF_ENCODERS else models.build(name, num_classes=3, **TINY[name])
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    settings = Quantisation(8, 8)
    called, shapes = layers_of(WithQuantisedInputs(model, settings), image)
    params = by_path(shapes["params"])
    kernels = quantised_kernels(shapes["params"], settings)
    assert {path.removesuffix("/kernel") for path in kernels} == called
    ranges = {path for path in by_path(shapes["batch_stats"]) if path.endswith(RANGE)}
    assert {path.removesuffix(f"/{RANGE}") for path in ranges} == called
    # What stays in float32 has one axis, or is no kernel of a layer: embeddings and tables.
    left = {path.rpartition("/")[2] for path in params if path not in kernels and len(params[path].shape) > 1}
    assert left <= {
        "codewords",
        "level",
        "query",
        "query_position",
        "position",
        "class_token",
        "registers",
        "embedding",
    }


# --- training ---


def tiny(axis_name=None, **fields):
    network = models.build("cnn", num_classes=3, axis_name=axis_name, widths=(4,), hidden=4, dropout=0.0, norm="group")
    return WithQuantisedInputs(network, Quantisation(8, 8), axis_name, **fields)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return {
        "image": rng.normal(size=(8, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(0, 3, (8, 8, 8)).astype(np.int32),
    }


def trained(batch, *, strategy="jit", devices=1):
    strat = make_strategy(strategy, {"batch_size": 8}, jax.devices()[:devices])
    tx = optax.sgd(0.1)

    def learner(axis_name):
        return TunedNetwork(tiny(axis_name), quantisation=Quantisation(8, 8))

    step = make_train_step(
        learner(strat.axis_name),
        tx,
        make_loss("cross_entropy", num_classes=3),
        axis_name=strat.axis_name,
    )
    state = strat.put_state(jax.jit(lambda key: init_state(learner(None), tx, key, (8, 8, 3)))(jax.random.key(1)))
    state, metrics = strat.compile_train(step)(state, strat.put_batch(batch), strat.put_key(jax.random.key(2)))
    return jax.device_get(strat.get_state(state)), jax.device_get(strat.first(metrics))


def test_one_program_on_any_number_of_devices(batch):
    state, metrics = trained(batch)
    ranges = by_path(state.batch_stats)
    stem = next(path for path in ranges if "stage" in path or "stem" in path)
    expected = [batch["image"].min((1, 2, 3)).mean(), batch["image"].max((1, 2, 3)).mean()]
    np.testing.assert_allclose(ranges[stem], expected, rtol=1e-5)
    other, measured = trained(batch, strategy="pmap", devices=8)
    assert_same(other.params, state.params)
    assert_same(other.batch_stats, state.batch_stats)
    assert measured["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_evaluation_uses_the_average_and_observation_widens(batch):
    model, image = tiny(), jnp.asarray(batch["image"])
    learn = quick(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    variables = quick(model.init)(jax.random.key(0), image)
    first = learn(variables, image)[1]
    again = rematerialised(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    assert_same(quick(again)(variables, image)[1], first)
    second = learn({**variables, **first}, 3 * image)[1]
    path = next(iter(by_path(first["batch_stats"])))
    one, both = by_path(first["batch_stats"])[path], by_path(second["batch_stats"])[path]
    np.testing.assert_allclose(both, 0.99 * one + 0.01 * 3 * one, rtol=1e-5)
    plain = quick(model.model.apply)
    at_rest = quick(model.apply)({**variables, **first}, image)[0]
    assert np.abs(at_rest - plain(variables, image)[0]).max() > 1e-4

    observe = functools.partial(tiny(observe=1.0).apply, mutable=["batch_stats"])
    logits, wide = quick(observe)({**variables, **first}, -2 * image)
    np.testing.assert_allclose(logits[0], plain(variables, -2 * image)[0], rtol=1e-5, atol=1e-6)
    own = [-2 * batch["image"].max((1, 2, 3)).mean(), -2 * batch["image"].min((1, 2, 3)).mean()]
    expected = [min(one[0], own[0]), max(one[1], own[1])]
    np.testing.assert_allclose(by_path(wide["batch_stats"])[path], expected, rtol=1e-6)
    inner = quick(functools.partial(tiny(observe=0.5).apply, mutable=["batch_stats"]))(variables, image)[1]
    np.testing.assert_allclose(
        by_path(inner["batch_stats"])[path],
        np.quantile(batch["image"].reshape(8, -1), [0.25, 0.75], axis=1).mean(1),
        rtol=1e-4,
    )
    with pytest.raises(ValueError, match="has no range; give the statistics of this network"):
        model.apply({"params": variables["params"]}, image)
    assert without_ranges(variables["batch_stats"]) == {}


def test_layers_that_stay_and_wrong_patterns(batch):
    settings = Quantisation(8, 8, skip=("^head",))
    model = WithQuantisedInputs(WithCosineHead(tiny().model), settings)
    variables = quick(model.init)(jax.random.key(0), jnp.asarray(batch["image"]))
    assert not any(path.startswith("head") for path in by_path(variables["batch_stats"]))
    fake = with_fake_kernels(variables["params"], settings)
    np.testing.assert_array_equal(fake["head"]["kernel"], variables["params"]["head"]["kernel"])
    plain = jax.eval_shape(model.model.init, jax.random.key(0), jnp.asarray(batch["image"]))
    assert by_path(plain["params"]).keys() == by_path(variables["params"]).keys()
    stored = stored_kernels(variables["params"], settings)
    assert {leaf.dtype.name for path, leaf in by_path(stored).items() if path.endswith("values")} == {"int8"}
    jax.tree.map(np.testing.assert_array_equal, restored_kernels(stored), fake)
    assert type(without_crf(model)).__name__ == "CNN"
    for skip, message in (
        ((".",), r"^quantise\.skip leaves no layer"),
        (("nowhere",), r"^quantise\.skip=nowhere is found in no path of a kernel; one is"),
        (("(",), r"^quantise\.skip must be regular expressions, got '\('"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantised_kernels(variables["params"], Quantisation(8, 0, skip))

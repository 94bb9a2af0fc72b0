"""SegNeXt written out in torch, its Hamburger against NumPy in float64, its strips, and published sizes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.numpy_layers import Layers64
from helpers.papers import compare, count
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import TINY, tiny
from helpers.variables import drawn, shapes

from jaxseg import models
from jaxseg.models.encoders.mscan import MSCAN
from jaxseg.models.segnext import Hamburger, factorised, first_parts
from jaxseg.nn import StripConv
from jaxseg.nn.ops.strip_conv import strip_conv2d

RNG = np.random.default_rng(0)


def mscan(t, x, stages, strips):
    """Levels of MSCAN with a block in each stage, as Fig. 2 and equations 1 and 2 have it."""
    gelu, levels = t.f.gelu, []

    def depthwise(x, name):
        sides = t.leaves[f"{name}/kernel"].shape[:2]
        return t.conv(x, name, padding=[side // 2 for side in sides], groups=x.shape[1])

    def scaled(y, name):
        return y * t.leaves[name][:, None, None]

    for i in range(stages):
        stage, b = f"encoder/stage{i}", f"encoder/stage{i}/block1"
        x = t.norm(t.conv(x, f"{stage}/embed1", stride=2, padding=1), f"{stage}/embed_norm1")
        if i == 0:
            x = t.norm(t.conv(gelu(x), f"{stage}/embed2", stride=2, padding=1), f"{stage}/embed_norm2")
        given = t.norm(x, f"{b}/norm1")
        features = gelu(t.conv(given, f"{b}/project_in"))
        local = depthwise(features, f"{b}/attention/depthwise")
        rows = {size: depthwise(local, f"{b}/attention/row{size}") for size in strips}
        scales = [depthwise(row, f"{b}/attention/column{size}") for size, row in rows.items()]
        attention = t.conv(local + sum(scales), f"{b}/attention/mix")
        x = x + scaled(t.conv(attention * features, f"{b}/project_out") + given, f"{b}/branch_scale1")
        y = depthwise(t.conv(t.norm(x, f"{b}/norm2"), f"{b}/expand"), f"{b}/depthwise")
        x = x + scaled(t.conv(gelu(y), f"{b}/reduce"), f"{b}/branch_scale2")
        scale, bias = t.leaves[f"{stage}/norm/scale"], t.leaves[f"{stage}/norm/bias"]
        x = t.f.layer_norm(x.permute(0, 2, 3, 1), scale.shape, scale, bias, eps=1e-5).permute(0, 3, 1, 2)
        levels.append(x)
    return levels


def test_the_network_is_that_of_the_paper():
    """Its gradient is the one-step gradient: the factors before the last update are constants."""

    def network(t, x):
        size, levels = x.shape[2:], mscan(t, x, 2, (3, 5))
        y = t.torch.cat([t.f.interpolate(level, levels[0].shape[2:], mode="bilinear") for level in levels], 1)
        y = t.layer(y, "squeeze", padding=0)
        lower = t.f.relu(t.conv(y, "hamburger/lower"))
        tokens = lower.flatten(2).transpose(1, 2)
        factors = [reference(image, 3, 7)[:2] for image in tokens.detach().double().numpy()]
        codes, parts = (t.torch.tensor(np.stack(factor), dtype=x.dtype) for factor in zip(*factors))
        codes = codes * (tokens @ parts) / (codes @ (parts.mT @ parts) + 1e-6)
        ham = (codes @ parts.mT).transpose(1, 2).unflatten(2, lower.shape[2:])
        y = t.f.relu(y + t.norm(t.conv(ham, "hamburger/upper/conv"), "hamburger/upper/norm"))
        return t.f.interpolate(t.conv(t.layer(y, "align", padding=0), "head"), size, mode="bilinear")

    compare(tiny("segnext"), network, size=(21, 34))


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("size", [1, 7, 21])
def test_strips_are_convolutions(axis, size):
    """The value, and both gradients, of XLA's own convolution; of 21 taps most lie beyond both sides of the image."""
    x, kernel = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 5, 6, 3), (size, 3)))
    weight = jnp.asarray(RNG.normal(size=x.shape), jnp.float32)

    def theirs(x, kernel):
        whole = kernel.reshape((size, 1, 1, 3) if axis == 1 else (1, size, 1, 3))
        return jax.lax.conv_general_dilated(
            x, whole, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    def both(x, kernel):
        forms = functools.partial(strip_conv2d, axis=axis), theirs
        return [jax.value_and_grad(lambda *v, f=f: jnp.sum(f(*v) * weight), (0, 1))(x, kernel) for f in forms]

    ours, expected = both(x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), ours, expected)
    half = strip_conv2d(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), axis)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("axis", [1, 2])
def test_the_gradient_of_a_long_strip_does_not_write_out_an_image_for_each_tap(axis):
    x, kernel = jax.ShapeDtypeStruct((1, 32, 32, 8), "float32"), jax.ShapeDtypeStruct((21, 8), "float32")
    gradient = jax.jit(jax.grad(lambda *v: jnp.sum(jnp.sin(strip_conv2d(*v, axis))), (0, 1)))
    memory = gradient.lower(x, kernel).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 4 * np.prod(x.shape)  # 23 images with one for each tap


def test_a_strip_of_even_length_is_refused():
    with pytest.raises(ValueError, match=r"StripConv\.size must be an odd number of at least 1, got 4"):
        jax.eval_shape(StripConv(4, "row").init, jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="MSCAN: depths needs 2 numbers, as widths has"):
        jax.eval_shape(MSCAN((4, 8), (1,)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


# --- the Hamburger ------------------------------------------------------------------------------------------------


def updates(x, codes, parts):
    """One step of Lee and Seung for X ≈ C Dᵀ of one image, first C, then D."""
    codes = codes * (x @ parts) / (codes @ (parts.T @ parts) + 1e-6)
    return codes, parts * (x.T @ codes) / (parts @ (codes.T @ codes) + 1e-6)


def reference(x, rank, steps):
    """(C, D before the last update, the result) of one image f64[t,c]."""
    parts = np.asarray(first_parts(x.shape[1], rank), np.float64)
    codes = np.exp(x @ parts)
    codes /= codes.sum(-1, keepdims=True)
    for _ in range(steps):
        codes, parts = updates(x, codes, parts)
    return codes, parts, updates(x, codes, parts)[0] @ parts.T


def test_the_factorisation_is_that_of_the_paper():
    x = np.abs(RNG.normal(size=(2, 10, 6)))
    ours = jax.jit(lambda x: [factorised(x, 3, steps) for steps in (1, 7)])(jnp.asarray(x, jnp.float32))
    for result, steps in zip(ours, (1, 7)):
        np.testing.assert_allclose(result, [reference(image, 3, steps)[2] for image in x], rtol=1e-4, atol=1e-5)
    errors = [np.linalg.norm(x - np.stack([reference(image, 3, n)[2] for image in x])) for n in range(1, 8)]
    assert all(a >= b for a, b in itertools.pairwise(errors)) and (np.asarray(ours[1]) >= 0).all()
    # Features of one part are found exactly.
    one = np.outer([1.0, 2.0, 0.5], [3.0, 0.1])[None]
    np.testing.assert_allclose(factorised(jnp.asarray(one, jnp.float32), 1, 2), one, rtol=1e-4)


def test_the_gradient_is_that_of_the_last_update():
    """With C and D before it held, by differences in float64; the gradient through all steps is another."""
    x, weight = np.abs(RNG.normal(size=(5, 4))), RNG.normal(size=(5, 4))
    codes, parts, _ = reference(x, 2, 3)

    def last(x):
        return np.sum((codes * (x @ parts) / (codes @ (parts.T @ parts) + 1e-6)) @ parts.T * weight)

    def slopes(function):
        found = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = 1e-6
            found[place] = (function(x + step) - function(x - step)) / 2e-6
        return found

    ours = jax.jit(jax.grad(lambda x: jnp.sum(factorised(x, 2, 3)[0] * weight)))(jnp.asarray(x[None], jnp.float32))
    np.testing.assert_allclose(ours[0], slopes(last), rtol=1e-3, atol=1e-4)
    assert np.abs(slopes(lambda x: np.sum(reference(x, 2, 3)[2] * weight)) - slopes(last)).max() > 0.01


def test_the_hamburger_is_bread_ham_and_bread():
    x = jnp.asarray(RNG.normal(size=(2, 3, 4, 6)), jnp.float32)
    model = Hamburger(rank=2, steps=1, eval_steps=2)
    variables = drawn(model, x)
    t, given = Layers64(variables), np.asarray(x, np.float64)
    lower = np.maximum(t.conv(given, "lower"), 0).reshape(2, 12, 6)
    ham = np.stack([reference(image, 2, 2)[2] for image in lower]).reshape(2, 3, 4, 6)
    expected = np.maximum(given + t.norm(t.conv(ham, "upper/conv"), "upper/norm"), 0)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), expected, rtol=1e-4, atol=1e-4)


# Sizes of the paper in millions, for the 150 classes of ADE20K, and the fields of each.
PUBLISHED = {"small": (13.9, {}), "base": (27.6, {"width": 512, "rank": 64})}
PUBLISHED["large"] = (48.9, {"width": 1024, "rank": 64})


def test_the_default_is_segnext_t():
    """4.3 million parameters; the levels of stride 8 and more are decoded."""
    variables, logits, out = shapes(models.build("segnext", num_classes=150), (1, 70, 65, 3))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) / 1e6, 1) == 4.3
    levels = [(18, 17, 32), (9, 9, 64), (5, 5, 160), (3, 3, 256)]
    assert [out[f"encoder/stage{i}"].shape[1:] for i in range(4)] == levels
    assert out["decoder/stage0"].shape == (1, 9, 9, 256) and logits.shape == (1, 70, 65, 150)


@pytest.mark.slow
@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones(size):
    millions, fields = PUBLISHED[size]
    found = count("segnext", 3, num_classes=150, encoder=f"mscan_{size}", **fields)
    assert round(found / 1e6, 1) == millions


def test_a_level_is_needed():
    with pytest.raises(ValueError, match="SegNeXt: finest=64 leaves no level"):
        shapes(models.build("segnext", num_classes=4, **TINY["segnext"] | {"finest": 64}), (1, 9, 8, 3))

"""What docs/blocks says of the gradients of blocks, and the equations that no other test writes out, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from helpers.numpy_layers import Layers64, conv, relu
from helpers.parity import FAST_COMPILE
from helpers.variables import drawn

from jaxseg import nn

SHAPE = (1, 3, 4, 4)
NORM = nn.Layers(norm=nn.make_norm("layer"))  # of each pixel by itself: no mean over the image hides a path
UNITS = {"basic": nn.BasicBlock, "preact": nn.PreActBlock}


def image(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pulled_back(g, *functions_and_inputs):
    """The gradient of sum(g f(x)) for each pair (f, x): the transposed Jacobian times g.

    g is drawn without a look at f, so that two Jacobians which give the same are the same.
    """
    functions, inputs = zip(*functions_and_inputs)

    def all_of_them(inputs):
        return [jax.vjp(function, x)[1](g)[0] for function, x in zip(functions, inputs)]

    return jax.jit(all_of_them, compiler_options=FAST_COMPILE)(inputs)


@pytest.mark.parametrize("unit", ["basic", "preact"])
def test_the_jacobian_of_a_unit_is_the_identity_plus_that_of_its_branch(unit):
    x, g = image(), image(seed=1)
    block = UNITS[unit](4, common=NORM, **({"last_act": False} if unit == "basic" else {}))
    variables = drawn(block, x)
    of_branch, of_unit = pulled_back(
        g, *((functools.partial(each.apply, variables), x) for each in (block.clone(shortcut="none"), block))
    )
    assert np.abs(of_branch).max() > 0.1
    np.testing.assert_allclose(of_unit, g + of_branch, atol=1e-5)


def test_the_activation_after_the_sum_closes_the_shortcut_too():
    x, g = image(), image(seed=1)
    block = nn.BasicBlock(4, common=NORM, last_act=False)
    variables = drawn(block, x)
    opened = np.asarray(jax.jit(block.apply)(variables, x)) > 0
    assert 0 < opened.sum() < x.size
    [closed] = pulled_back(g, (functools.partial(block.clone(last_act=True).apply, variables), x))
    [expected] = pulled_back(g * opened, (functools.partial(block.apply, variables), x))
    np.testing.assert_allclose(closed, expected, atol=1e-6)


def test_the_gradient_of_a_stack_has_a_term_that_no_weight_changes():
    """He et al. 2016, equations 4 and 5, of two units."""
    x, g, block = image(), image(seed=1), nn.PreActBlock(4, common=NORM)
    first = drawn(block, x)
    each = [first, jax.tree.map(lambda leaf: 0.7 * leaf, first)]

    def sums(x):
        total, at = jnp.zeros_like(x), x
        for variables in each:
            added = block.clone(shortcut="none").apply(variables, at)
            total, at = total + added, at + added
        return total

    def stack(x):
        for variables in each:
            x = block.apply(variables, x)
        return x

    of_stack, of_sums = pulled_back(g, (stack, x), (sums, x))
    assert np.abs(of_sums).max() > 0.1
    np.testing.assert_allclose(of_stack, g + of_sums, atol=1e-5)


def test_a_unit_whose_last_scale_is_zero_passes_gradients_unchanged():
    """`shortcut="scaled"` as it starts, a norm whose scale is set to 0, and the start of a network without norms."""
    x, g = np.abs(image()) + 0.1, image(seed=1)  # what an activation leaves: above 0
    bare = nn.Layers(norm=nn.make_norm("none"))
    cases = [unit(4, shortcut="scaled", common=NORM) for unit in (nn.BasicBlock, nn.PreActBlock)]
    cases += [unit(4, common=bare) for unit in (nn.BasicBlock, nn.PreActBlock)]
    starts = jax.jit(lambda key: [block.init(key, x) for block in cases], compiler_options=FAST_COMPILE)
    given = list(zip(cases, starts(jax.random.key(0))))
    block = nn.BottleneckBlock(4, common=NORM)
    variables = drawn(block, x)
    variables["params"]["expand"]["norm"] = {name: np.zeros(4, np.float32) for name in ("scale", "bias")}
    given.append((block, variables))
    found = pulled_back(g, *((functools.partial(block.apply, variables), x) for block, variables in given))
    for (block, _), gradient in zip(given, found):
        np.testing.assert_array_equal(gradient, g, err_msg=str(block))


def test_the_rank_of_a_bottleneck_is_that_of_its_narrow_layer():
    x = image((1, 1, 1, 8))
    block = nn.BottleneckBlock(8, shortcut="none", last_act=False, common=nn.BARE.replace(act=None))
    variables = drawn(block, x)
    branch = jax.jit(jax.jacrev(lambda x: block.apply(variables, x)), compiler_options=FAST_COMPILE)(x).reshape(8, 8)
    assert np.linalg.matrix_rank(branch, tol=1e-5) == 2


def test_a_kernel_before_a_batch_norm_has_a_gradient_at_right_angles():
    x, up = image((2, 5, 5, 3)), image((2, 5, 5, 4), seed=1)
    block = nn.ConvNormAct(4, common=nn.Layers())
    variables = drawn(block, x)

    @jax.jit
    def gradient(params):
        def value(params):
            y = block.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])[0]
            return jnp.sum(y * up)

        return jax.grad(value)(params)

    kernel, got = variables["params"]["conv"]["kernel"], gradient(variables["params"])["conv"]["kernel"]
    along = np.sum(kernel * np.asarray(got, np.float64), axis=(0, 1, 2))
    squares = [np.sum(np.square(each, dtype=np.float64), axis=(0, 1, 2)) for each in (kernel, got)]
    np.testing.assert_allclose(along / np.sqrt(squares[0] * squares[1]), 0, atol=1e-4)


def test_the_gradient_of_squeeze_excite_is_the_gate_and_a_term_for_all_pixels():
    x, g = image((1, 3, 4, 6)), image((1, 3, 4, 6), seed=1)
    block = nn.SqueezeExcite(features=3)
    variables = drawn(block, x)
    got = jax.jit(lambda x: jax.vjp(functools.partial(block.apply, variables), x)[1](g)[0])(x)
    of = Layers64(variables)
    hidden = of.conv(x.astype(np.float64).mean((1, 2), keepdims=True), "reduce")
    s = 1 / (1 + np.exp(-of.conv(relu(hidden), "expand")))
    first, second = of.leaves["reduce/kernel"][0, 0], of.leaves["expand/kernel"][0, 0]
    summed = (g * x.astype(np.float64)).sum((1, 2), keepdims=True)
    shared = ((s * (1 - s) * summed) @ second.T * (hidden > 0)) @ first.T / 12
    np.testing.assert_allclose(got, s * g + shared, rtol=1e-4, atol=1e-5)


def test_the_gradients_of_an_attention_gate_are_those_of_the_page():
    x, q, g = image((1, 3, 4, 6)), image((1, 3, 4, 5), seed=1), image((1, 3, 4, 6), seed=2)
    block = nn.AttentionGate(inter_features=4)
    variables = drawn(block, x, q)
    got = jax.jit(lambda x, q: jax.vjp(lambda x, q: block.apply(variables, x, q)[0], x, q)[1](g))(x, q)
    of = Layers64(variables)
    inner = of.conv(x, "theta") + of.conv(q, "phi")
    alpha = 1 / (1 + np.exp(-of.conv(relu(inner), "psi")))
    theta, phi, psi = (of.leaves[f"{name}/kernel"][0, 0] for name in ("theta", "phi", "psi"))
    a = alpha * (1 - alpha) * (g * x.astype(np.float64)).sum(-1, keepdims=True)
    back = (a @ psi.T) * (inner > 0)
    np.testing.assert_allclose(got[0], alpha * g + back @ theta.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], back @ phi.T, rtol=1e-4, atol=1e-5)


def test_attention_with_a_last_kernel_of_zeros_starts_as_the_identity():
    x = image((1, 2, 3, 4))
    block = nn.SelfAttention2D(2, out_init=linen.initializers.zeros_init())
    variables = jax.jit(block.init)(jax.random.key(0), x)
    g = image(x.shape, seed=1)
    np.testing.assert_array_equal(pulled_back(g, (lambda x: x + block.apply(variables, x), x))[0], g)


def test_a_bias_of_the_keys_has_no_gradient_and_unread_tokens_get_none():
    query, tokens = image((1, 2, 4)), image((1, 5, 6), seed=1)
    block, mask = nn.MultiHeadAttention(2), np.ones((1, 1, 2, 5), bool)
    mask[..., 3] = False
    variables = drawn(block, query, tokens)

    @jax.jit
    def gradients(params, tokens):
        def value(params, tokens):
            return jnp.sum(block.apply({"params": params}, query, tokens, mask=mask) ** 2)

        return jax.grad(value, (0, 1))(params, tokens)

    params, of_tokens = gradients(variables["params"], tokens)
    assert np.abs(params["value"]["bias"]).max() > 0.1
    np.testing.assert_allclose(params["key"]["bias"], 0, atol=1e-5)
    assert not np.any(of_tokens[0, 3]) and np.all(np.any(np.asarray(of_tokens[0, [0, 1, 2, 4]]), axis=-1))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(of, x, name):
    return x @ of.leaves[f"{name}/kernel"] + of.leaves[f"{name}/bias"]


def attended(of, query, tokens, n, bias=0.0):
    """Vaswani 2017, equation 1, of n heads: f[q,c], f[t,e] -> f[q,c], in float64."""
    q, k, v = dense(of, query, "query"), dense(of, tokens, "key"), dense(of, tokens, "value")
    q, k, v = (a.reshape(len(a), n, -1).swapaxes(0, 1) for a in (q, k, v))
    y = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + bias) @ v
    return dense(of, y.swapaxes(0, 1).reshape(len(query), -1), "out")


def test_cross_attention_is_its_equation():
    query, tokens = image((1, 3, 6)), image((1, 5, 4), seed=1)
    block = nn.MultiHeadAttention(2)
    variables = drawn(block, query, tokens)
    expected = attended(Layers64(variables), query[0].astype(np.float64), tokens[0].astype(np.float64), 2)
    np.testing.assert_allclose(jax.jit(block.apply)(variables, query, tokens)[0], expected, rtol=1e-4, atol=1e-5)


def test_window_attention_is_its_equation():
    """Two windows of 2x2 pixels, each with the biases of the distances between its pixels."""
    x = image((1, 2, 4, 4))
    block = nn.WindowAttention(2, side=2)
    variables = drawn(block, x)
    of = Layers64(variables)
    places = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    apart = places[:, None] - places[None] + 1  # query minus key, from 0
    bias = of.leaves["position"][apart[..., 0] * 3 + apart[..., 1]].transpose(2, 0, 1)
    expected = np.empty(x.shape)
    for left in (0, 2):
        window = x[0, :, left : left + 2].reshape(4, 4).astype(np.float64)
        expected[0, :, left : left + 2] = attended(of, window, window, 2, bias).reshape(2, 2, 4)
    np.testing.assert_allclose(jax.jit(block.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_separable_and_inverted_units_are_their_equations():
    x = image((2, 5, 4, 4))
    separable = nn.ConvNormAct(6, separable=True, common=nn.Layers())
    inverted = nn.InvertedResidual(4, 8, residual=True, squeeze=2, common=nn.Layers(act=linen.relu6))
    fused = nn.FusedInvertedResidual(4, 8, residual=True, common=nn.Layers())
    variables = [drawn(block, x) for block in (separable, inverted, fused)]
    apply = jax.jit(lambda each, x: [b.apply(v, x) for b, v in zip((separable, inverted, fused), each)])
    of = [Layers64(each) for each in variables]
    expected = [relu(of[0].norm(conv_of(of[0], conv_of(of[0], x, "depthwise"), "pointwise"), "norm"))]

    def six(x):
        return np.clip(x, 0, 6)

    h = six(of[1].layer(x, "expand", act=False))
    h = six(of[1].norm(conv_of(of[1], h, "depthwise/conv"), "depthwise/norm"))
    gate = of[1].conv(relu(of[1].conv(h.mean((1, 2), keepdims=True), "excite/reduce")), "excite/expand")
    expected.append(x + of[1].layer(h / (1 + np.exp(-gate)), "project", act=False))
    expected.append(x + of[2].layer(of[2].layer(x, "expand"), "project", act=False))
    for got, value in zip(apply(variables, x), expected):
        np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-4)


def conv_of(of, x, name):
    return conv(x, of.leaves[f"{name}/kernel"])

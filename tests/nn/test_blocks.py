"""Residual blocks and attention: the equations written out, any size, shortcuts, gradients to every parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import nn as jnn

GROUP = jnn.make_norm("group", num_groups=2)
WITH_GROUP = jnn.BARE.replace(norm=GROUP)
HALF = WITH_GROUP.replace(dtype=jnp.bfloat16)
BLOCKS = [jnn.BasicBlock, jnn.BottleneckBlock, jnn.PreActBlock]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def conv(p, x, stride=1):
    k = p["kernel"].shape[0]
    y = jnn.conv2d(x, p["kernel"], stride=stride, padding=k // 2)
    return y + p["bias"].reshape(1, 1, 1, -1) if "bias" in p else y


@jax.jit
def norm(p, x):
    """Group norm of two groups, plainly."""
    tiles = x.reshape(x.shape[0], -1, 2, x.shape[-1] // 2)
    z = (tiles - tiles.mean((1, 3), keepdims=True)) / jnp.sqrt(tiles.var((1, 3), keepdims=True) + 1e-5)
    return z.reshape(x.shape) * p["scale"].reshape(1, 1, 1, -1) + p["bias"].reshape(1, 1, 1, -1)


def parameters(module, *inputs):
    """Parameters without a zero or a one among them, so that no parameter's place can be confused."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])
    return jax.tree.unflatten(tree, [0.3 * draw(*v.shape, seed=i + 3) + 0.1 for i, v in enumerate(leaves)])


@pytest.mark.parametrize(
    ("stride", "features", "shortcut"), [(1, 4, "auto"), (2, 6, "auto"), (1, 4, "learned"), (2, 6, "none")]
)
def test_basic_block_is_its_equation(key, stride, features, shortcut):
    x = draw(2, 5, 6, 4)
    block = jnn.BasicBlock(features, stride=stride, shortcut=shortcut, common=WITH_GROUP)
    p = parameters(block, x)
    h = jax.nn.relu(norm(p["conv1"]["norm"], conv(p["conv1"]["conv"], x, stride)))
    h = norm(p["conv2"]["norm"], conv(p["conv2"]["conv"], h))
    s = 0.0 if shortcut == "none" else x
    if "shortcut" in p:
        s = norm(p["shortcut_norm"], conv(p["shortcut"], x, stride))
    if shortcut == "learned":
        h = conv(p["weight"], h)
    assert ("shortcut" in p) == (shortcut == "learned" or (shortcut == "auto" and stride == 2))
    np.testing.assert_allclose(jax.jit(block.apply)({"params": p}, x), jax.nn.relu(s + h), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("stride", "features", "first"), [(1, 4, True), (2, 6, True), (1, 6, False)])
def test_pre_activation_block_is_its_equation(key, stride, features, first):
    x = draw(2, 5, 6, 4)
    block = jnn.PreActBlock(features, stride=stride, common=WITH_GROUP, first_preact=first)
    p = parameters(block, x)
    h = jax.nn.relu(norm(p["norm1"], x)) if first else x
    h = conv(p["conv2"], jax.nn.relu(norm(p["norm2"], conv(p["conv1"], h, stride))))
    s = conv(p["shortcut"], x, stride) if "shortcut" in p else x
    assert ("shortcut" in p) == (features != 4) and ("norm1" in p) == first
    assert set(p["conv1"]) == {"kernel"} and set(p["conv2"]) == {"kernel", "bias"}
    np.testing.assert_allclose(jax.jit(block.apply)({"params": p}, x), s + h, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shortcut", ["projection", "learned"])
def test_pre_activation_block_with_linear_maps_is_its_equation(key, shortcut):
    """Neither norm nor activation follows W_c and W_r, at stride 1 and with equal channels too."""
    x = draw(2, 5, 6, 4)
    block = jnn.PreActBlock(4, common=WITH_GROUP, shortcut=shortcut)
    p = parameters(block, x)
    h = conv(p["conv1"], jax.nn.relu(norm(p["norm1"], x)))
    h = conv(p["conv2"], jax.nn.relu(norm(p["norm2"], h)))
    h = conv(p["weight"], h) if shortcut == "learned" else h
    assert ("weight" in p) == (shortcut == "learned") and "shortcut_norm" not in p
    expected = conv(p["shortcut"], x) + h
    np.testing.assert_allclose(jax.jit(block.apply)({"params": p}, x), expected, rtol=1e-3, atol=1e-4)


def test_bottleneck_block_is_its_equation(key):
    x = draw(2, 5, 6, 4)
    block = jnn.BottleneckBlock(8, stride=2, common=WITH_GROUP)
    p = parameters(block, x)
    assert p["conv"]["conv"]["kernel"].shape == (3, 3, 2, 2)
    h = jax.nn.relu(norm(p["reduce"]["norm"], conv(p["reduce"]["conv"], x)))
    h = jax.nn.relu(norm(p["conv"]["norm"], conv(p["conv"]["conv"], h, 2)))
    h = norm(p["expand"]["norm"], conv(p["expand"]["conv"], h))
    s = norm(p["shortcut_norm"], conv(p["shortcut"], x, 2))
    np.testing.assert_allclose(jax.jit(block.apply)({"params": p}, x), jax.nn.relu(s + h), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shortcut", ["projection", "learned", "none"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_any_size_and_stride(key, block, size, shortcut):
    x = jax.ShapeDtypeStruct((2, *size, 6), jnp.float32)
    for stride, dilation in ((1, 1), (2, 1), (1, 3)):
        module = block(
            8, stride=stride, dilation=dilation, shortcut=shortcut, common=jnn.BARE.replace(norm=jnn.make_norm("batch"))
        )
        y, _ = jax.eval_shape(functools.partial(module.init_with_output, train=True), key, x)
        assert y.shape == (2, -(-size[0] // stride), -(-size[1] // stride), 8)


def test_the_general_form_takes_any_branch(key):
    x = draw(2, 5, 6, 4)
    branch = functools.partial(jnn.ConvNormAct, 4, common=jnn.BARE.replace(act=jnp.tanh))
    block = jnn.ResidualBlock(branch, shortcut="learned", common=jnn.BARE.replace(act=jnp.abs))
    p = parameters(block, x)
    expected = jnp.abs(conv(p["shortcut"], x) + conv(p["weight"], jnp.tanh(conv(p["branch"]["conv"], x))))
    np.testing.assert_allclose(jax.jit(block.apply)({"params": p}, x), expected, rtol=1e-4, atol=1e-5)
    zero = jax.tree.map(jnp.zeros_like, p)
    identity = jnn.ResidualBlock(branch, shortcut="identity", common=jnn.BARE.replace(act=None))
    np.testing.assert_array_equal(identity.apply({"params": {"branch": zero["branch"]}}, x), x)


def test_shortcut_mistakes(key):
    x = draw(1, 4, 4, 4)
    with pytest.raises(ValueError, match="take shortcut='projection'"):
        jnn.BasicBlock(8, shortcut="identity").init(key, x)
    with pytest.raises(ValueError, match=r"BasicBlock\.shortcut must be one of 'auto', .*, got 'skip'"):
        jnn.BasicBlock(4, shortcut="skip").init(key, x)
    with pytest.raises(ValueError, match="is stride=1 right"):
        jnn.ResidualBlock(functools.partial(jnn.ConvNormAct, 4, stride=2)).init(key, x)


MODULES = {
    "basic": jnn.BasicBlock(8, shortcut="learned", common=HALF),
    "bottleneck": jnn.BottleneckBlock(8, common=HALF),
    "preact": jnn.PreActBlock(8, common=HALF),
    "attention": jnn.SelfAttention2D(2, position="learned", table_size=(3, 3), dtype=jnp.bfloat16),
    "excite": jnn.SqueezeExcite(2, dtype=jnp.bfloat16),
}


@pytest.mark.parametrize("name", MODULES)
def test_gradients_reach_every_parameter_in_either_dtype(key, name):
    x, half = draw(2, 4, 5, 4), MODULES[name]
    full = half.clone(
        **({"common": WITH_GROUP.replace(dtype=jnp.float32)} if hasattr(half, "common") else {"dtype": jnp.float32})
    )
    variables = full.init(key, x)

    def f(params, module):
        return jnp.mean(jnp.square(module.apply({"params": params}, x).astype(jnp.float32)))

    gradient = jax.jit(jax.grad(f), static_argnums=1)
    exact, rough = gradient(variables["params"], full), gradient(variables["params"], half)
    remat = jax.jit(jax.grad(jax.remat(functools.partial(f, module=full))))(variables["params"])
    for (path, g), r, m in zip(jax.tree.leaves_with_path(exact), jax.tree.leaves(rough), jax.tree.leaves(remat)):
        if path[0].key == "key" and path[-1].key == "bias":
            continue  # adds the same to every score of a query: the softmax does not see it
        assert float(jnp.abs(g).max()) > 0, path
        assert r.dtype == jnp.float32
        np.testing.assert_allclose(r, g, atol=0.1 * float(jnp.abs(g).max()) + 0.02)
        np.testing.assert_allclose(m, g, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
@pytest.mark.parametrize("position", ["sincos", "learned", "none"])
def test_self_attention_is_its_equation(key, size, position):
    x = draw(2, *size, 6)
    layer = jnn.SelfAttention2D(2, qkv_features=8, position=position, table_size=(4, 4), sow_weights=True)
    p = parameters(layer, x)
    y, sown = jax.jit(functools.partial(layer.apply, mutable=["intermediates"]))({"params": p}, x)
    where = {"sincos": jnn.sincos_position(*size, 6)[None], "none": np.zeros((1, *size, 6))}
    where = where[position] if position in where else jnn.resize(p["position"][None], size)
    t = size[0] * size[1]
    tokens = np.asarray(x + where, np.float64).reshape(2, t, 6)
    q, k, v = (
        (tokens @ np.asarray(p[n]["kernel"]) + np.asarray(p[n]["bias"])).reshape(2, t, 2, 4)
        for n in ("query", "key", "value")
    )
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / np.sqrt(4)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("bnqk,bknd->bqnd", weights, v).reshape(2, t, 8)
    expected = (mixed @ np.asarray(p["out"]["kernel"]) + np.asarray(p["out"]["bias"])).reshape(2, *size, 6)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(sown["intermediates"]["attention"][0], weights, rtol=1e-3, atol=1e-5)


def test_self_attention_with_a_position_knows_where_it_is(key):
    x = draw(1, 4, 6, 8)
    flipped = x[:, ::-1]
    for position, same in (("none", True), ("sincos", False)):
        layer = jnn.SelfAttention2D(2, position=position)
        variables, apply = layer.init(key, x), jax.jit(layer.apply)
        back = apply(variables, flipped)[:, ::-1]
        assert np.allclose(back, apply(variables, x), atol=1e-4) == same
    assert "intermediates" not in variables
    codes = jnn.sincos_position(5, 7, 12).reshape(35, 12)
    assert len(np.unique(codes.round(5), axis=0)) == 35
    with pytest.raises(ValueError, match="3 heads"):
        jnn.SelfAttention2D(3).init(key, x)
    with pytest.raises(
        ValueError, match=r"SelfAttention2D\.position must be one of 'sincos', 'learned', 'none', got 'where'"
    ):
        jnn.SelfAttention2D(2, position="where").init(key, x)


@pytest.mark.parametrize(
    ("size", "gate"), [((8, 6), (4, 3)), ((5, 7), (3, 4)), ((1, 1), (1, 1)), ((9, 9), (9, 9)), ((3, 1), (1, 1))]
)
def test_attention_gate_of_any_sizes(key, size, gate):
    skip, signal = draw(2, *size, 4), draw(2, *gate, 6, seed=1)
    layer = jnn.AttentionGate()
    p = parameters(layer, skip, signal)
    y, alpha = jax.jit(layer.apply)({"params": p}, skip, signal)
    share = np.asarray(y) / skip
    assert y.shape == skip.shape and (share > 0).all() and (share < 1).all()
    np.testing.assert_allclose(share, np.broadcast_to(alpha, share.shape), rtol=1e-3)  # one gate a pixel
    assert p["theta"]["kernel"].shape[-1] == 2


def test_attention_gate_weights_a_pixel_by_its_own_place(key):
    """Over a ramp, alpha is the ramp: also where the ratio of the sizes does not divide them."""
    ramp = np.zeros((1, 9, 7, 1), np.float32) + 0.01 * np.arange(9, dtype=np.float32)[None, :, None, None]
    layer = jnn.AttentionGate(inter_features=1)
    p = jax.tree.map(np.zeros_like, parameters(layer, ramp, np.zeros((1, 5, 4, 1), np.float32)))
    p["theta"]["kernel"] += 0.25
    p["psi"]["kernel"] += 1
    _, alpha = layer.apply({"params": p}, ramp, np.zeros((1, 5, 4, 1), np.float32))
    np.testing.assert_allclose(alpha[:, 1:7], jax.nn.sigmoid(ramp)[:, 1:7], rtol=1e-5)


def test_attention_gate_is_its_equation(key):
    skip, signal = draw(2, 4, 6, 4), draw(2, 4, 6, 3, seed=1)
    layer = jnn.AttentionGate(inter_features=5)
    p = parameters(layer, skip, signal)
    score = conv(p["psi"], jax.nn.relu(conv(p["theta"], skip) + conv(p["phi"], signal)))
    gated, alpha = jax.jit(layer.apply)({"params": p}, skip, signal)
    np.testing.assert_allclose(alpha, jax.nn.sigmoid(score), rtol=1e-4)
    np.testing.assert_allclose(gated, skip * jax.nn.sigmoid(score), rtol=1e-4)


def test_squeeze_excite_is_its_equation(key):
    x = draw(2, 3, 5, 8)
    layer = jnn.SqueezeExcite(ratio=4)
    p = parameters(layer, x)
    assert p["reduce"]["kernel"].shape == (1, 1, 8, 2)
    gate = jax.nn.sigmoid(conv(p["expand"], jax.nn.relu(conv(p["reduce"], x.mean((1, 2), keepdims=True)))))
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": p}, x), x * gate, rtol=1e-4, atol=1e-5)
    assert jnn.SqueezeExcite().init_with_output(key, x[:, :1, :1, :3])[0].shape == (2, 1, 1, 3)

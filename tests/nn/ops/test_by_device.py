"""Operations on a batch that is split over eight devices: each device works on its own images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.collectives import assert_only_sums, forms_of_gpus
from helpers.parity import FAST_COMPILE

from jaxseg import nn
from jaxseg.compiler import jit
from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.forms import traced_for
from jaxseg.nn.ops.resize import resize_to_sizes
from jaxseg.parallel import make_strategy


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradients(function):
    """Returns (x, kernel) -> the value of a sum of `function(x, kernel)`, and its gradients by both."""
    return jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), (0, 1))


def compiled(function, x, shared):
    """Compiles `function(x, shared) -> (value, (like x, like shared))` for a batch x; returns program and result."""
    strategy = make_strategy("jit", {"batch_size": len(x)})
    given = jax.device_put((x, shared), (strategy.sharded, strategy.replicated))
    results = (strategy.replicated, (strategy.sharded, strategy.replicated))
    program = jit(function, FAST_COMPILE, strategy.mesh, out_shardings=results).lower(*given).compile()
    return program, program(*given)


# Groups of two or more channels; the last one multiplies the number of channels of a depthwise convolution.
@pytest.mark.parametrize("forms", ["usual", "strips"])
@pytest.mark.parametrize(("inputs", "outputs", "groups", "stride"), [(8, 12, 4, 2), (4, 8, 4, 1)])
def test_a_grouped_convolution_stays_split(forms, inputs, outputs, groups, stride, monkeypatch):
    monkeypatch.setattr("jaxseg.compiler.forms_for", lambda options: forms)
    x, kernel = draw(16, 6, 7, inputs), draw(3, 3, inputs // groups, outputs, seed=1)
    function = gradients(partial(nn.conv2d, stride=stride, groups=groups, padding=1))
    program, found = compiled(function, x, kernel)
    assert_only_sums(program, kernel.size + 1)
    with traced_for(forms):
        expected = jax.jit(function)(x, kernel)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected)


def test_a_single_device_has_the_trace_of_no_mesh():
    x, kernel = draw(16, 6, 7, 8), draw(3, 3, 2, 8, seed=1)
    function = partial(nn.conv2d, groups=4, padding=1)
    strategy = make_strategy("jit", {"batch_size": 16}, jax.devices()[:1])
    ours, plain = (jit(function, {}, mesh).lower(x, kernel).as_text() for mesh in (strategy.mesh, None))
    assert ours == plain and "shard_map" not in ours


def test_the_compiled_steps_divide_what_they_compute():
    """A grouped convolution and its gradient inside the steps of the strategy, and the numbers of one device."""
    batch = {"image": draw(8, 5, 6, 4), "label": np.zeros((8, 5, 6), np.uint8)}
    kernel = draw(3, 3, 2, 4, seed=1)
    function = gradients(partial(nn.conv2d, groups=2, padding=1))

    def train(state, batch, key):
        loss, (_, slope) = function(batch["image"], state)
        return state - slope, loss

    results = []
    for devices in (8, 1):
        strategy = make_strategy("jit", {"batch_size": 8}, jax.devices()[:devices])
        state, placed, key = strategy.put_state(kernel), strategy.put_batch(batch), strategy.put_key(jax.random.key(0))
        for step, given in (
            (strategy.compile_eval(lambda state, batch: function(batch["image"], state)[0]), (state, placed)),
            (strategy.compile_train(train), (state, placed, key)),
        ):
            program = step.lower(*given).compile()
            assert_only_sums(program, kernel.size + 1)
            results.append(program(*given))
    for many, one in zip(results[:2], results[2:], strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), many, one)


def test_all_array_functions_stay_split_in_the_forms_of_a_gpu(monkeypatch):
    """One program of them all, with the gradients; XLA has to divide them by itself, and each batch has two images."""
    x, kernel, offsets = draw(16, 8, 8, 4), draw(3, 3, 1, 4, seed=1), draw(16, 6, 2, 1, 3, 2, seed=2)

    def everything(x, kernel):
        full, tokens = jnp.tile(kernel, (1, 1, 4, 1)), x.reshape(16, 64, 2, 2)
        pooled, places = nn.max_pool_with_indices(x)
        sizes = jnp.full((16, 2), 5) + jnp.arange(16).reshape(-1, 1) % 3
        results = (
            *(nn.conv2d(x, kernel, stride=stride, groups=4, padding=1) for stride in (1, 2)),
            nn.conv2d(x, full, dilation=2, padding=2),
            nn.conv_transpose2d(x, full, stride=2),
            nn.resize(x, (16, 16)),
            nn.resize(x, (11, 5), align_corners=True),
            nn.resize(x, (11, 5), "nearest"),
            resize_to_sizes(x, sizes, (8, 8)),
            nn.adaptive_avg_pool(x, (3, 3)),
            nn.avg_pool(x, 3, 2, 1),
            nn.max_pool(x, 3, 2, 1),
            nn.max_unpool(pooled, places, (8, 8)),
            nn.global_avg_pool(x),
            nn.space_to_depth(x, 2),
            nn.group_norm(x, kernel[0, 0, 0], kernel[1, 1, 0], 2),
            nn.dot_product_attention(tokens, tokens, tokens),
            nn.deformable_attention([tokens.reshape(16, 8, 8, 2, 2)], jax.nn.sigmoid(offsets), offsets[..., 0]),
        )
        return jnp.concatenate([jnp.sin(result).reshape(16, -1) for result in results], axis=1)

    with forms_of_gpus(monkeypatch):
        program, _ = compiled(gradients(everything), x, kernel)
    assert_only_sums(program, x.size // 8)


def test_without_a_division_it_is_a_plain_call():
    x, y = jnp.ones((6, 3)), jnp.ones((3, 6))

    def seen(x, y):
        sizes.append((x.shape, y.shape))
        return x

    def call(x, y):
        return by_device(seen, x, y, axes=(0, 1))

    sizes = []
    mesh = make_strategy("jit", {}, jax.devices()[:3]).mesh
    call(x, y)
    jit(call, {}, mesh).lower(x, y)
    jit(call, {}, make_strategy("jit", {}, jax.devices()[:4]).mesh).lower(x, y)  # which does not divide 6 images
    jax.pmap(call, axis_name="data")(jnp.ones((2, 6, 3)), jnp.ones((2, 3, 6)))
    assert sizes == [((6, 3), (3, 6)), ((2, 3), (3, 2)), *[((6, 3), (3, 6))] * 2]

"""Batches, states and the rows of images over a mesh of eight devices: the numbers and the exchanges of each way."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from helpers import meshes
from helpers.collectives import Exchange, exchanges
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_models import ADAPTER, tiny
from jax.sharding import PartitionSpec

from jaxseg import build, models, nn, parallel
from jaxseg import mesh as mesh_of_devices
from jaxseg.compiler import jit
from jaxseg.config import default_config, update
from jaxseg.errors import ConfigError
from jaxseg.mesh import Axes, make_mesh, state_shardings
from jaxseg.nn.ops.by_device import by_device
from jaxseg.nn.ops.strip_conv import strip_conv2d
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.step import make_eval_step

# The seed of the images, 0 if it is not here. With others a maximum changes its place within ten steps, where a last
# bit decides the gradient of a pixel; the gradients of the first step agree with any.
SEEDS = {"enet": 1, "fcn_head": 2, "pointrend": 1, "pp_liteseg": 2, "upernet": 2}

# The size of the images, 32 if it is not here: at 32 the coarsest maps of these networks are one pixel, and batch norms
# over eight of them turn a last bit of the parameters into 1e-4 in ten steps on one device too.
SIZES = {"fast_scnn": 64, "icnet": 64, "pidnet": 64, "stdc": 64}


def network(name: str) -> linen.Module:
    """A tiny network whose activations have no kinks, at which a last bit decides the gradient of a pixel."""
    return tiny(name, meshes.CLASSES, act="silu")


def seed_of(name: str) -> int:
    return SEEDS[name] if name in SEEDS else 0


def size_of(name: str) -> int:
    return SIZES[name] if name in SIZES else 32


@functools.cache
def one_device(name: str) -> meshes.Trained:
    return meshes.train(network(name), meshes.loss_of(name), None, 10, size=size_of(name), seed=seed_of(name))


@pytest.mark.parametrize("name", some_slow(models.names(), set(models.names()) - {"unet"}))
@pytest.mark.parametrize(
    "axes", some_slow(meshes.MESHES, meshes.MESHES[:-1]), ids=lambda axes: "x".join(map(str, axes))
)
def test_the_numbers_are_those_of_one_device(axes: Axes, name: str) -> None:
    """Loss, gradients, parameters after ten steps, their average and the statistics of batch norm, and evaluation."""
    many = meshes.train(network(name), meshes.loss_of(name), axes, 10, size=size_of(name), seed=seed_of(name))
    found = meshes.differences(one_device(name), many)
    assert max(found.values()) <= 1e-5, found


_ATTENTION = {"widths": [4], "depths": [1], "heads": [2]}
_OF_ATTENTION = {
    "mit_b0": _ATTENTION | {"reductions": [2], "steps": [2]},
    "swin_tiny": _ATTENTION | {"depths": [2], "window": 3, "patch": 2},  # 6x6 windows of 16x16 features
    "swinv2_tiny": {"widths": [8], "heads": [1], "depths": [2], "window": 3, "patch": 2},
    "maxvit_tiny": {"widths": [4, 4], "depths": [2], "head_width": 2, "window": 3},  # 3x3 windows of 8x8 features
    "sam2_hiera_tiny": {"widths": [4, 8], "heads": [1, 2], "depths": [1, 2], "windows": [2, 2], "whole": [3]},
    "vit_base": ADAPTER["encoder_args"] | {"depth": 1, "taps": [1]},
}


@pytest.mark.parametrize("name", some_slow(_OF_ATTENTION, set(_OF_ATTENTION) - {"mit_b0"}))
def test_attention_and_depthwise_convolutions_give_the_numbers_of_one_device(name: str) -> None:
    fields = {"width": 4, "encoder": name, "encoder_args": _OF_ATTENTION[name]}
    fields |= {"branch_width": 4, "finest": 1} if name == "vit_base" else {}  # all levels of ViT-Adapter train
    act = "relu" if name == "mit_b0" else "silu"
    model = models.build("fpn" if name == "vit_base" else "fcn_head", num_classes=meshes.CLASSES, act=act, **fields)
    axes_of_space = Axes(2, 2, 2) if name == "mit_b0" else Axes(2, 1, 4)
    one, many = (meshes.train(model, meshes.loss_of(""), axes, 3, score=False) for axes in (None, axes_of_space))
    found = meshes.differences(one, many)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.slow
def test_one_image_over_eight_devices_gives_the_step_of_one() -> None:
    """With `remat`, as for an image that no device could hold."""
    one, many = (
        meshes.train(network("unet"), meshes.loss_of("unet"), axes, 3, size=96, images=1, remat=True)
        for axes in (None, Axes(1, 1, 8))
    )
    found = meshes.differences(one, many)
    assert max(found.values()) <= 1e-5, found


def sizes_of(found: list[Exchange], kind: str) -> list[int]:
    return [each.size for each in found if each.kind == kind]


def test_a_unet_gathers_parameters_and_no_features() -> None:
    """Over 2x2x2: each split parameter once, sums of gradients and statistics, and rows at the edges."""
    state, program = meshes.program_of(network("unet"), meshes.loss_of("unet"), Axes(2, 2, 2))
    found, params = exchanges(program), jax.tree.leaves(state.params)
    places = jax.tree.leaves(meshes.strategy_of(Axes(2, 2, 2)).state_shardings(state.params))
    split = [x.size for x, place in zip(params, places, strict=True) if place.spec]
    assert {each.kind for each in found} == {"all-gather", "all-reduce", "collective-permute"}
    assert len(split) > 20 and max(sizes_of(found, "all-gather")) <= max(split)
    assert sum(sizes_of(found, "all-gather")) <= 1.2 * sum(split)
    # At most two rows at a time, of 2 images of 32 pixels and 16 channels.
    assert max(sizes_of(found, "collective-permute")) <= 2 * 2 * 32 * 16
    assert sum(sizes_of(found, "all-reduce")) <= 3 * sum(x.size for x in params)


def compiled(function, axes: Axes, x, shared):
    """Compiles `function(x, shared) -> (value, (like x, like shared))` for images x; returns program and result."""
    strategy = meshes.strategy_of(axes)
    rows = jax.sharding.NamedSharding(strategy.mesh, PartitionSpec(("data", "fsdp"), "space"))
    given = jax.device_put((x, shared), (rows, strategy.replicated))
    results = (strategy.replicated, (rows, strategy.replicated))
    program = jit(function, FAST_COMPILE, strategy.mesh, out_shardings=results).lower(*given).compile()
    return exchanges(program), program(*given)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Groups of two channels, a depthwise convolution, and one whose taps reach beyond the neighbour of a device.
@pytest.mark.parametrize(("groups", "stride", "dilation"), [(4, 1, 1), (4, 2, 1), (8, 2, 1), (4, 1, 5)])
def test_a_grouped_convolution_exchanges_rows(groups: int, stride: int, dilation: int) -> None:
    x, kernel = draw(4, 16, 6, 8), draw(3, 3, 8 // groups, 8, seed=1)
    convolve = functools.partial(nn.conv2d, stride=stride, groups=groups, dilation=dilation, padding=dilation)
    function = jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel))), (0, 1))
    found, result = compiled(function, Axes(2, 1, 4), x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), result, function(x, kernel))
    gathered = sizes_of(found, "all-gather")
    if dilation == 1:
        assert not gathered and sizes_of(found, "collective-permute")
        assert max(sizes_of(found, "collective-permute")) <= 2 * 6 * 8  # a row of two images
    else:
        assert max(gathered) <= 2 * 16 * 6 * 8  # the images of the devices that share them, and of no others


def test_a_strip_longer_than_the_rows_of_a_device_exchanges_rows() -> None:
    """21 taps along the columns of 16 rows over 4 devices: a pixel reads the rows of all of them."""
    x, kernel = draw(4, 16, 6, 8), 0.2 * draw(21, 8, seed=1)
    function = jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(strip_conv2d(x, kernel, 1))), (0, 1))
    found, result = compiled(function, Axes(2, 1, 4), x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), result, function(x, kernel))
    assert not sizes_of(found, "all-gather") and sizes_of(found, "collective-permute")
    assert max(each.size for each in found) <= 2 * 8 * 6 * 8  # half of the rows of two images


# 6 rows over 4 devices, 2 over 4, and 2 over 2 under a kernel of 3: XLA alone computes wrong gradients of the kernel.
@pytest.mark.parametrize(("rows", "axes"), [(12, Axes(2, 1, 4)), (4, Axes(2, 1, 4)), (4, Axes(2, 2, 2))])
@pytest.mark.parametrize("groups", [1, 8])
def test_rows_that_the_devices_cannot_share_evenly_are_gathered(rows: int, axes: Axes, groups: int) -> None:
    x, kernel = draw(8, rows, 6, 8), 0.2 * draw(3, 3, 8, 8, seed=1)

    def value(x: jax.Array, kernel: jax.Array) -> jax.Array:
        halved = nn.conv2d(x, kernel, stride=2, padding=1)
        return jnp.sum(jnp.sin(nn.conv2d(halved, kernel[:, :, : 8 // groups], groups=groups, padding=1)))

    function = jax.value_and_grad(value, (0, 1))
    _, result = compiled(function, axes, x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), result, function(x, kernel))


def test_devices_that_share_an_image_gather_it_for_a_function_of_whole_images() -> None:
    x, weights = draw(4, 8, 3, 2), draw(2, seed=1)
    seen = []

    def each(x, weights):
        seen.append(x.shape)
        return jnp.cumsum(x, axis=1) * weights[None, None, None]

    function = jax.value_and_grad(
        lambda x, weights: jnp.sum(jnp.sin(by_device(each, x, weights, axes=(0, None)))), (0, 1)
    )
    found, result = compiled(function, Axes(2, 2, 2), x, weights)
    assert seen == [(1, 8, 3, 2)] and max(sizes_of(found, "all-gather")) == 8 * 3 * 2
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), result, function(x, weights))


def test_which_axis_of_an_array_is_split() -> None:
    mesh = make_mesh(Axes(2, 4, 1), jax.devices())
    shapes = {"wide": (3, 3, 8, 16), "tall": (3, 3, 16, 8), "square": (8, 8), "odd": (5, 7), "short": (8,), "one": ()}
    places = state_shardings(mesh, {name: np.zeros(shape) for name, shape in shapes.items()}, smallest=9)
    assert {name: tuple(place.spec) for name, place in places.items()} == {
        **{"wide": (None, None, None, "fsdp"), "tall": (None, None, "fsdp"), "square": (None, "fsdp")},
        **{"odd": (), "short": (), "one": ()},
    }


def test_a_state_is_divided_and_comes_back_whole_for_another_mesh(tmp_path: Path) -> None:
    """Through a checkpoint: what is saved is the whole state, bit for bit."""
    state = meshes.initial(network("unet"))
    one = meshes.strategy_of(Axes(2, 4, 1))
    placed = one.put_state(state)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert whole / 4 < held < 0.3 * whole
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, one.get_state(placed), wait=True)
        restored = checkpoints.restore(state)
    assert restored is not None
    other = meshes.strategy_of(Axes(2, 1, 4))
    found = other.get_state(other.put_state(restored.state))
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_a_part_of_each_process_is_gathered_by_one_program() -> None:
    """That of two processes is tested in test_multiprocess.py."""
    for mesh in (make_mesh(Axes(2, 4, 1), jax.devices()) for _ in range(2)):  # equal ones
        program = mesh_of_devices._gathered_on(mesh)
        arrays = {"a": draw(8, 4), "b": draw(8, 4, seed=1)}
        for x, place in zip(arrays.values(), state_shardings(mesh, arrays, smallest=1).values(), strict=True):
            whole = program(jax.device_put(x, place))
            assert whole.is_fully_replicated and place.spec
            np.testing.assert_array_equal(whole, x)
        assert program._cache_size() == 1


def test_the_rows_of_a_batch_are_split_where_the_devices_divide_them() -> None:
    strategy = meshes.strategy_of(Axes(2, 1, 4))
    batch = {"image": draw(4, 8, 3, 2), "label": np.zeros((4, 9, 3), np.uint8), "size": np.zeros((4, 2), np.int32)}
    placed = strategy.put_batch(batch)
    shapes = {name: x.addressable_shards[0].data.shape for name, x in placed.items()}
    assert shapes == {"image": (2, 2, 3, 2), "label": (2, 9, 3), "size": (2, 2)}
    jax.tree.map(np.testing.assert_array_equal, placed, batch)


def test_labels_of_another_size_are_scored_as_on_one_device() -> None:
    """At the native size of each image, whose rows the devices do not divide."""
    model, loss, rng = network("cnn"), meshes.loss_of("cnn"), np.random.default_rng(0)
    batch = {"image": draw(4, 16, 16, 3), "label": rng.integers(0, 5, (4, 27, 22)).astype(np.uint8)}
    batch["size"] = np.array([(27, 22), (25, 20), (13, 22), (27, 9)], np.int32)
    found = []
    for axes in (None, Axes(2, 1, 4)):
        strategy = meshes.strategy_of(axes)
        evaluate = strategy.compile_eval(make_eval_step(model, loss))
        state = strategy.put_state(meshes.initial(model))
        found.append(jax.device_get(evaluate(state, strategy.put_batch(batch))))
    np.testing.assert_array_equal(found[0]["confusion"], found[1]["confusion"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), *(each["stats"] for each in found))


def test_a_step_is_traced_once_for_its_shapes() -> None:
    strategy, traces = meshes.strategy_of(Axes(1, 2, 4), smallest=4), []

    def step(state, batch, key):
        traces.append(1)
        return state + jnp.mean(batch["image"]), {"loss": jnp.sum(state)}

    state, batch, key = np.arange(6.0, dtype=np.float32), {"image": draw(2, 8, 3, 1)}, jax.random.key(0)
    compiled_step = strategy.compile_train(step)
    shapes = compiled_step.eval_shape(*strategy.placed_shapes(*jax.eval_shape(lambda *x: x, state, batch, key)))
    placed = strategy.put_state(state)
    for _ in range(2):
        placed, metrics = compiled_step(placed, strategy.put_batch(batch), strategy.put_key(key))
    assert len(traces) == 1 and shapes[0].shape == (6,) and tuple(placed.sharding.spec) == ("fsdp",)
    np.testing.assert_allclose(metrics["loss"], state.sum() + 6 * batch["image"].mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mesh__fsdp": 3}, "mesh.data=-1 mesh.fsdp=3 mesh.space=1 do not fit 8 devices: the product of mesh.fsdp and"),
        ({"mesh__data": 2, "mesh__fsdp": 2}, "do not fit 8 devices: their product must be 8"),
        ({"mesh__space": 16, "data__size": (32, 32)}, "do not fit 8 devices"),
        ({"mesh__space": 8, "data__size": (60, 64)}, "60 by data.size; the nearest valid height is 56 or 64"),
        ({"mesh__space": 4, "augment__crop": (30, 32)}, "30 by augment.crop; the nearest valid height is 28 or 32"),
        ({"mesh__fsdp": 2, "strategy": "pmap"}, "mesh.fsdp=2 and mesh.space=1 need strategy=jit; with strategy=pmap"),
        ({"mesh__data": 4, "strategy": "pmap"}, "do not fit 8 devices"),
        (
            {"mesh__space": 4, "batch_size": 5},
            "batch_size is 5, which is not divisible by mesh.data times mesh.fsdp",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_one_sentence(values: dict, message: str) -> None:
    config = default_config()
    update(config, **values)
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        build.make_strategy(config)


def test_the_keys_make_the_mesh() -> None:
    config = default_config()
    update(config, mesh__fsdp=2, mesh__space=2)
    strategy = build.make_strategy(config)
    assert isinstance(strategy, parallel.JitStrategy)
    assert dict(strategy.mesh.shape) == {"data": 2, "fsdp": 2, "space": 2}
    assert math.prod(build.make_strategy(default_config()).mesh.shape.values()) == 8

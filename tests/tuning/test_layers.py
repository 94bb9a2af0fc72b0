"""The layers of encoders, and the rates that fall with the distance from the head, against tables by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.tiny_models import ENCODERS

from jaxseg import models, optim
from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.state import by_path
from jaxseg.tuning import adapted_kernels, layer_factors, layer_numbers

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def shapes(module):
    """The parameters of an encoder, as those of a network."""
    return {"encoder": jax.eval_shape(module.init, jax.random.key(0), IMAGE)["params"]}


def numbers_by_block(params):
    """{"stage1/block2": number}: the layer of everything at each path of two names, which must be one layer."""
    found = {}
    for path, number in layer_numbers(by_path(params)).items():
        child, inner = path.split("/")[1:3]
        found.setdefault(child if child.startswith("stem") else f"{child}/{inner}", set()).add(number)
    assert all(len(each) == 1 for each in found.values())
    return {name: each.pop() for name, each in found.items()}


def test_resnet():
    net = encoders.build("resnet18", widths=(4, 4, 8, 8, 8), depths=(2, 1, 2, 1))
    assert numbers_by_block(shapes(net)) == {
        "stem": 0,
        "stage1/block1": 1,
        "stage1/block2": 2,
        "stage2/block1": 3,
        "stage3/block1": 4,
        "stage3/block2": 5,
        "stage4/block1": 6,
    }


def test_a_deep_stem_is_one_layer_and_block_10_comes_after_block_9():
    net = encoders.build("resnet50d", widths=(4, 16, 16), depths=(1, 11))
    found = numbers_by_block(shapes(net))
    assert [found[name] for name in ("stem1", "stem2", "stem")] == [0, 0, 0]
    assert [found[f"stage2/block{i}"] for i in range(1, 12)] == list(range(2, 13))


def test_mit():
    net = encoders.build("mit_b0", widths=(4, 8), depths=(1, 2), heads=(1, 2), reductions=(2, 1), steps=(4, 2))
    assert numbers_by_block(shapes(net)) == {
        "stage0/patch": 1,
        "stage0/patch_norm": 1,
        "stage0/block1": 1,
        "stage0/norm": 1,
        "stage1/patch": 2,
        "stage1/patch_norm": 2,
        "stage1/block1": 2,
        "stage1/block2": 3,
        "stage1/norm": 3,
    }


def test_mscan():
    net = encoders.build("mscan_tiny", widths=(4, 8), depths=(2, 1), mlp_ratios=(1, 1), strips=(3,))
    assert numbers_by_block(shapes(net)) == {
        "stage0/embed1": 1,
        "stage0/embed_norm1": 1,
        "stage0/embed2": 1,
        "stage0/embed_norm2": 1,
        "stage0/block1": 1,
        "stage0/block2": 2,
        "stage0/norm": 2,
        "stage1/embed1": 3,
        "stage1/embed_norm1": 3,
        "stage1/block1": 3,
        "stage1/norm": 3,
    }


def test_convnext():
    net = encoders.build("convnext_tiny", widths=(4, 8), depths=(2, 2))
    assert numbers_by_block(shapes(net)) == {
        "stem": 0,
        "stem_norm": 0,
        "stage0/block1": 1,
        "stage0/block2": 2,
        "stage1/norm": 3,
        "stage1/reduce": 3,
        "stage1/block1": 3,
        "stage1/block2": 4,
    }


def test_a_vision_transformer_has_its_blocks_and_the_norm_belongs_to_the_last():
    net = encoders.build("vit_base_clip", **ENCODERS["vit_base_clip"] | {"depth": 11, "taps": (11,)})
    numbers = layer_numbers(by_path(shapes(net)))
    assert {numbers[f"encoder/stem/{name}"] for name in ("class_token", "position", "patch/kernel", "norm/bias")} == {0}
    assert [numbers[f"encoder/block{n}/expand/kernel"] for n in range(1, 12)] == list(range(1, 12))
    assert numbers["encoder/norm/scale"] == 11 == max(numbers.values())


def test_every_dense_layer_of_a_vision_transformer_can_have_an_adapter():
    net = encoders.build("vit_base_dinov3", **ENCODERS["vit_base_dinov3"])
    names = ("attention/query", "attention/key", "attention/value", "attention/out", "expand", "reduce")
    expected = {f"encoder/block{n}/{name}/kernel" for n in (1, 2) for name in names}
    assert set(adapted_kernels(shapes(net), ("^encoder",))) == expected


FAMILIES = {encoders.family(name): name for name in sorted(ENCODERS)}


@pytest.mark.parametrize("name", [*FAMILIES.values(), "vgg11_bn", "mobilenet_v2", "convnext_small"])
def test_every_family_has_layers_in_the_order_of_its_levels(name):
    net = encoders.build(name, **ENCODERS[name])
    numbers = layer_numbers(by_path(shapes(net)))
    assert len(numbers) == len(by_path(shapes(net)))
    assert set(numbers.values()) in (set(range(max(numbers.values()) + 1)), set(range(1, max(numbers.values()) + 1)))
    stages = {}
    for path, number in numbers.items():
        child = path.split("/")[1]
        if child.startswith("stage"):
            stages.setdefault(int(child.removeprefix("stage")), set()).add(number)
    for stage in sorted(stages)[1:]:
        assert min(stages[stage]) == max(stages[stage - 1]) + 1
    if name not in BRANCHED:
        called = [number for number in map(numbers.get, parameters_in_order(net)) if number is not None]
        assert called == sorted(called) and set(called) == set(numbers.values())


# The branches of HRNet are computed one after the other, and counted by module.
BRANCHED = (FAMILIES["hrnet"],)


def parameters_in_order(net):
    """The paths of an encoder's parameters, as those of a network, in the order of the forward pass."""
    read = []

    def see(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__":
            inside = context.module.variables.get("params", {})
            read.extend(
                "/".join(("encoder", *context.module.path, leaf))
                for leaf, x in inside.items()
                if not isinstance(x, dict)
            )
        return y

    with nn.intercept_methods(see):
        shapes(net)
    return read


def test_hrnet_counts_its_modules():
    found = numbers_by_block(shapes(encoders.build("hrnet_w18", **ENCODERS["hrnet_w18"])))
    modules = {name.split("/")[0]: number for name, number in found.items()}
    assert modules["stem1"] == modules["stem2"] == 0
    assert modules["block1"] == 1
    assert modules["transition2_0"] == modules["parallel2_1"] < modules["transition3_2"] == modules["parallel3_1"]


def test_updates_are_multiplied_by_the_power_of_the_distance():
    """With decay 1/2: the head 1, the last block 1/2, ... the stem 1/2^(L + 1), for L = 3 blocks."""
    names = ("stem/conv/kernel", "stage1/block1/conv1/kernel", "stage1/block2/conv1/kernel", "stage2/block1/norm/bias")
    encoder: dict = {}
    for name in names:
        *parents, leaf = name.split("/")
        node = encoder
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.ones((1, 1))
    params = {"encoder": encoder, "head": {"kernel": jnp.ones((1, 1))}}
    factors = by_path(layer_factors(params, 0.5))
    expected = {"head/kernel": 1.0} | {f"encoder/{n}": f for n, f in zip(names, (1 / 16, 1 / 8, 1 / 4, 1 / 2))}
    assert factors == expected
    for name, options in (("sgd", {"momentum": 0.9}), ("adamw", {"weight_decay": 0.1})):
        decayed, plain = (
            optim.make_optimizer(name=name, schedule=optax.constant_schedule(0.1), layer_decay=decay, **options)
            for decay in (0.5, 1.0)
        )
        grads = jax.tree.map(lambda x: 0.3 * x, params)
        ours, _ = decayed.update(grads, decayed.init(params), params)
        theirs, _ = plain.update(grads, plain.init(params), params)
        for path, update in by_path(ours).items():
            np.testing.assert_allclose(update, expected[path] * by_path(theirs)[path], rtol=1e-6)


def test_an_adapter_has_the_rate_of_its_kernel():
    kernel, adapter = {"kernel": jnp.ones((2, 2))}, {"kernel": {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}}
    params = {"encoder": {"stage0": {"block1": {"conv1": kernel}, "block2": {"conv1": kernel}}}}
    params["lora"] = {"encoder": {"stage0": {"block1": {"conv1": adapter}}}}
    factors = by_path(layer_factors(params, 0.5))
    assert factors["encoder/stage0/block1/conv1/kernel"] == factors["lora/encoder/stage0/block1/conv1/kernel/a"] == 0.25


def test_networks_without_known_layers_are_refused():
    tx = optim.make_optimizer(name="sgd", schedule=optax.constant_schedule(1.0), layer_decay=0.5)
    dcgan = models.build("dcgan", num_classes=2, size=16, width=8)
    params = jax.eval_shape(dcgan.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    with pytest.raises(ArgumentError, match=r"^layer_decay needs a network with an encoder; this one has none"):
        tx.init(params)
    with pytest.raises(ArgumentError, match="knows the depth of no parameter under encoder/trunk"):
        tx.init({"encoder": {"trunk": {"kernel": jnp.ones(2)}}})

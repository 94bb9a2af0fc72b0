"""FC-DenseNet against its paper: Tables 1 and 2, and the same function written out in torch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.papers import compare, conv, count, padded
from helpers.variables import shapes

from jaxseg import models
from jaxseg.compiler import compiler_options
from jaxseg.models.fc_densenet import NETWORKS

# Table 2: channels after each block of FC-DenseNet103. (The table has 578 for the third block up, where 160 + 304 + 112
# are 576.)
TABLE_2 = (112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256)


def block(c: int, layers: int, growth: int) -> int:
    """Parameters of a dense block on c channels: a norm's scale and bias and a 3x3 convolution a layer."""
    return sum(2 * (c + i * growth) + conv(3, c + i * growth, growth, False) for i in range(layers))


def derived(depth: int, channels: int = 3, classes: int = 11) -> tuple[int, list[int]]:
    """(parameters, channels after each block), layer by layer from Table 2."""
    growth, layers = NETWORKS[depth]
    total, c, skips, after = conv(3, channels, 48, False), 48, [], []
    for n in layers[:5]:
        total += block(c, n, growth)
        c += n * growth
        after.append(c)
        skips.append(c)
        total += 2 * c + conv(1, c, c, False)  # transition down
    total += block(c, layers[5], growth)  # the bottleneck
    after.append(c + layers[5] * growth)
    new = layers[5] * growth
    for n, skip in zip(layers[6:], reversed(skips)):
        total += conv(3, new, new)  # transition up, of what the block below has added
        c = new + skip
        total += block(c, n, growth)
        after.append(c + n * growth)
        new = n * growth
    return total + conv(1, after[-1], classes), after


@pytest.mark.parametrize(
    ("depth", "expected"), [(56, 1_375_259), pytest.param(67, 3_460_875, marks=pytest.mark.slow), (103, 9_318_859)]
)
def test_counts(depth, expected):
    # The paper: 1.5, 3.5 and 9.4 M. Running statistics counted, as the authors' library does: 1.40, 3.50, 9.42 M.
    total, after = derived(depth)
    assert count("fc_densenet", 3, num_classes=11, depth=depth) == total == expected
    assert depth != 103 or tuple(after) == TABLE_2


def test_the_names_count_the_convolutions():
    """56, 67, 103: the 3x3 of the stem and the layers, five transitions down and up, the 1x1 classifier."""
    for depth, (_, layers) in NETWORKS.items():
        assert 1 + sum(layers) + 5 + 5 + 1 == depth


def test_statistics_make_up_the_published_numbers():
    for depth, published in ((67, 3.5), (103, 9.4)):
        variables, _, _ = shapes(models.build("fc_densenet", num_classes=11, depth=depth), (1, 32, 32, 3))
        assert round(sum(leaf.size for leaf in jax.tree.leaves(variables)) / 1e6, 1) == published


def test_stages_of_table_2():
    _, _, out = shapes(models.build("fc_densenet", num_classes=11), (1, 224, 224, 3))
    down = [out[f"encoder/stage{i}"].shape[1:] for i in range(6)]
    assert down[:5] == [(224 >> i, 224 >> i, TABLE_2[i]) for i in range(5)] and down[5] == (7, 7, 15 * 16)
    up = [out[f"decoder/stage{i}"].shape[1:] for i in range(5)]
    assert up == [(224, 224, 256), (112, 112, 80), (56, 56, 112), (28, 28, 160), (14, 14, 192)]


def test_is_its_tables():
    def block(t, x, name, layers):
        new = []
        for i in range(layers):
            path = f"{name}/layer{i + 1}"
            new.append(t.conv(t.f.relu(t.norm(x, f"{path}/norm")), f"{path}/conv", padding=1))
            x = t.torch.cat([x, new[-1]], 1)
        return x, t.torch.cat(new, 1)

    def network(t, x):
        x = t.conv(x, "encoder/stem", padding=1)
        one, _ = block(t, x, "encoder/stage0", 2)
        x = t.conv(t.f.relu(t.norm(one, "encoder/down1/norm")), "encoder/down1/conv")
        two, _ = block(t, t.f.max_pool2d(x, 2), "encoder/stage1", 1)
        x = t.conv(t.f.relu(t.norm(two, "encoder/down2/norm")), "encoder/down2/conv")
        _, x = block(t, t.f.max_pool2d(x, 2), "encoder/stage2", 3)
        x = t.torch.cat([t.up(x, "decoder/stage1/up", padding=1, output_padding=1), two], 1)
        _, x = block(t, x, "decoder/stage1/block", 2)
        x = t.torch.cat([t.up(x, "decoder/stage0/up", padding=1, output_padding=1), one], 1)
        x, _ = block(t, x, "decoder/stage0/block", 2)
        return t.conv(x, "head")

    model = models.build("fc_densenet", num_classes=2, layers=[2, 1, 3, 2, 2], growth=3, stem=4)
    compare(model, network, (13, 18), padded)


def largest_fusion(layers: int) -> int:
    """The operations of the largest fusion in the gradient of a network with a block of so many layers."""
    model = models.build("fc_densenet", num_classes=2, layers=[layers, 1, 1], growth=2, stem=2, dropout=0.0)
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    variables = shapes(model, image.shape)[0]

    def total(params, stats, image):
        variables = {"params": params, "batch_stats": stats}
        return model.apply(variables, image, train=True, mutable=["batch_stats"])[0][0].sum()

    program = jax.jit(jax.grad(total), compiler_options=compiler_options())
    text = program.lower(variables["params"], variables["batch_stats"], image).compile().as_text()
    return max(body.count(" = ") for body in re.findall(r"^%?fused_computation.*?^}", text, re.DOTALL | re.MULTILINE))


def test_the_sums_of_gradients_are_made_once():
    """XLA would repeat the sum over all later layers in each layer of a block: fusions as large as the block."""
    assert largest_fusion(layers=5) <= largest_fusion(layers=3)


@pytest.mark.slow
def test_dropout_in_training():
    model = models.build("fc_densenet", num_classes=2, layers=[1, 1, 1], growth=3, stem=4, norm="none")
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    run = jax.jit(lambda k: model.apply(variables, image, train=True, rngs={"dropout": k})[0])
    assert np.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max() > 0
    none = model.clone(dropout=0.0)
    np.testing.assert_array_equal(none.apply(variables, image, train=True)[0], none.apply(variables, image)[0])


@pytest.mark.parametrize("layers", [[2], [2, 2], [2, 2, 2, 2]])
def test_blocks_come_in_pairs_around_the_bottleneck(layers):
    with pytest.raises(ValueError, match="odd number of blocks"):
        shapes(models.build("fc_densenet", num_classes=2, layers=layers), (1, 8, 8, 3))

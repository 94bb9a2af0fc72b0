"""Mask2Former beside transformers' modules, and its set loss beside float64 sums with scipy's matching."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import oracles
from helpers.collectives import assert_only_sums
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE, assert_close, check_eval, check_gradients
from helpers.tiny_models import TINY
from helpers.variables import drawn
from jax.sharding import NamedSharding, PartitionSpec
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax, softmax

from jaxseg import losses, models
from jaxseg.compiler import jit
from jaxseg.losses.mask_classification import class_areas, mask_classification_stats, match
from jaxseg.models.mask2former import MaskHead, attention_mask, semantic_logits
from jaxseg.nn import Conv, deformable_attention
from jaxseg.parallel import make_strategy
from jaxseg.pretrained.mask2former import mask2former_transformers
from jaxseg.pretrained.rules import layer
from jaxseg.state import init_state
from jaxseg.step import make_eval_step, make_train_step
from jaxseg.types import IGNORE

compiled = functools.partial(jax.jit, compiler_options=FAST_COMPILE)
WIDTHS = (8, 12, 16, 24)


class Backbone(nn.Module):
    """Four convolutions of stride 2, as small as an encoder can be."""

    strides = (2, 4, 8, 16)

    @nn.compact
    def __call__(self, x, *, train=False):
        pyramid = []
        for i, width in enumerate(WIDTHS):
            x = Conv(width, stride=2, name=f"conv{i}")(x)
            pyramid.append(x)
        return tuple(pyramid)


def reference(layers, pixel_layers):
    """The same network from transformers' pixel decoder and transformer module."""
    torch, transformers = oracles.torch(), oracles.transformers()
    import transformers.models.mask2former.modeling_mask2former as peer

    config = transformers.Mask2FormerConfig(
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_feedforward_dim=48,
        dim_feedforward=40,
        encoder_layers=pixel_layers,
        decoder_layers=layers + 1,
        num_attention_heads=4,
        num_queries=9,
    )

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            pairs = zip((3, *WIDTHS), WIDTHS)
            self.backbone = torch.nn.ModuleList(torch.nn.Conv2d(c, o, 3, stride=2, padding=1) for c, o in pairs)
            self.model = torch.nn.Module()
            self.model.pixel_level_module = torch.nn.Module()
            self.model.pixel_level_module.decoder = peer.Mask2FormerPixelDecoder(config, WIDTHS)
            self.model.transformer_module = peer.Mask2FormerTransformerModule(64, config)
            self.class_predictor = torch.nn.Linear(64, 6)

        def forward(self, x):
            size, features = x.shape[2:], []
            for conv in self.backbone:
                x = conv(x)
                features.append(x)
            pixels = self.model.pixel_level_module.decoder(features, output_hidden_states=False)
            out = self.model.transformer_module(pixels.multi_scale_features, pixels.mask_features)
            classes = self.class_predictor(out.intermediate_hidden_states[-1].transpose(0, 1)).softmax(-1)[..., :-1]
            masks = torch.nn.functional.interpolate(
                out.masks_queries_logits[-1], size=size, mode="bilinear", align_corners=False
            )
            return torch.log(torch.einsum("bqk,bqyx->bkyx", classes, masks.sigmoid()) + 1e-12)

    return Reference()


def ours(**fields):
    return models.build(
        "mask2former",
        num_classes=5,
        mask_stride=2,
        encoder=Backbone,
        **(dict(features=64, queries=9, layers=4, pixel_layers=2, num_heads=4, hidden=40, pixel_hidden=48) | fields),
    )


RULES = [*layer(r"backbone\.(\d)", "encoder/conv{1}"), *mask2former_transformers()]


# The fourth layer reads the coarsest scale again; a second one of the pixel decoder has the code of the first.
@pytest.mark.parametrize(("layers", "pixel_layers"), [(4, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", some_slow(((65, 39), (64, 48)), ((64, 48),)))
def test_logits_are_those_of_transformers(layers, pixel_layers, size):
    check_eval(ours(layers=layers, pixel_layers=pixel_layers), reference(layers, pixel_layers), RULES, [size])


@pytest.mark.parametrize(("layers", "pixel_layers"), [(3, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_gradients_are_those_of_transformers(layers, pixel_layers):
    ours_ = ours(layers=layers, pixel_layers=pixel_layers)
    check_gradients(ours_, reference(layers, pixel_layers), RULES, (48, 32))


def test_deformable_attention_samples_as_grid_sample():
    torch = oracles.torch()
    oracles.transformers()
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

    rng, sizes = np.random.default_rng(0), [(3, 5), (1, 1), (4, 2)]
    values = [rng.normal(size=(2, h, w, 3, 4)).astype(np.float32) for h, w in sizes]
    locations = rng.uniform(-0.5, 1.5, (2, 7, 3, 3, 2, 2)).astype(np.float32)
    weights = rng.uniform(size=(2, 7, 3, 3, 2)).astype(np.float32)
    flat = np.concatenate([v.reshape(2, -1, 3, 4) for v in values], axis=1)
    expected = multi_scale_deformable_attention(
        *(torch.tensor(flat), sizes, torch.tensor(locations)), torch.tensor(weights)
    )
    given = deformable_attention([jnp.asarray(v) for v in values], jnp.asarray(locations), jnp.asarray(weights))
    assert_close(given.reshape(2, 7, 12), expected.numpy(), 1e-5)


def test_attention_mask_is_the_mask_or_everything():
    logits = jnp.asarray([[[[1.0, -1.0], [-1.0, -1.0]]]])  # two pixels; query 0 owns the first, query 1 owns none
    np.testing.assert_array_equal(attention_mask(logits, (1, 2))[0, 0], [[True, False], [True, True]])


def test_mask_logits_start_small():
    """A variance of 1 / (3 c) in each of three layers, halved by each ReLU, leaves c / 108 after the inner product."""
    keys = jax.random.split(jax.random.key(0), 3)
    queries, pixels = jax.random.normal(keys[0], (4, 50, 256)), jax.random.normal(keys[1], (4, 8, 8, 256))
    logits, _ = MaskHead().init_with_output(keys[2], queries, pixels)
    assert float(jnp.std(logits)) == pytest.approx((256 / 108) ** 0.5, rel=0.1)


def test_one_class_is_the_difference_of_two():
    rng = np.random.default_rng(0)
    classes, masks = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 3, 5, 4))
    two = semantic_logits(jnp.asarray(classes), jnp.asarray(masks), 2)
    one = semantic_logits(jnp.asarray(classes), jnp.asarray(masks), 1)
    np.testing.assert_allclose(one[..., 0], two[..., 1] - two[..., 0], rtol=1e-4, atol=1e-6)
    scores = np.einsum("bqk,byxq->byxk", softmax(classes, -1)[..., :-1], expit(masks))
    np.testing.assert_allclose(np.exp(two), scores, rtol=1e-4)


def hand(classes, masks, labels, class_weight=2, mask_weight=5, dice_weight=5, no_object=0.1):
    """The set loss in float64: block means of the labels, scipy's matching, one image and prediction at a time."""
    k, (cells_y, cells_x) = classes.shape[-1] - 1, masks.shape[2:4]
    total = 0.0
    for each_classes, each_masks in zip(classes, masks):
        nll = weight = mask_sum = dice_sum = segments = 0.0
        for c, m, label in zip(each_classes, each_masks, labels):
            blocks = label.reshape(cells_y, label.shape[0] // cells_y, cells_x, -1)
            area = np.stack([(blocks == i).mean((1, 3)).ravel() for i in range(k)], 1)
            there = [i for i in range(k) if area[:, i].any()]
            if not there:
                continue
            z, v = m.reshape(-1, m.shape[-1]), area.sum(1)
            cross, dice = np.zeros((2, m.shape[-1], len(there)))
            for q in range(m.shape[-1]):
                p = expit(z[:, q])
                for j, i in enumerate(there):
                    y = area[:, i]
                    cross[q, j] = -(y * np.log(p) + (v - y) * np.log(1 - p)).sum() / v.sum()
                    dice[q, j] = 1 - (2 * (p * y).sum() + 1) / ((v * p).sum() + y.sum() + 1)
            rows, columns = linear_sum_assignment(
                -class_weight * softmax(c, -1)[:, there] + mask_weight * cross + dice_weight * dice
            )
            target = np.full(len(c), k)
            target[rows] = np.array(there)[columns]
            w = np.where(target == k, no_object, 1.0)
            nll += (-log_softmax(c, -1)[np.arange(len(c)), target] * w).sum()
            weight += w.sum()
            mask_sum, dice_sum = mask_sum + cross[rows, columns].sum(), dice_sum + dice[rows, columns].sum()
            segments += len(there)
        total += class_weight * nll / weight
        total += mask_weight * mask_sum / segments + dice_weight * dice_sum / segments
    return total


def example(queries=7, k=4, size=(3, 4), block=2, seed=0):
    rng = np.random.default_rng(seed)
    classes, masks = rng.normal(size=(2, 3, queries, k + 1)), 3 * rng.normal(size=(2, 3, *size, queries))
    labels = rng.choice([0, 1, k - 1, IGNORE], size=(3, size[0] * block, size[1] * block))
    labels[0][labels[0] == 1] = 0
    return classes, masks, labels


def value(classes, masks, labels, k=4, **args):
    loss = losses.make_loss("mask_classification", num_classes=k, args={"mask_classification": args})
    out = {"queries": (jnp.asarray(classes, jnp.float32), jnp.asarray(masks, jnp.float32))}
    logits = jnp.zeros((*labels.shape, k))
    return compiled(lambda out: loss.value(loss.stats(logits, jnp.asarray(labels), out)))(out)


@pytest.mark.parametrize(("queries", "seed"), [(7, 0), (4, 1), (3, 2), (2, 3)])
def test_the_set_loss_is_the_sum_by_hand(queries, seed):
    """With fewer queries than classes, and with fewer than segments, too."""
    classes, masks, labels = example(queries, seed=seed)
    np.testing.assert_allclose(value(classes, masks, labels), hand(classes, masks, labels), rtol=1e-5)


def test_the_weights_of_the_terms_are_arguments():
    classes, masks, labels = example()
    args = {"class_weight": 1.5, "mask_weight": 0.5, "dice_weight": 3.0, "no_object": 0.4}
    np.testing.assert_allclose(value(classes, masks, labels, **args), hand(classes, masks, labels, **args), rtol=1e-5)
    plain = hand(classes, masks, labels)
    for name, each in args.items():
        assert abs(hand(classes, masks, labels, **{name: each}) - plain) > 0.01, name


def test_the_matching_is_scipys():
    rng = np.random.default_rng(0)
    for q, k, there in ((12, 5, 3), (5, 5, 5), (4, 9, 3), (4, 9, 6)):
        cost, present = rng.normal(size=(q, k)) * 10, rng.permutation(k) < there
        rows, columns = linear_sum_assignment(cost[:, present])
        expected = np.zeros((q, k), bool)
        expected[rows, np.flatnonzero(present)[columns]] = True
        np.testing.assert_array_equal(match(jnp.asarray(cost), jnp.asarray(present)), expected)


def test_stats_add_over_the_parts_of_a_batch():
    classes, masks, labels = example()
    loss = losses.make_loss("mask_classification", num_classes=4)

    def stats(part):
        labelled = jnp.asarray(labels[part])
        queries = jnp.asarray(classes[:, part], jnp.float32), jnp.asarray(masks[:, part], jnp.float32)
        return compiled(lambda q: loss.stats(jnp.zeros((*labelled.shape, 4)), labelled, {"queries": q}))(queries)

    parts = jax.tree.map(jnp.add, stats(slice(0, 1)), stats(slice(1, 3)))
    np.testing.assert_allclose(loss.value(parts), value(classes, masks, labels), rtol=1e-6)


def test_no_device_waits_for_the_matching_of_another():
    """The loops of the matching are as long as the images need; over eight devices they exchange nothing."""
    rng = np.random.default_rng(0)
    classes, masks = rng.normal(size=(2, 8, 3, 3)), rng.normal(size=(2, 8, 2, 2, 3))
    labels = rng.integers(0, 2, (8, 4, 4))
    strategy = make_strategy("jit", {"batch_size": 8})
    images = NamedSharding(strategy.mesh, PartitionSpec(None, "data"))
    queries = jax.device_put((jnp.asarray(classes, jnp.float32), jnp.asarray(masks, jnp.float32)), images)
    loss = losses.make_loss("mask_classification", num_classes=2)

    def step(queries, labels):
        return loss.value(loss.stats(jnp.zeros((*labels.shape, 2)), labels, {"queries": queries}))

    given = queries, jax.device_put(labels, strategy.sharded)
    program = jit(jax.value_and_grad(step), FAST_COMPILE, strategy.mesh).lower(*given).compile()
    assert_only_sums(program, 100)
    loss_of_eight, slope = program(*given)
    np.testing.assert_allclose(loss_of_eight, hand(classes, masks, labels), rtol=1e-5)
    expected = compiled(jax.grad(step))(jax.tree.map(np.asarray, queries), labels)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), slope, expected)


def test_ignored_images_teach_nothing_and_wrong_labels_show():
    classes, masks, labels = example()
    masked = labels.copy()
    masked[1] = IGNORE
    np.testing.assert_allclose(value(classes, masks, masked), hand(classes, masks, masked), rtol=1e-5)
    assert value(classes, masks, np.full_like(labels, IGNORE)) == 0
    labels[0, 0, 0] = 9
    assert np.isnan(value(classes, masks, labels))


def test_areas_of_odd_sizes_keep_their_sum():
    label = np.random.default_rng(0).integers(0, 3, (2, 7, 5))
    area = class_areas(jnp.asarray(label), 3, (3, 2))
    np.testing.assert_allclose(area.sum(2), 1, rtol=1e-6)
    share = np.stack([(label == i).mean((1, 2)) for i in range(3)], 1)
    np.testing.assert_allclose(area.mean(1), share, rtol=1e-5)
    thirds = class_areas(jnp.asarray([[[0, 1, 1]]]), 2, (1, 2))
    np.testing.assert_allclose(thirds[0], [[2 / 3, 1 / 3], [0, 1]], atol=1e-6)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="class logits"):
        mask_classification_stats((jnp.zeros((2, 7, 5)), jnp.zeros((1, 2, 3, 4, 7))), jnp.zeros((2, 3, 4), int))


@pytest.mark.slow  # its gradients, its losses and its sizes are each tested here
def test_the_step_trains_it_and_evaluates_it_at_native_sizes():
    """Finite gradients through the matching, and labels of another size than the image."""
    model = ours(features=8, queries=6, layers=1, pixel_layers=1, num_heads=2, hidden=8, pixel_hidden=8)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 24, 3)), jnp.float32)
    label = jnp.asarray(np.random.default_rng(1).integers(0, 5, (2, 16, 24)))
    loss = losses.make_loss("mask_classification", num_classes=5)
    tx = optax.adam(1e-2)
    start = compiled(lambda key: init_state(model, tx, key, (16, 24, 3)))(jax.random.key(0))
    step = compiled(make_train_step(model, tx, loss))
    state, first = step(start, {"image": image, "label": label}, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]:
        assert np.isfinite(leaf).all(), path
    for _ in range(5):
        state, last = step(state, {"image": image, "label": label}, jax.random.key(0))
    assert last["loss"] < first["loss"]
    # Each label twice as large, in a canvas larger still: the same loss as at the image's own size.
    large = jnp.pad(label.repeat(2, 1).repeat(2, 2), ((0, 0), (0, 3), (0, 5)), constant_values=IGNORE)
    evaluate = make_eval_step(model, loss)
    same = compiled(evaluate)(state, {"image": image, "label": label})
    native = compiled(evaluate)(state, {"image": image, "label": large, "size": jnp.array([[32, 48]] * 2)})
    np.testing.assert_allclose(loss.value(native["stats"]), loss.value(same["stats"]), rtol=1e-5)


@pytest.mark.parametrize("name", ["mask2former", "eomt"])
def test_whole_queries_are_dropped_and_each_image_has_its_own(name):
    """The learned queries, as they are read in training, are zero or twice as large; in evaluation they stay."""
    model = models.build(name, num_classes=3, **TINY[name] | {"queries": 32}, query_dropout=0.5)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables, seen = drawn(model, x), []

    def watch(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.module.name == "query_dropout":
            seen.append(y)
        return y

    def queries(variables, train):
        seen.clear()
        with nn.intercept_methods(watch):
            model.apply(variables, x, train=train, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})
        return seen[0]

    given = variables["params"]["query"]
    kept = np.asarray(jax.jit(queries, static_argnums=1, compiler_options=FAST_COMPILE)(variables, True)) / (2 * given)
    np.testing.assert_allclose(kept, kept.round()[..., :1] + 0 * kept, atol=1e-5)
    assert set(kept[..., 0].round().ravel()) == {0.0, 1.0} and (kept[0] != kept[1]).any()
    still = jax.jit(queries, static_argnums=1, compiler_options=FAST_COMPILE)(variables, False)
    np.testing.assert_allclose(still, given + 0 * still, rtol=1e-6)

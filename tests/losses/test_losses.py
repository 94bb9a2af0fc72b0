"""Losses against float64 NumPy, torch and finite differences, and the sums that make them exact over any split."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.loss_references import SHAPE, make_batch, reference, weights_of
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxseg import losses
from jaxseg.types import IGNORE

ALL = "cross_entropy + 0.5 * binary_cross_entropy + 2 * mse + 0.25 * dice"


CASES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"class_weights": True}),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"class_weights": True, "label_smoothing": 0.2}),
    ("binary_cross_entropy", {}),
    ("binary_cross_entropy", {"class_weights": True, "label_smoothing": 0.1}),
    ("mse", {}),
    ("mse", {"class_weights": True}),
    ("dice", {}),
    ("dice", {"squared": False}),
    ("dice", {"smooth": 1.0}),
    ("dice", {"squared": False, "smooth": 0.5}),
]


def both(name: str, options: dict, k: int):
    """The library's loss and the float64 reference of one case, as functions of (logits, labels)."""
    ours, theirs = dict(options), dict(options)
    if ours.pop("class_weights", False):
        ours["class_weights"] = theirs["weights"] = weights_of(k)
        del theirs["class_weights"]
    if "label_smoothing" in theirs:
        theirs["smoothing"] = theirs.pop("label_smoothing")
    return partial(getattr(losses, name), **ours), partial(reference, name, **theirs)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("name, options", CASES)
def test_value_and_gradient_equal_float64_and_finite_differences(name, options, k):
    logits, labels = make_batch(k)
    loss, truth = both(name, options, k)

    def value(z):
        total, weight = loss(z, labels)
        return losses.divide(total, weight), (total, weight)

    gradient, (total, weight) = jax.jit(jax.grad(value, has_aux=True))(logits)
    np.testing.assert_allclose((total, weight), truth(logits, labels), rtol=2e-6)
    assert total.dtype == weight.dtype == jnp.float32
    gradient = np.asarray(gradient)
    assert np.all(gradient[labels == IGNORE] == 0)
    direction = np.random.default_rng(1).normal(size=logits.shape)
    h = 1e-5
    up, down = (truth(logits.astype(np.float64) + s * h * direction, labels) for s in (1, -1))
    slope = (up[0] / up[1] - down[0] / down[1]) / (2 * h)
    np.testing.assert_allclose(np.sum(gradient * direction, dtype=np.float64), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("k", [2, 5])
def test_cross_entropy_is_torchs(k, smoothing, weighted):
    torch = pytest.importorskip("torch")
    logits, labels = make_batch(k)
    weights = weights_of(k).astype(np.float32) if weighted else None
    loss = losses.make_loss(num_classes=k, class_weights=weights, label_smoothing=smoothing)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, labels)
    z = torch.tensor(logits).movedim(-1, 1).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        z,
        torch.tensor(labels).long(),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, z.grad.movedim(1, -1).numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("k", [1, 4])
def test_sigmoid_losses_are_torchs_on_one_hot_targets(k):
    torch = pytest.importorskip("torch")
    logits, labels = make_batch(k, ignored=0.0)
    z = torch.tensor(logits)
    onehot = torch.tensor(np.eye(max(k, 2), dtype=np.float32)[labels])[..., -k:]
    bce, square = (jax.jit(losses.make_loss(name, num_classes=k)) for name in ("binary_cross_entropy", "mse"))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, onehot)
    np.testing.assert_allclose(bce(logits, labels), expected, rtol=1e-6)
    p = torch.sigmoid(z) if k == 1 else torch.softmax(z, -1)
    np.testing.assert_allclose(square(logits, labels), torch.nn.functional.mse_loss(p, onehot), rtol=1e-6)


def test_one_logit_is_two_logits_with_a_zero():
    logits, labels = make_batch(1)
    pair = np.concatenate([np.zeros_like(logits), logits], -1)
    options = {"class_weights": [0.5, 2.0], "label_smoothing": 0.1}
    for one in (losses.cross_entropy, losses.binary_cross_entropy):
        np.testing.assert_allclose(
            one(logits, labels, **options), losses.cross_entropy(pair, labels, **options), rtol=1e-6
        )


def test_dice_by_hand():
    """Two pixels, p = (3/4, 1/4) and (1/4, 3/4), truth 0 and 1: score 2·(3/4) / (9/16 + 1/16 + 1) = 12/13 a class."""
    logits = np.log(np.array([[[0.75, 0.25], [0.25, 0.75]]], np.float32))
    labels = np.array([[0, 1]])
    np.testing.assert_allclose(losses.dice(logits, labels), (2 / 13, 2), rtol=1e-6)
    # Without squares: 2·(3/4) / (1 + 1).
    np.testing.assert_allclose(losses.dice(logits, labels, squared=False), (0.5, 2), rtol=1e-6)
    # Truth 0 alone: class 0 has 2·(3/4 + 1/4) / (9/16 + 1/16 + 2); class 1 is absent, adds 0 and stays in the count.
    np.testing.assert_allclose(losses.dice(logits, np.array([[0, 0]])), (1 - 2 / 2.625, 2), rtol=1e-6)


def test_perfect_and_opposite_predictions():
    labels = make_batch(3)[1]
    logits = 60.0 * (np.eye(3, dtype=np.float32)[np.where(labels == IGNORE, 0, labels)])
    for name in ("cross_entropy", "mse", "dice"):
        loss = jax.jit(losses.make_loss(name, num_classes=3))
        assert float(loss(logits, labels)) < 1e-6
    assert float(loss(-logits, labels)) > 0.9


@pytest.mark.parametrize("k", [1, 4])
def test_logits_of_ignored_pixels_change_nothing(k):
    loss = losses.make_loss(ALL, num_classes=k, class_weights=weights_of(k), label_smoothing=0.1)
    logits, labels = make_batch(k)
    other = np.where((labels == IGNORE)[..., None], 37.0, logits)
    both_ways = jax.jit(jax.value_and_grad(loss))
    np.testing.assert_array_equal(both_ways(logits, labels)[0], both_ways(other, labels)[0])
    value, gradient = both_ways(logits, np.full(SHAPE, IGNORE, np.uint8))
    assert float(value) == 0.0 and np.all(np.asarray(gradient) == 0.0)


def test_the_two_stages_have_no_nan_on_an_all_ignored_batch():
    """As the training step goes: the cotangent of `value` at the total, pulled back through `stats`."""
    loss = losses.make_loss(ALL, num_classes=3)

    @jax.jit
    def both_stages(z):
        stats, pull = jax.vjp(lambda z: loss.stats(z, jnp.full(SHAPE, IGNORE)), z)
        value, cotangent = jax.value_and_grad(loss.value)(stats)
        return value, cotangent, pull(cotangent)[0]

    value, cotangent, gradient = both_stages(make_batch(3)[0])
    assert value == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(cotangent))
    assert np.all(np.asarray(gradient) == 0.0)


def test_a_zero_class_weight_may_silence_a_batch():
    loss = losses.make_loss("cross_entropy", num_classes=3, class_weights=[0, 1, 1], label_smoothing=0.1)
    value, gradient = jax.jit(jax.value_and_grad(loss))(make_batch(3)[0], np.zeros(SHAPE, np.int32))
    assert value == 0.0 and np.all(np.asarray(gradient) == 0.0)


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("k", [1, 4])
def test_huge_logits_give_finite_values_and_gradients(k, scale):
    logits, labels = make_batch(k)
    loss = losses.make_loss(ALL, num_classes=k, label_smoothing=0.1)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits * np.float32(scale), labels)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_cross_entropy_keeps_its_digits_far_from_zero():
    logits, labels = make_batch(4)
    logits = np.round(logits * 8) / 8  # exact after the shift
    both_ways = jax.jit(jax.value_and_grad(losses.make_loss(num_classes=4)))
    near, far = (both_ways(logits + np.float32(s), labels) for s in (0, 4096))
    np.testing.assert_allclose(near[0], far[0], rtol=1e-7)
    np.testing.assert_allclose(near[1], far[1], rtol=1e-6)


def test_a_class_ruled_out_by_minus_infinity():
    logits, labels = make_batch(4)
    labels = np.where(labels == 3, 0, labels)
    fewer, ruled_out = logits[..., :3], np.concatenate([logits[..., :3], np.full((*SHAPE, 1), -np.inf, np.float32)], -1)
    value, gradient = jax.jit(jax.value_and_grad(losses.make_loss(num_classes=4)))(ruled_out, labels)
    expected, slope = jax.jit(jax.value_and_grad(losses.make_loss(num_classes=3)))(fewer, labels)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[..., :3], slope, rtol=1e-5, atol=1e-8)
    assert np.all(np.asarray(gradient[..., 3]) == 0.0)


@pytest.mark.parametrize("wrong", [3, 254, -1])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "mse", "dice"])
def test_a_label_outside_the_classes_is_loud(name, wrong):
    logits, labels = make_batch(3)
    labels[0, 0, 0] = wrong
    assert np.isnan(jax.jit(losses.make_loss(name, num_classes=3))(logits, labels))


@pytest.mark.parametrize("k", [1, 3])
def test_stats_add_over_parts_and_their_gradient_is_the_whole_ones(k):
    loss = losses.make_loss(ALL, num_classes=k, class_weights=weights_of(k), label_smoothing=0.1)
    logits, labels = make_batch(k, shape=(6, 4, 5))
    labels[0], labels[1, :3] = IGNORE, IGNORE  # uneven: the mean of the parts' means would be wrong

    @jax.jit
    def in_parts(z, y):
        parts = [jax.vjp(partial(loss.stats, labels=y[i : i + 2]), z[i : i + 2]) for i in (0, 2, 4)]
        total = jax.tree.map(lambda *leaves: sum(leaves), *[stats for stats, _ in parts])
        value, cotangent = jax.value_and_grad(loss.value)(total)
        return total, value, jnp.concatenate([pull(cotangent)[0] for _, pull in parts])

    whole, slope = jax.jit(jax.value_and_grad(loss))(logits, labels)
    total, value, gradient = in_parts(logits, labels)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(total))
    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


def test_eight_devices_equal_one():
    loss = losses.make_loss(ALL, num_classes=3)
    logits, labels = make_batch(3, shape=(8, 4, 4))
    labels[2:5] = IGNORE

    def shard(z, y):
        stats, pull = jax.vjp(partial(loss.stats, labels=y), z)
        value, cotangent = jax.value_and_grad(loss.value)(jax.lax.psum(stats, "batch"))
        return value, pull(cotangent)[0]

    expected, slope = jax.jit(jax.value_and_grad(loss))(logits, labels)
    values, gradients = jax.pmap(shard, "batch")(logits[:, None], labels[:, None])
    np.testing.assert_allclose(values, np.full(8, expected), rtol=1e-6)
    np.testing.assert_allclose(gradients[:, 0], slope, rtol=1e-5, atol=1e-8)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    split = jax.device_put((logits, labels), NamedSharding(mesh, PartitionSpec("batch")))
    value, gradient = jax.jit(jax.value_and_grad(loss))(*split)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


def test_losses_of_many_classes_have_second_derivatives():
    loss = losses.make_loss("cross_entropy + dice", num_classes=120)
    logits, labels = make_batch(120, shape=(2, 5, 5))
    gradient = jax.jit(jax.grad(loss))
    direction = np.random.default_rng(2).normal(size=logits.shape).astype(np.float32)
    curve = jax.jit(lambda z, d: jax.jvp(lambda z: gradient(z, labels), (z,), (d,))[1])(logits, direction)
    step = np.float32(1e-1) * direction
    difference = (gradient(logits + step, labels) - gradient(logits - step, labels)) / 2e-1
    assert np.abs(difference).max() > 1e-3
    np.testing.assert_allclose(curve, difference, rtol=0.02, atol=2e-5)


def test_vmap_second_and_forward_derivatives():
    loss = losses.make_loss("cross_entropy + dice", num_classes=3, label_smoothing=0.1)
    logits, labels = make_batch(3)
    each = jax.jit(jax.vmap(loss))(logits, labels)
    whole = jax.jit(loss)
    np.testing.assert_allclose(each, [whole(z, y) for z, y in zip(logits, labels)], rtol=1e-6)
    gradient = jax.jit(jax.grad(loss))
    direction = np.random.default_rng(2).normal(size=logits.shape).astype(np.float32)
    slope = jax.jit(lambda z, d: jax.jvp(partial(loss, labels=labels), (z,), (d,))[1])(logits, direction)
    np.testing.assert_allclose(slope, np.sum(gradient(logits, labels) * direction), rtol=1e-4)
    curve = jax.jit(lambda z, d: jax.jvp(lambda z: gradient(z, labels), (z,), (d,))[1])(logits, direction)
    step = np.float32(1e-2) * direction
    difference = (gradient(logits + step, labels) - gradient(logits - step, labels)) / 2e-2
    np.testing.assert_allclose(curve, difference, atol=1e-4)


def test_millions_of_pixels_and_half_precision_logits():
    logits, labels = make_batch(1, shape=(2, 1024, 1024))
    total, weight = jax.jit(losses.cross_entropy)(logits, labels)
    np.testing.assert_allclose((total, weight), reference("cross_entropy", logits, labels), rtol=1e-5)
    half = jnp.asarray(logits[:, :8, :8], jnp.bfloat16)
    total, _ = jax.jit(losses.cross_entropy)(half, labels[:, :8, :8])
    assert total.dtype == jnp.float32
    expected = reference("cross_entropy", np.asarray(half.astype(jnp.float32)), labels[:, :8, :8])[0]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_wrong_arrays_are_refused():
    logits, labels = make_batch(3)
    for wrong, words in ((labels[:, :2], "shape"), (labels.astype(np.float32), "integers")):
        for name in ("cross_entropy", "binary_cross_entropy", "mse", "dice"):
            with pytest.raises(ValueError, match=words):
                getattr(losses, name)(logits, wrong)
    with pytest.raises(ValueError, match="for 4 classes"):
        losses.make_loss(num_classes=4)(logits, labels)
    with pytest.raises(ValueError, match="3 numbers"):
        losses.cross_entropy(logits, labels, class_weights=[1.0, 2.0])

"""The further losses against float64 NumPy and finite differences, and what all must keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.loss_references import REFERENCES, make, make_batch, smooth_batch, weights_of
from helpers.marks import some_slow

from jaxseg import losses
from jaxseg.types import IGNORE

CASES = [
    ("dice", {"per_image": True}),
    ("dice", {"log": True}),
    ("dice", {"include_background": False}),
    ("jaccard", {}),
    ("jaccard", {"squared": True, "smooth": 1.0}),
    ("jaccard", {"per_image": True, "log": True}),
    ("tversky", {}),
    ("tversky", {"alpha": 0.5, "beta": 0.9, "gamma": 0.75}),
    ("tversky", {"per_image": True, "gamma": 2.0, "include_background": False, "smooth": 0.1}),
    ("generalised_dice", {}),
    ("generalised_dice", {"per_image": True}),
    ("generalised_dice", {"squared": True, "include_background": False}),
    ("focal", {}),
    ("focal", {"gamma": 0.0}),
    ("focal", {"gamma": 0.5, "class_weights": True}),
    ("focal", {"one_vs_rest": True, "alpha": 0.25}),
    ("focal", {"one_vs_rest": True, "class_weights": True}),
    ("lovasz", {}),
    ("ohem", {}),
    ("ohem", {"thresh": 0.0, "min_kept": 0.5}),
    ("ohem", {"thresh": 0.3, "min_kept": 0.0}),
    ("ohem", {"class_weights": True, "label_smoothing": 0.1}),
    ("sampled_cross_entropy", {"samples": 1}),
    ("sampled_cross_entropy", {"samples": 2, "class_weights": True}),
    ("boundary", {}),
    ("boundary", {"max_distance": 2}),
    ("boundary", {"include_background": False}),
    ("boundary_f1", {}),
    ("boundary_f1", {"width": 2, "tolerance": 1}),
    ("boundary_f1", {"include_background": False}),
]
# Every loss of this file once, for what all must keep.
EACH = [
    ("dice", {"per_image": True}),
    ("tversky", {"gamma": 0.75}),
    *((n, {}) for n in REFERENCES if n not in ("dice", "tversky")),
]


def takes(name, options, k):
    """Whether one logit has this form."""
    return k > 1 or not (name == "sampled_cross_entropy" or options.get("include_background") is False)


# Two classes run the code of four.
@pytest.mark.parametrize("k", some_slow((1, 2, 4), (2,)))
@pytest.mark.parametrize("name, options", CASES)
def test_value_and_gradient_equal_float64_and_finite_differences(name, options, k):
    if "class_weights" in options:
        options = {**options, "class_weights": tuple(weights_of(k))}
    if not takes(name, options, k):
        with pytest.raises(ValueError, match=r"k = 1"):
            jax.eval_shape(make(name, options, k), *make_batch(1))
        return
    logits, labels = smooth_batch(k)
    truth, loss = REFERENCES[name], partial(getattr(losses, name), **options)

    def value(z):
        total, weight = loss(z, labels)
        return losses.divide(total, weight), (total, weight)

    gradient, (total, weight) = jax.jit(jax.grad(value, has_aux=True))(logits)
    np.testing.assert_allclose((total, weight), truth(logits.astype(np.float64), labels, **options), rtol=5e-6)
    assert total.dtype == weight.dtype == jnp.float32
    gradient = np.asarray(gradient)
    assert np.all(gradient[labels == IGNORE] == 0)
    direction = np.random.default_rng(1).normal(size=logits.shape)
    h = 1e-6
    up, down = (truth(logits.astype(np.float64) + s * h * direction, labels, **options) for s in (1, -1))
    slope = (up[0] / up[1] - down[0] / down[1]) / (2 * h)
    np.testing.assert_allclose(np.sum(gradient * direction, dtype=np.float64), slope, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("name, options", EACH)
def test_what_every_loss_keeps(name, options, k):
    """IGNORE changes nothing; parts add; all-IGNORE is 0 with zero gradient; a wrong label and huge logits are seen."""
    if not takes(name, options, k):
        pytest.skip("not for one logit")
    loss = make(name, options, k)
    logits, labels = smooth_batch(k, (4, 6, 7))

    @jax.jit
    def program(z, y):
        return jax.value_and_grad(loss)(z, y), loss.stats(z, y)

    def both_ways(z, y):
        return program(z, y)[0]

    (value, slope), stats = program(logits, labels)
    other = np.where((labels == IGNORE)[..., None], 37.0, logits)
    np.testing.assert_array_equal(value, both_ways(other, labels)[0])

    @jax.jit
    def in_parts(z, y):
        parts = [jax.vjp(partial(loss.stats, labels=y[i : i + 2]), z[i : i + 2]) for i in (0, 2)]
        total = jax.tree.map(jnp.add, *[each for each, _ in parts])
        value, cotangent = jax.value_and_grad(loss.value)(total)
        return total, value, jnp.concatenate([pull(cotangent)[0] for _, pull in parts]), loss(z[:2], y[:2])

    total, of_parts, gradient, of_first_part = in_parts(logits, labels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), total, stats)
    np.testing.assert_allclose(of_parts, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-7)

    void = both_ways(logits, np.full(labels.shape, IGNORE, np.int32))
    assert float(void[0]) == 0.0 and np.all(np.asarray(void[1]) == 0.0)
    # An ignored image more, as the filling of a last batch, is no image at all.
    filled = labels.copy()
    filled[2:] = IGNORE
    np.testing.assert_allclose(both_ways(logits, filled)[0], of_first_part, rtol=1e-5)

    one_class = both_ways(logits, np.zeros_like(labels))
    huge = both_ways(logits * np.float32(1e30), labels)
    for given in (one_class, huge):
        assert np.isfinite(given[0]) and np.isfinite(given[1]).all()
    for wrong in (max(k, 2), 254, -1):
        bad = labels.copy()
        bad[0, 0, 0] = wrong
        assert np.isnan(both_ways(logits, bad)[0])


@pytest.mark.parametrize("name, options", EACH)
def test_eight_devices_equal_one(name, options):
    loss = make(name, options, 3)
    logits, labels = smooth_batch(3, (8, 6, 6))

    def shard(z, y):
        stats, pull = jax.vjp(partial(loss.stats, labels=y), z)
        value, cotangent = jax.value_and_grad(loss.value)(jax.lax.psum(stats, "batch"))
        return value, pull(cotangent)[0]

    expected, slope = jax.jit(jax.value_and_grad(loss))(logits, labels)
    values, gradients = jax.pmap(shard, "batch")(logits[:, None], labels[:, None])
    np.testing.assert_allclose(values, np.full(8, expected), rtol=1e-5)
    np.testing.assert_allclose(gradients[:, 0], slope, rtol=1e-4, atol=1e-7)


def test_perfect_predictions_cost_nothing():
    labels = smooth_batch(3)[1]
    logits = 60.0 * (np.eye(3, dtype=np.float32)[np.where(labels == IGNORE, 0, labels)])
    for name, options in EACH:
        if name != "boundary":  # negative: the sum of the distances inside
            assert abs(float(jax.jit(make(name, options, 3))(logits, labels))) < 1e-5, name


def test_an_alpha_for_a_softmax_is_refused():
    with pytest.raises(ValueError, match="class_weights"):
        losses.focal(*make_batch(3), alpha=0.25)
    for name in ("boundary", "boundary_f1"):
        with pytest.raises(ValueError, match=r"\[b,h,w\]"):
            getattr(losses, name)(*make_batch(3, shape=(4, 5)))


def test_sampled_cross_entropy_needs_less_memory_than_the_full_one():
    def compiled(loss):
        def mean(logits, labels):
            return losses.divide(*loss(logits, labels))

        shapes = jax.ShapeDtypeStruct((1, 128, 128, 150), jnp.float32), jax.ShapeDtypeStruct((1, 128, 128), jnp.int32)
        return jax.jit(jax.value_and_grad(mean)).lower(*shapes).compile()

    sampled, full = compiled(losses.sampled_cross_entropy), compiled(losses.cross_entropy)
    assert sampled.memory_analysis().temp_size_in_bytes < 0.5 * full.memory_analysis().temp_size_in_bytes


def test_sampled_cross_entropy_keeps_a_split_batch_split():
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    shapes = (
        jax.ShapeDtypeStruct((8, 4, 4, 30), jnp.float32, sharding=split),
        jax.ShapeDtypeStruct((8, 4, 4), jnp.int32, sharding=split),
    )
    gradient = jax.grad(lambda z, y: losses.divide(*losses.sampled_cross_entropy(z, y))[()])
    program = jax.jit(gradient, out_shardings=split).lower(*shapes).compile().as_text()
    assert "all-gather" not in program


def test_sampled_cross_entropy_of_equal_logits():
    """Equal logits are all in S, wherever the true class is: of 3, 1, 1, 1, 0 the largest wrong one or all three."""
    logits = jnp.array([[3.0, 1.0, 1.0, 1.0, 0.0]] * 5)
    labels = jnp.arange(5)
    e = np.exp(1.0)
    one = [e**3 + 3 * e] + 3 * [e**3 + e] + [e**3 + 1]  # S for one sample
    for samples, expected in ((1, one), (2, [e**3 + 3 * e] * 4 + [e**3 + 3 * e + 1])):
        loss = partial(losses.sampled_cross_entropy, samples=samples)
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda z, y, loss=loss: loss(z, y)[0])))(logits, labels)
        np.testing.assert_allclose(values, np.log(expected) - logits[labels, labels], rtol=1e-5)
        exact = np.exp(logits) / np.reshape(expected, (5, 1)) - np.eye(5)
        inside = np.isclose(gradients, exact, atol=1e-6)
        assert np.all(inside | (np.asarray(gradients) == 0))
        np.testing.assert_allclose(gradients.sum(-1), 0, atol=1e-6)

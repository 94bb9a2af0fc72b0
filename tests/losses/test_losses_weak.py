"""Losses for few labels: entropy, sizes between bounds, and the gated CRF, against float64 NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loss_references import p64, run
from helpers.tiny_adversarial import quick
from helpers.tiny_step import K, Tiny, assert_same
from jax.test_util import check_grads

from jaxseg import losses
from jaxseg.losses.possible import known, known_array, possible_label
from jaxseg.losses.strips import MANY_CLASSES
from jaxseg.nn import resize
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state
from jaxseg.step import make_eval_step, make_train_step
from jaxseg.types import IGNORE


def logits_of(k, shape=(2, 5, 6), seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, k)).astype(np.float32)


def two_classes(p):
    return np.concatenate([1 - p, p], -1) if p.shape[-1] == 1 else p


@pytest.mark.parametrize("k", [1, 3])
def test_entropy_is_that_of_the_pixels_without_a_label(k):
    logits = logits_of(k)
    labels = np.random.default_rng(1).choice([0, 1, IGNORE], (2, 5, 6)).astype(np.int32)
    p = two_classes(p64(logits))
    expected = -(p * np.log(p)).sum(-1)[labels == IGNORE]
    np.testing.assert_allclose(run("entropy", logits, labels), (expected.sum(), expected.size), rtol=1e-5)
    uniform = losses.divide(*losses.entropy(np.zeros((1, 2, 2, 4), np.float32), np.full((1, 2, 2), IGNORE)))
    np.testing.assert_allclose(uniform, np.log(4), rtol=1e-6)
    certain = np.where(np.arange(4) == 2, 0.0, -np.inf) * np.ones((1, 2, 2, 4))
    assert losses.divide(*losses.entropy(certain, np.full((1, 2, 2), IGNORE))) == 0
    assert losses.divide(*losses.entropy(logits, np.zeros((2, 5, 6), np.int32))) == 0
    assert np.isnan(losses.entropy(logits, np.full((2, 5, 6), 9))[0])


def sizes64(logits, labels, least, most):
    """The penalty, one image and class at a time."""
    k = logits.shape[-1]
    p, total, count = p64(logits), 0.0, 0
    for image, label in zip(p, labels):
        inside = label != IGNORE
        if not inside.any():
            continue
        for c in range(1, max(k, 2)):
            volume = image[inside][:, 0 if k == 1 else c].sum()
            sure, maybe = (label == c).sum(), (label == 254 - c).sum()
            low = max(1, sure + least * maybe) if sure + maybe else 0
            high = (sure + most * maybe if most else inside.sum()) if sure + maybe else 0
            over = max(0.0, volume - max(low, high)) + min(0.0, volume - low)
            total, count = total + (over / inside.sum()) ** 2, count + 1
    return total, count


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("least", "most"), [(0.1, 1.0), (0.5, 0.6), (0.3, 0.0)])
def test_size_constraint_is_the_quadratic_penalty_of_the_paper(k, least, most):
    logits = logits_of(k, (3, 6, 5)) * 2
    labels = np.random.default_rng(2).choice([0, 1, 253, 253, IGNORE], (3, 6, 5)).astype(np.int32)
    labels[1] = np.where(labels[1] == IGNORE, IGNORE, 0)
    labels[2] = IGNORE
    expected = sizes64(logits, labels, least, most)
    assert expected[0] > 0 and expected[1] == 2 * max(1, k - 1)
    np.testing.assert_allclose(run("size_constraint", logits, labels, least=least, most=most), expected, rtol=2e-5)


def test_size_constraint_by_hand_and_what_it_refuses():
    """8 pixels, of which 4 may be of class 1: between 2 and 4 are."""
    labels = np.array([[[0, 0, 0, 0, 253, 253, 253, 253]]])
    for share, expected in ((1 / 8, (1 / 8) ** 2), (3 / 8, 0), (6 / 8, (2 / 8) ** 2)):
        logits = np.full((1, 1, 8, 1), np.log(share / (1 - share)), np.float32)
        sum_, weight = losses.size_constraint(logits, labels, least=0.5)
        np.testing.assert_allclose((sum_, weight), (expected, 1), atol=1e-7)
    with pytest.raises(ValueError, match=r"labels \[b,h,w\]"):
        losses.size_constraint(np.zeros((4, 2)), np.zeros(4, int))
    with pytest.raises(ValueError, match="at most 127 classes, and there are 128 classes"):
        losses.size_constraint(np.zeros((1, 2, 2, 128)), np.zeros((1, 2, 2), int))
    assert np.isnan(losses.size_constraint(np.zeros((1, 2, 2, 3)), np.full((1, 2, 2), 99))[0])


def test_every_other_term_takes_what_a_pixel_may_be_as_ignored():
    logits = logits_of(3)
    labels = np.random.default_rng(3).choice([0, 2, possible_label(1), possible_label(2), IGNORE], (2, 5, 6))
    plain = np.where(labels > 2, IGNORE, labels)
    np.testing.assert_array_equal(known(labels, 3), plain)
    np.testing.assert_array_equal(known_array(labels.astype(np.uint8), 3), plain)
    loss = losses.make_loss("cross_entropy + 2 * size_constraint + dice + entropy", num_classes=3)
    values = loss.values(loss.stats(logits, labels))
    for name in ("cross_entropy", "dice", "entropy"):
        np.testing.assert_allclose(values[name], losses.make_loss(name, num_classes=3)(logits, plain), rtol=1e-6)
    np.testing.assert_allclose(values["size_constraint"], losses.divide(*losses.size_constraint(logits, labels)))
    assert np.isnan(loss(logits, np.full_like(labels, 100)))
    assert np.isnan(losses.make_loss("cross_entropy", num_classes=3)(logits, labels))  # without a term that reads them


def crf64(image, logits, inside, radius, sigma_xy, sigma_color, reduce):
    """The energy over all pairs, one by one."""
    p, image = two_classes(p64(logits)), np.asarray(image, np.float64)
    b, h, w, _ = image.shape
    total = number = 0
    for n in range(b):
        cells = {}
        for i in range(-(-h // reduce)):
            for j in range(-(-w // reduce)):
                square = np.s_[i * reduce : (i + 1) * reduce, j * reduce : (j + 1) * reduce]
                valid = inside[n][square]
                if valid.any():
                    cells[i, j] = image[n][square][valid].mean(0), p[n][square][valid].mean(0)
        number += len(cells)
        for (i, j), (color, share) in cells.items():
            for (y, x), (other, there) in cells.items():
                if (i, j) != (y, x) and max(abs(i - y), abs(j - x)) <= radius:
                    near = ((i - y) ** 2 + (j - x) ** 2) / sigma_xy**2 + ((color - other) ** 2).sum() / sigma_color**2
                    total += np.exp(-0.5 * near) * (1 - share @ there)
    return total, number


@pytest.mark.parametrize(("k", "reduce", "cut"), [(1, 1, False), (3, 1, True), (3, 2, False), (3, 2, True)])
def test_gated_crf_is_the_energy_over_all_pairs(k, reduce, cut):
    logits, image = logits_of(k, (2, 7, 6)), logits_of(3, (2, 7, 6), seed=4)
    inside = np.ones((2, 7, 6), bool)
    inside[1, 4:], inside[1, :, 3:] = not cut, not cut
    options = {"radius": 2, "sigma_xy": 1.5, "sigma_color": 0.8, "reduce": reduce}
    found = jax.jit(lambda *guide: losses.gated_crf(guide, inside if cut else None, **options))(image, logits)
    np.testing.assert_allclose(found, crf64(image, logits, inside, **options), rtol=2e-5)


def test_the_gradient_of_gated_crf_is_that_of_its_value():
    logits, image = logits_of(3, (1, 5, 4)), jnp.asarray(logits_of(3, (1, 5, 4), seed=5))
    for reduce in (1, 2):

        def energy(z, reduce=reduce):
            return losses.gated_crf((image, z), radius=2, sigma_color=1.0, reduce=reduce)[0]

        check_grads(jax.jit(energy), (logits,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-2)
    of_image = quick(jax.grad(lambda guide: losses.gated_crf((guide, logits))[0]))(image)
    assert not np.any(of_image)


def test_gated_crf_keeps_no_array_for_each_place_of_the_window():
    """The memory of value and gradient at 121 places is that at 9 places."""
    image, logits = (jax.ShapeDtypeStruct((2, 64, 64, n), "float32") for n in (3, 6))

    def memory(radius):
        def energy(z, image):
            return losses.gated_crf((image, z), radius=radius, reduce=1)[0]

        return jax.jit(jax.grad(energy)).lower(logits, image).compile().memory_analysis().temp_size_in_bytes

    assert memory(5) < 1.4 * memory(1)  # the arrays are padded by the radius


def test_the_terms_say_what_they_need():
    guided = losses.make_loss("cross_entropy + 0.1 * gated_crf", num_classes=3)
    with pytest.raises(ValueError, match=r"gated_crf looks at the image: give out={'guide': \(image, logits\)}"):
        guided(logits_of(3), np.zeros((2, 5, 6), int))
    with pytest.raises(ValueError, match="of one size"):
        losses.gated_crf((np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 5, 2))))
    with pytest.raises(ValueError, match="inside needs"):
        losses.gated_crf((np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 2))), np.ones((1, 2, 2), bool))
    assert guided.learns_unlabelled and guided.needs_labels and not guided.takes_possible
    assert losses.make_loss("entropy", num_classes=3).learns_unlabelled
    assert losses.make_loss("size_constraint", num_classes=3).takes_possible
    assert [term.name for term in guided.of_logits.terms] == ["cross_entropy"]


TERMS = "cross_entropy + 0.3 * entropy + 5 * size_constraint + 0.2 * gated_crf"


def started(model, key, size, rate=1.0):
    return quick(lambda key: init_state(model, optax.sgd(rate), key, size))(key)


def step_of(batch, strategy="jit", devices=1, accumulate=1):
    strat = make_strategy(strategy, {"batch_size": len(batch["image"])}, jax.devices()[:devices])
    model, tx = Tiny(axis_name=strat.axis_name), optax.sgd(0.5)
    loss = losses.make_loss(TERMS, num_classes=K, args={"gated_crf": {"radius": 2}})
    step = make_train_step(model, tx, loss, accumulate=accumulate, axis_name=strat.axis_name, aux_weight=0.4)
    state = strat.put_state(started(Tiny(), jax.random.key(1), (6, 5, 3), rate=0.5))
    state, metrics = strat.compile_train(step)(state, strat.put_batch(batch), strat.put_key(jax.random.key(2)))
    return jax.device_get((strat.get_state(state).params, strat.first(metrics)["terms"]))


def test_the_step_has_the_same_gradient_however_the_batch_is_cut():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 253, 252, IGNORE], (16, 6, 5), p=[0.2, 0.1, 0.2, 0.2, 0.3]).astype(np.uint8)
    label[:7] = IGNORE
    batch = {"image": rng.normal(size=(16, 6, 5, 3)).astype(np.float32), "label": label}
    whole = step_of(batch)
    assert all(value > 0 for value in whole[1].values()) and len(whole[1]) == 5
    for how in ({"accumulate": 4}, {"devices": 8}, {"strategy": "pmap", "devices": 8}):
        assert_same(step_of(batch, **how), whole)


def test_evaluation_compares_the_pixels_of_the_image_and_not_its_padding():
    """What pads an image has no effect on the term, and labels of another size neither."""
    model, loss = Tiny(), losses.make_loss("gated_crf", num_classes=K, args={"gated_crf": {"radius": 1}})
    image = logits_of(3, (1, 8, 6))
    state = started(model, jax.random.key(0), (8, 6, 3))
    label = np.zeros((1, 9, 9), np.uint8)
    batch = {"image": image, "label": label, "size": np.array([[9, 9]]), "inside": np.array([[4, 6]])}
    found = quick(make_eval_step(model, loss))(state, batch)["stats"]["gated_crf"]
    logits, _ = quick(model.apply)(state.variables, image)
    inside = np.arange(8)[None, :, None] < np.full((1, 1, 6), 4)
    expected = crf64(image, logits, inside, radius=1, sigma_xy=6.0, sigma_color=0.5, reduce=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_evaluation_counts_the_entropy_of_the_pixels_of_images_alone():
    """Neither what pads an image or a label, nor an example that pads the batch, adds to it; in strips neither."""
    model, loss = Tiny(), losses.make_loss("entropy + cross_entropy", num_classes=K)
    image = logits_of(3, (3, 8, 6))
    state = started(model, jax.random.key(0), (8, 6, 3))
    label = np.full((3, 9, 9), IGNORE, np.uint8)
    label[:, 0, 0] = 1
    # An image of 8x6 that is filled up from 4x6, one that is resized to 7x3, and a padding example.
    sizes, inside = np.array([[8, 6], [7, 3], [9, 9]]), np.array([[4, 6], [8, 6], [0, 0]])
    batch = {"image": image, "label": label, "size": sizes, "inside": inside}
    found = quick(make_eval_step(model, loss))(state, batch)["stats"]
    logits = np.asarray(quick(model.apply)(state.variables, image)[0], np.float64)
    native = [logits[0, :4], np.asarray(resize(jnp.asarray(logits[1:2], jnp.float32), (7, 3), method="bilinear")[0])]
    total = 0.0
    for each in native:
        p = np.exp(each - each.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        total += -(p * np.log(p)).sum(-1).sum() + (p * np.log(p)).sum(-1)[0, 0]  # all but the labelled pixel
    np.testing.assert_allclose(found["entropy"], [total, 4 * 6 + 7 * 3 - 2], rtol=1e-5)
    assert found["cross_entropy"][1] == 3  # as ever: what pads has no label


def test_entropy_of_many_classes_leaves_padding_out_too():
    loss = losses.make_loss("entropy", num_classes=MANY_CLASSES)
    logits = logits_of(MANY_CLASSES, (1, 4, 4))
    label, covered = np.full((1, 4, 4), IGNORE), np.zeros((1, 4, 4), bool)
    covered[0, 1] = True
    found = loss.stats(logits, label, covered=covered)["entropy"]
    np.testing.assert_allclose(found, losses.entropy(logits[:, 1], label[:, 1]), rtol=1e-6)

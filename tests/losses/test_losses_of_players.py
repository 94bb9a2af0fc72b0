"""The losses of a generator and its discriminator, against float64 NumPy."""

import numpy as np
import pytest

from jaxseg import losses

VERDICTS = {
    "real": np.array([2.0, -1.0, 0.5, 30.0], np.float32),
    "fake": np.array([-3.0, 0.25, 1.5, -40.0], np.float32),
    "fooled": np.array([-3.0, 0.25, 1.5, -40.0], np.float32),
}


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x.astype(np.float64))


def test_both_losses_are_those_of_the_paper():
    fooled, real, fake = (log_sigmoid(VERDICTS[name]) for name in ("fooled", "real", "fake"))
    fake = log_sigmoid(-VERDICTS["fake"])  # log(1 - D)
    np.testing.assert_allclose(losses.generator(VERDICTS), (-fooled.sum(), 4), rtol=1e-6)
    np.testing.assert_allclose(losses.discriminator(VERDICTS), (-(real + fake).sum(), 4), rtol=1e-6)
    smooth = 0.9 * real + 0.1 * log_sigmoid(-VERDICTS["real"])
    np.testing.assert_allclose(losses.discriminator(VERDICTS, smoothing=0.1), (-(smooth + fake).sum(), 4), rtol=1e-6)


def test_padding_examples_do_not_count():
    inside = np.zeros((4, 3, 2), bool)
    inside[:2, 0, 0] = True
    two = {name: values[:2] for name, values in VERDICTS.items()}
    for loss in (losses.generator, losses.discriminator):
        np.testing.assert_allclose(loss(VERDICTS, inside), loss(two), rtol=1e-6)
        assert loss(VERDICTS, inside & False) == (0.0, 0.0)


def test_a_sum_with_them_needs_no_labels_and_names_each_term():
    loss = losses.make_loss(
        "generator + 0.5 * discriminator", num_classes=2, args={"discriminator": {"smoothing": 0.25}}
    )
    labels = np.full((4, 3, 2), 255)
    value, terms = loss.report(loss.stats(np.zeros((4, 3, 2, 2), np.float32), labels, {"verdicts": VERDICTS}))
    of_g, of_d = losses.generator(VERDICTS)[0] / 4, losses.discriminator(VERDICTS, smoothing=0.25)[0] / 4
    np.testing.assert_allclose([terms["generator"], terms["discriminator"]], [of_g, of_d], rtol=1e-6)
    np.testing.assert_allclose(value, of_g + 0.5 * of_d, rtol=1e-6)
    assert not loss.needs_labels


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"one verdict an image, f32\[b\], got 'fooled' of shape \(4, 1\)"):
        losses.generator({"fooled": VERDICTS["fooled"][:, None]})
    with pytest.raises(ValueError, match=r"one mask for each of the 4 images, got \(3, 2, 2\)"):
        losses.discriminator(VERDICTS, np.ones((3, 2, 2), bool))
    with pytest.raises(ValueError, match=r"discriminator\.smoothing must be a number"):
        losses.make_loss("discriminator", num_classes=2, args={"discriminator": {"smoothing": 1.0}})

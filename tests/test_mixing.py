"""CutMix and ClassMix: whole pixels with their labels move within pairs, the same however the batch is cut."""

import jax
import numpy as np
import pytest

from jaxseg import build
from jaxseg.config import default_config, update, validate
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.mixing import half_of_classes, make_mix
from jaxseg.types import IGNORE


def unchanged(key, image, label):
    return image, label


@pytest.fixture(scope="module")
def batch():
    """Six images whose pixels tell their number and label, with an ignored stripe."""
    label = np.random.default_rng(0).integers(0, 7, (6, 4, 4)).repeat(4, 1).repeat(4, 2)
    label[:, :2] = IGNORE
    image = np.stack([np.arange(6)[:, None, None] + 0 * label, label], -1).astype(np.float32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), np.arange(6))
    return {"image": image, "label": label.astype(np.int32), "keys": keys}


@pytest.mark.parametrize(("cutmix", "classmix"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.6, 0.4)])
def test_pixels_come_with_their_labels_from_the_partner(batch, cutmix, classmix):
    image, label, lesson = jax.jit(make_mix(unchanged, cutmix=cutmix, classmix=classmix))(batch, None)
    image, label = np.asarray(image), np.asarray(label)
    assert lesson is None
    np.testing.assert_array_equal(image[..., 1], label)
    own = image[..., 0] == np.arange(6)[:, None, None]
    partner = np.arange(6) ^ 1
    np.testing.assert_array_equal(image[..., 0], np.where(own, np.arange(6)[:, None, None], partner[:, None, None]))
    for number in range(6):
        where, of = np.where(~own[number]), partner[number]
        np.testing.assert_array_equal(label[number][where], batch["label"][of][where])
        np.testing.assert_array_equal(label[number][own[number]], batch["label"][number][own[number]])
    if not (cutmix or classmix):
        assert own.all()
    if cutmix == 1:
        shares = (~own).mean((1, 2))
        assert np.all(np.abs(shares - 0.5) < 0.12), shares
        for each in ~own:
            assert each.sum() == each.any(1).sum() * each.any(0).sum()  # a box
    if classmix == 1:
        assert not own.all((1, 2)).any() and (batch["label"][partner][~own] != IGNORE).all()


def test_the_decision_says_nothing_of_the_box_and_the_classes():
    """With a small probability too boxes have all heights, and each of two classes is pasted as often."""
    label = np.zeros((400, 16, 16), np.int32)
    label[:, :, 8:] = 1
    batch = {"image": np.arange(400, dtype=np.float32)[:, None, None, None] + 0 * label[..., None], "label": label}
    batch["keys"] = jax.random.split(jax.random.key(5), 400)
    for share in (0.25, 1.0):
        image, _, _ = jax.jit(make_mix(unchanged, cutmix=share))(batch, None)
        mixed = np.asarray(image)[..., 0] != np.arange(400)[:, None, None]
        heights = mixed.any(2).sum(1)[mixed.any((1, 2))]
        assert abs((heights > 0).sum() / 400 - share) < 0.07
        assert heights.min() <= 9 and heights.max() >= 15
        assert abs(np.log(heights / 16).mean() - np.log(0.5) / 2) < 0.06
        image, _, _ = jax.jit(make_mix(unchanged, classmix=share))(batch, None)
        mixed = np.asarray(image)[..., 0] != np.arange(400)[:, None, None]
        first, second = mixed[:, :, 0].any(1), mixed[:, :, 15].any(1)
        assert not (first & second).any() and abs(first.sum() / (first | second).sum() - 0.5) < 0.12


def test_halves_of_the_classes():
    label = np.array([[0, 0, 3], [5, IGNORE, 9], [9, 3, 3]], np.int32)
    chosen = []
    for seed in range(40):
        taken = np.asarray(half_of_classes(jax.random.key(seed), label))
        classes = set(label[taken])
        assert len(classes) == 2 and IGNORE not in classes
        assert not set(label[~taken]) & classes
        chosen.append(tuple(sorted(classes)))
    assert len(set(chosen)) == 6  # each pair of four
    assert not half_of_classes(jax.random.key(0), np.full((2, 2), IGNORE)).any()
    assert half_of_classes(jax.random.key(0), np.zeros((2, 2), np.int32)).all()


def test_the_partners_of_an_odd_batch(batch):
    odd = {name: array[:5] for name, array in batch.items()}
    with pytest.raises(ArgumentError, match="Mixing takes pairs of images, but a device has 5"):
        make_mix(unchanged, cutmix=1.0)(odd, None)


def configured(**changes):
    config = default_config()
    update(
        config,
        model__name="cnn",
        model__args={"widths": (4,), "dropout": 0.0, "norm": "none"},
        data__size=(16, 16),
        **changes,
    )
    return config


@pytest.mark.parametrize("name", ["cutmix", "classmix"])
def test_a_run_mixes_its_images(batch, name):
    """A step sees mixed labels, and micro-batches see those of the whole batch."""
    given = {"image": (batch["image"][..., [0, 1, 1]] * 20).astype(np.uint8), "label": batch["label"].astype(np.uint8)}
    given = {key: np.concatenate([value, value[:2]]) for key, value in given.items()}
    counts, grads = {}, {}
    for share, accumulate in ((0.0, 1), (1.0, 1), (1.0, 2)):
        config = configured(**{f"augment__{name}": share}, batch_size=8, accumulate=accumulate)
        parts = build.build_parts(config, 7)
        step = jax.jit(parts.train_step())
        _, metrics = step(parts.init(jax.random.key(0)), given, jax.random.key(1))
        counts[share, accumulate] = np.asarray(metrics["confusion"]).sum(1)
        grads[share, accumulate] = float(metrics["grad_norm"])
    assert np.abs(counts[1.0, 1] - counts[0.0, 1]).sum() > 0
    np.testing.assert_array_equal(counts[1.0, 2], counts[1.0, 1])
    np.testing.assert_allclose(grads[1.0, 2], grads[1.0, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"augment__cutmix": 0.7, "augment__classmix": 0.4}, "their sum must be at most 1"),
        ({"augment__cutmix": 0.5, "batch_size": 6, "accumulate": 3, "semi__method": ""}, None),
        ({"augment__cutmix": 0.5, "batch_size": 5}, "augment.cutmix needs pairs of images: batch_size=5"),
        (
            {"augment__classmix": 0.5, "semi__method": "fixmatch", "data__labelled": 0.5},
            "augment.classmix and semi.method both make the views",
        ),
        (
            {
                "augment__cutmix": 0.5,
                "adversarial__weight": 0.1,
                "adversarial__semi_weight": 0.1,
                "data__labelled": 0.5,
            },
            "augment.cutmix puts pixels of images with labels and without over each other",
        ),
    ],
)
def test_what_does_not_go_together(changes, expected):
    config = configured(**changes)
    if expected is None:
        validate(config)
    else:
        with pytest.raises(ConfigError, match=expected):
            validate(config)

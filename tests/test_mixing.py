"""Mixing images: pixels with their labels move within pairs, or both labels count, however the batch is cut."""

import functools

import jax
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE
from scipy import ndimage

from jaxseg import build
from jaxseg.config import default_config, update, validate
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.mixing import CopyPaste, half_of_classes, make_mix
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


OBJECTS = np.array(
    [
        [0, 1, 1, 0, 0, 2],
        [0, 0, 1, 0, 2, 0],
        [IGNORE, 0, 0, 0, 0, 0],
        [0, 2, 2, 0, 0, 1],
        [3, 3, 0, 0, 1, 1],
    ],
    np.int32,
)


def pairs_of_objects(images=128):
    """Pairs of an empty image 0 and an image of objects, whose pixels tell their place."""
    label = np.stack([np.zeros_like(OBJECTS), OBJECTS] * (images // 2))
    place = np.arange(OBJECTS.size).reshape(OBJECTS.shape)
    image = np.stack([-1 - place, place] * (images // 2))[..., None].astype(np.float32)
    return {"image": image, "label": label, "keys": jax.random.split(jax.random.key(3), images)}


def test_connected_objects_are_pasted_whole_and_each_as_often():
    given = pairs_of_objects(1000)
    mix = make_mix(unchanged, copy_paste=CopyPaste(1.0, (1, 2)))
    image, label, second = jax.jit(mix, compiler_options=FAST_COMPILE)(given, None)
    pasted, label = np.asarray(image)[::2, ..., 0] >= 0, np.asarray(label)[::2]
    assert second is None
    np.testing.assert_array_equal(np.where(pasted, OBJECTS, 0), label)
    np.testing.assert_array_equal(
        image[::2, ..., 0][pasted], np.broadcast_to(np.arange(30).reshape(5, 6), pasted.shape)[pasted]
    )
    often = []
    for of_class in (1, 2):
        parts, count = ndimage.label(of_class == OBJECTS, np.ones((3, 3)))
        for number in range(1, count + 1):
            inside = pasted[:, parts == number]
            np.testing.assert_array_equal(inside.all(1), inside.any(1))
            often.append(inside.all(1).mean())
    assert len(often) == 4 and np.abs(np.array(often) - 0.5).max() < 0.08
    assert not pasted[:, (OBJECTS == 0) | (OBJECTS == 3) | (OBJECTS == IGNORE)].any()
    np.testing.assert_array_equal(image[1::2], given["image"][1::2])  # nothing to paste in image 0


def test_half_of_the_classes_is_pasted_and_may_be_mirrored():
    given = pairs_of_objects()

    def mirrored(key, image, label):
        return image[:, ::-1], label[:, ::-1]

    mix = make_mix(unchanged, copy_paste=CopyPaste(0.5, (1, 2, 3), connected=False, move=mirrored))
    image, label, _ = jax.jit(mix, compiler_options=FAST_COMPILE)(given, None)
    changed = np.asarray(image)[::2, ..., 0] >= 0
    assert 0.3 < changed.any((1, 2)).mean() < 0.7
    for pasted, own in zip(changed, np.asarray(label)[::2]):
        classes = set(own[pasted])
        assert len(classes) == (2 if pasted.any() else 0)  # of three, one more than half
        np.testing.assert_array_equal(own, np.where(np.isin(OBJECTS[:, ::-1], list(classes)), OBJECTS[:, ::-1], 0))


def test_a_class_that_there_is_none_of_cannot_be_pasted():
    config = configured(augment__copy_paste=0.5, augment__copy_paste_classes=(1, 3))
    with pytest.raises(ConfigError, match="copy_paste_classes has 3, and the classes are numbered from 0 to 2"):
        build.build_parts(config, 3)


def configured(**changes):
    config = default_config()
    net = {"model__name": "cnn", "model__args": {"widths": (4,), "dropout": 0.0, "norm": "none"}}
    update(config, **{**net, "data__size": (16, 16), **changes})
    return config


@pytest.fixture(scope="module")
def step_of(batch):
    """Returns the rows of the confusion matrix and the norm of the gradient of one step, mixed by what a name says."""
    given = {"image": (batch["image"][..., [0, 1, 1]] * 20).astype(np.uint8), "label": batch["label"].astype(np.uint8)}
    given = {key: np.concatenate([value, value[:2]]) for key, value in given.items()}

    @functools.cache
    def run(name, accumulate):
        changes = {f"augment__{name}": 1.0} if name else {}
        parts = build.build_parts(configured(**changes, batch_size=8, accumulate=accumulate), 7)
        step = jax.jit(parts.train_step(), compiler_options=FAST_COMPILE)
        _, metrics = step(parts.init(jax.random.key(0)), given, jax.random.key(1))
        return np.asarray(metrics["confusion"]).sum(1), float(metrics["grad_norm"])

    return run


@pytest.mark.parametrize("name", ["cutmix", "classmix", "copy_paste", "mixup"])
def test_a_run_mixes_its_images(step_of, name):
    """A step sees mixed labels, and micro-batches see those of the whole batch."""
    (plain, plain_norm), (counts, norm), (again, again_norm) = step_of("", 1), step_of(name, 1), step_of(name, 2)
    # MixUp counts the label with the larger share, which is the image's own.
    assert (np.abs(counts - plain).sum() > 0) == (name != "mixup")
    assert abs(norm / plain_norm - 1) > 1e-3
    np.testing.assert_array_equal(again, counts)
    np.testing.assert_allclose(again_norm, norm, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"augment__cutmix": 0.7, "augment__classmix": 0.4}, "their sum must be at most 1"),
        ({"augment__cutmix": 0.5, "batch_size": 6, "accumulate": 3, "semi__method": ""}, None),
        ({"augment__cutmix": 0.5, "batch_size": 5}, "augment.cutmix needs pairs of images: batch_size=5"),
        (
            {"augment__cutmix": 0.5, "augment__copy_paste": 0.3, "augment__mixup": 0.3},
            "augment.cutmix=0.5, augment.copy_paste=0.3 and augment.mixup=0.3 are the probabilities",
        ),
        ({"augment__mixup": 0.5, "adversarial__weight": 0.1}, "augment.mixup gives an image two label maps"),
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


def test_the_keys_say_how_images_are_mixed():
    """What is pasted, of which classes, how large and mirrored or not; and the shares of MixUp."""
    batch = pairs_of_objects(32)
    batch["image"] = np.repeat(np.where(batch["image"] < 0, 0, 255).astype(np.uint8), 3, -1)
    found = {}
    settings = {
        "classes": {"copy_paste_of": "classes", "copy_paste_classes": (2, 3)},
        "larger": {"copy_paste_scale": (2.0, 2.0)},
        "never": {"copy_paste_flip": 0.0},
        "always": {"copy_paste_flip": 1.0},
    }
    for name, changes in settings.items():
        keys = {"flip_horizontal": 0.0, "copy_paste": 1.0, **changes}
        config = configured(**{f"augment__{key}": value for key, value in keys.items()})
        teach = build.make_teach(config, None, build.make_loss(config, 4))
        found[name] = np.asarray(jax.jit(teach, compiler_options=FAST_COMPILE)(batch, None)[1])[::2]
    assert {tuple(set(np.unique(each)) - {0}) for each in found["classes"]} == {(2,), (3,)}
    assert len({len(set(np.unique(each)) - {0}) for each in found["never"]}) > 2
    place = np.where(found["never"] > 0, OBJECTS, 0)
    np.testing.assert_array_equal(found["never"], place)
    np.testing.assert_array_equal(found["always"], place[:, :, ::-1])
    assert set(np.unique(found["larger"])) <= {0, 1, 2, 3}
    sizes = [[max(np.bincount(each[each > 0], minlength=4)) for each in found[name]] for name in ("larger", "never")]
    assert max(sizes[0]) > max(sizes[1])
    config = configured(augment__mixup=1.0, augment__mixup_alpha=30.0)
    teach = build.make_teach(config, None, build.make_loss(config, 4))
    assert jax.jit(teach, compiler_options=FAST_COMPILE)(batch, None)[2].share.max() < 0.8  # .2: most above .8

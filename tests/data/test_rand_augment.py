"""RandAugment: as many operations as asked for, of the magnitude asked for, and the label moves with the image."""

import functools

import jax
import numpy as np
import pytest
from helpers.parity import FAST_COMPILE

from jaxseg.data import rand_augment
from jaxseg.data.augment import make_augment
from jaxseg.data.geometry import rotation_matrix, shear_matrix, warp_image, warp_label
from jaxseg.data.rand_augment import OPERATIONS, rand_colors, rand_matrix
from jaxseg.errors import ArgumentError
from jaxseg.types import IGNORE

KEYS = jax.random.split(jax.random.key(0), 64)


@pytest.fixture(scope="module")
def example():
    """A smooth image whose first channel is its label, in blocks."""
    label = (np.arange(24)[:, None] // 8 * 3 + np.arange(24)[None] // 8).astype(np.int32)
    rng = np.random.default_rng(0)
    image = np.stack([label / 9, *rng.random((2, 3, 3)).repeat(8, 1).repeat(8, 2)], -1).astype(np.float32)
    return image, label


@functools.cache
def program(count, rand_magnitude):
    return jax.jit(
        jax.vmap(make_augment(rand_operations=count, rand_magnitude=rand_magnitude), (0, None, None)),
        compiler_options=FAST_COMPILE,
    )


def test_nothing_changes_at_magnitude_0_and_much_at_10(example):
    image, label = example
    moved, moved_label = program(14, rand_magnitude=0.0)(KEYS, image, label)
    np.testing.assert_array_equal(moved_label, np.broadcast_to(label, moved_label.shape))
    np.testing.assert_array_equal(moved, np.broadcast_to(image, moved.shape))
    changed, _ = program(14, rand_magnitude=10.0)(KEYS, image, label)
    assert np.abs(np.asarray(changed) - image).mean((1, 2, 3)).min() > 0.1


def test_each_image_has_as_many_operations_as_asked_for_and_each_as_often():
    drawn = jax.jit(lambda keys: jax.vmap(lambda key: rand_augment._drawn(key, 3, 5.0))(keys))
    on, signed, _ = drawn(jax.random.split(jax.random.key(1), 2000))
    chosen = np.stack([np.asarray(on[name]) for name in OPERATIONS])
    assert (chosen.sum(0) == 3).all()
    assert np.abs(chosen.mean(1) - 3 / 14).max() < 0.04
    for each in signed.values():
        assert set(np.unique(each)) == {np.float32(-0.5), np.float32(0.5)} and abs(np.mean(each)) < 0.05


def test_the_label_moves_with_the_image_and_colours_move_nothing(example):
    image, label = example
    moved, moved_label = program(14, rand_magnitude=10.0)(KEYS, image, label)

    def by_hand(key):
        key = jax.random.fold_in(key, 13)
        matrix = rand_matrix(key, label.shape, 14, 10.0)
        image_here = warp_image(image, matrix, projective=True)
        return rand_colors(key, image_here, 14, 10.0), warp_label(label, matrix, projective=True)

    expected, expected_label = jax.jit(jax.vmap(by_hand), compiler_options=FAST_COMPILE)(KEYS)
    np.testing.assert_array_equal(moved_label, expected_label)
    assert (np.asarray(moved_label) == IGNORE).any((1, 2)).mean() > 0.9
    # JPEG rounds to whole numbers, on either side of a half.
    assert np.mean(np.abs(moved - expected) > 1e-3) < 0.01


def test_a_single_operation_is_that_of_the_house(example):
    """Of many keys, those that draw one operation alone change the image as that operation does."""
    on, signed, _ = jax.vmap(lambda key: rand_augment._drawn(key, 1, 10.0))(KEYS)
    matrices = np.asarray(jax.jit(jax.vmap(lambda key: rand_matrix(key, (24, 24), 1, 10.0)))(KEYS))
    for name, whole in (("rotate", rotation_matrix), ("shear", shear_matrix)):
        for place in np.flatnonzero(on[name]):
            sign = np.sign(signed[name][place])
            np.testing.assert_allclose(matrices[place], whole(sign * OPERATIONS[name], (24, 24)), atol=1e-6)
    moving = np.any([on[name] for name in ("zoom", "shear", "rotate", "perspective")], axis=0)
    np.testing.assert_array_equal(matrices[~moving], np.broadcast_to(np.eye(3), matrices[~moving].shape))
    assert 0 < moving.sum() < len(KEYS)


def test_what_is_no_count_or_magnitude_is_refused():
    for wrong, expected in (
        ({"rand_operations": 15}, "rand_operations must be a whole number in"),
        ({"rand_magnitude": 11.0}, "rand_magnitude must be a number in"),
    ):
        with pytest.raises(ArgumentError, match=expected):
            make_augment(**wrong)

"""Augmentation: image and mask move alike, exactly where that can be, the same plain, jitted, vmapped and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from jaxseg.config import default_config
from jaxseg.data import augment as ops
from jaxseg.data import geometry
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.types import IGNORE

CHANNELS = (1, 3, 4)
EVERYTHING = dict(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    zoom=(0.6, 1.7),
    shear=0.2,
    rotate=30.0,
    crop=(12, 10),
    crop_max_share=0.5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
)
SINGLE = {
    "flip": lambda key, image, label: ops.random_flip(key, image, label, 1),
    "zoom": lambda key, image, label: ops.random_zoom(key, image, label, 0.5, 2.0),
    "shear": lambda key, image, label: ops.random_shear(key, image, label, 0.4),
    "rotate": lambda key, image, label: ops.random_rotate(key, image, label, 60.0),
    "crop": lambda key, image, label: ops.random_crop(key, image, label, (9, 7), 0.4),
    "brightness": lambda key, image, label: ops.random_brightness(key, image, label, 0.5),
    "contrast": lambda key, image, label: ops.random_contrast(key, image, label, 0.5),
    "saturation": lambda key, image, label: ops.random_saturation(key, image, label, 0.5),
    "all": ops.make_augment(**EVERYTHING),
}


def example(seed=0, h=17, w=14, c=3, classes=5):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (h, w)).astype(np.int32)
    return rng.random((h, w, c), np.float32), label


def blocks(h=24, w=20, classes=4):
    """A label of large regions and the image that holds it one-hot."""
    label = (np.arange(h)[:, None] // 7 + np.arange(w)[None, :] // 6).astype(np.int32) % classes
    return np.eye(classes, dtype=np.float32)[label], label


def random_matrix(seed, size):
    """A matrix of every kind of step, and its float64 twin for the reference."""
    rng = np.random.default_rng(seed)
    matrix = (
        np.asarray(geometry.flip_matrix(seed % 2 == 0, 1, size), np.float64)
        @ np.asarray(geometry.zoom_matrix(rng.uniform(0.5, 2), rng.uniform(0, size[0]), rng.uniform(0, size[1])))
        @ np.asarray(geometry.shear_matrix(rng.uniform(-0.3, 0.3), size))
        @ np.asarray(geometry.rotation_matrix(rng.uniform(-180, 180), size))
    )
    return matrix.astype(np.float32)


def test_to_float_and_normalize():
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        raw = np.array([[0, 1, top // 2, top]], dtype)
        got = np.asarray(ops.to_float(raw))
        np.testing.assert_allclose(got, raw.astype(np.float64) / top, rtol=2e-7)
        assert got.dtype == np.float32 and got[0, 0] == 0.0 and got[0, -1] == 1.0
    image = example()[0]
    np.testing.assert_array_equal(ops.to_float(image), image)
    with pytest.raises(ValueError, match="int32"):
        ops.to_float(np.zeros((2, 2, 3), np.int32))
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    expected = (image.astype(np.float64) - mean) / std
    np.testing.assert_allclose(ops.normalize(image, mean, std), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ops.normalize(image[None], (0.5,), (0.2,)), (image[None] - 0.5) / 0.2, rtol=1e-5)
    with pytest.raises(ValueError, match="mean has 2 numbers"):
        ops.normalize(image, (0.1, 0.2), std)


@pytest.mark.parametrize("axis", [0, 1])
def test_flip_twice_is_the_identity(axis):
    image, label = example()
    once = ops.flip(image, label, axis)
    np.testing.assert_array_equal(once[0], np.flip(image, axis))
    np.testing.assert_array_equal(once[1], np.flip(label, axis))
    for got, given in zip(ops.flip(*once, axis), (image, label)):
        np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize("axis", [0, 1])
def test_flip_as_a_matrix_is_the_flip(axis):
    image, label = example()
    for flipped, expected in ((True, (np.flip(image, axis), np.flip(label, axis))), (False, (image, label))):
        got = geometry.warp(image, label, geometry.flip_matrix(flipped, axis, label.shape))
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("size", [(17, 14), (1, 1), (1, 9), (8, 1)])
def test_identity_changes_no_bit(c, size):
    image, label = example(c=c, h=size[0], w=size[1])
    for matrix in (
        np.eye(3, dtype=np.float32),
        geometry.rotation_matrix(0.0, size),
        geometry.shear_matrix(0.0, size),
        geometry.zoom_matrix(1.0, 3.3, 5.7),
    ):
        for move in (geometry.warp, jax.jit(geometry.warp)):
            moved, moved_label = move(image, label, matrix)
            np.testing.assert_array_equal(moved, image)
            np.testing.assert_array_equal(moved_label, label)


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_are_rot90(quarters):
    image, label = example(h=15, w=15)
    moved, moved_label = geometry.warp(image, label, geometry.rotation_matrix(90.0 * quarters, label.shape))
    np.testing.assert_array_equal(moved_label, np.rot90(label, quarters))
    np.testing.assert_allclose(moved, np.rot90(image, quarters), atol=1e-5)
    if quarters != 2:
        np.testing.assert_array_equal(moved, np.rot90(image, quarters))


def test_a_half_turn_is_both_flips():
    image, label = example()
    moved, moved_label = geometry.warp(image, label, geometry.rotation_matrix(180.0, label.shape))
    np.testing.assert_array_equal(moved_label, label[::-1, ::-1])
    np.testing.assert_allclose(moved, image[::-1, ::-1], atol=1e-5)


def test_zoom_magnifies_about_its_point_and_shear_pushes_rows():
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 4] = 1.0
    label = np.zeros((9, 9), np.int32)
    doubled, _ = geometry.warp(image, label, geometry.zoom_matrix(2.0, 4.0, 4.0))
    np.testing.assert_allclose(doubled[3:6, 4, 0], [0.5, 1.0, 0.5])
    image[6, 4] = 1.0
    sheared, _ = geometry.warp(image, label, geometry.shear_matrix(1.0, (9, 9)))
    assert sheared[4, 4, 0] == 1.0 and sheared[6, 2, 0] == 1.0 and sheared.sum() == 2.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("c", CHANNELS)
def test_warp_is_scipys_affine_transform(seed, c):
    image, label = example(seed, h=23, w=31, c=c)
    matrix = random_matrix(seed, label.shape)
    moved, moved_label = jax.jit(geometry.warp)(image, label, matrix)
    precise = matrix.astype(np.float64)
    expected = np.stack(
        [
            ndimage.affine_transform(image[:, :, i].astype(np.float64), precise, order=1, mode="nearest")
            for i in range(c)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(moved, expected, atol=5e-5)
    # Nearest by hand, where float32 leaves no doubt on which side of an edge the source lies.
    grid = np.stack([*np.mgrid[: label.shape[0], : label.shape[1]], np.ones(label.shape)])
    source = np.tensordot(precise, grid, 1)[:2]
    nearest = np.floor(source + 0.5).astype(int)
    inside = ((nearest >= 0) & (nearest < np.reshape(label.shape, (2, 1, 1)))).all(axis=0)
    clipped = np.clip(nearest, 0, np.reshape(label.shape, (2, 1, 1)) - 1)
    doubtful = (np.abs(source + 0.5 - np.round(source + 0.5)) < 1e-4).any(axis=0)
    reference = np.where(inside, label[clipped[0], clipped[1]], IGNORE)
    np.testing.assert_array_equal(np.where(doubtful, reference, moved_label), reference)
    assert doubtful.mean() < 0.01


@pytest.mark.parametrize("name", ["flip", "zoom", "shear", "rotate", "crop"])
def test_image_and_mask_move_alike(name, key):
    image, label = blocks()
    seen, operation = set(), jax.jit(SINGLE[name])
    for one in jax.random.split(key, 8):
        moved, moved_label = map(np.asarray, operation(one, image, label))
        inside = moved_label != IGNORE
        rows, columns = np.nonzero(inside)
        share = moved[rows, columns, moved_label[inside]]
        assert share.min() >= 0.25 - 1e-4  # the nearest pixel has the largest bilinear weight
        pure = moved.max(axis=-1) > 0.999
        np.testing.assert_array_equal(moved.argmax(axis=-1)[pure & inside], moved_label[pure & inside])
        assert set(np.unique(moved_label)) <= {*range(4), IGNORE}
        seen.add(moved_label.tobytes())
    assert len(seen) > 1


def test_all_steps_together_move_image_and_mask_alike(key):
    image, label = blocks(32, 28)
    augment = ops.make_augment(
        flip_horizontal=0.5,
        flip_vertical=0.5,
        zoom=(0.6, 1.7),
        shear=0.2,
        rotate=40.0,
        crop=(20, 18),
        crop_max_share=0.6,
    )
    moved, moved_label = map(
        np.asarray, jax.jit(jax.vmap(augment, (0, None, None)))(jax.random.split(key, 16), image, label)
    )
    inside = moved_label != IGNORE
    assert moved.shape == (16, 20, 18, 4) and 0.5 < inside.mean() < 1.0
    assert np.take_along_axis(moved, np.where(inside, moved_label, 0)[..., None], -1)[..., 0][inside].min() > 0.2499
    assert set(np.unique(moved_label)) <= {*range(4), IGNORE}


def test_outside_is_ignored_in_the_mask_and_edge_in_the_image():
    image, label = example(h=12, w=12)
    moved, moved_label = geometry.warp(image, label, geometry.zoom_matrix(0.5, -0.5, -0.5))
    assert (np.asarray(moved_label)[6:] == IGNORE).all() and (np.asarray(moved_label)[:, 6:] == IGNORE).all()
    assert (np.asarray(moved_label)[:6, :6] != IGNORE).all()
    np.testing.assert_array_equal(moved[11, 11], image[11, 11])
    small = geometry.warp(image, label.astype(np.uint8), geometry.rotation_matrix(45.0, (12, 12)))[1]
    assert small.dtype == jnp.uint8 and small[0, 0] == IGNORE


def test_zoom_in_never_leaves_the_image_and_zoom_out_keeps_it_whole(key):
    image, label = example(h=16, w=16)
    zoom = jax.jit(jax.vmap(lambda k, low, high: ops.random_zoom(k, image, label, low, high)[1], (0, None, None)))
    keys = jax.random.split(key, 40)
    assert (np.asarray(zoom(keys, 1.2, 3.0)) != IGNORE).all()
    assert ((np.asarray(zoom(keys, 0.5, 0.5)) != IGNORE).sum(axis=(1, 2)) == 64).all()


# The number of channels decides what contrast and saturation compute; the other steps take each channel by itself.
FORMS = [(name, c) for name in SINGLE for c in CHANNELS]
ALIKE = [(name, c) for name, c in FORMS if c != 3 and name not in ("contrast", "saturation")]


@pytest.mark.parametrize(("name", "c"), [pytest.param(*f, marks=[pytest.mark.slow] * (f in ALIKE)) for f in FORMS])
def test_plain_jit_and_vmap_agree_and_the_key_decides(name, c, key):
    image, label = example(c=c)
    operation, keys = SINGLE[name], jax.random.split(key, 3)
    jitted = jax.jit(operation)
    batch = jax.jit(jax.vmap(operation, (0, None, None)))(keys, image, label)
    alone = [jitted(one, image, label) for one in keys]
    for got, expected in zip(alone[0], operation(keys[0], image, label)):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=1e-5)
    for number, (one, (moved, moved_label)) in enumerate(zip(keys, alone)):
        np.testing.assert_allclose(moved, batch[0][number], atol=1e-5)
        np.testing.assert_array_equal(moved_label, batch[1][number])
        for got, expected in zip(jitted(one, image, label), (moved, moved_label)):
            np.testing.assert_array_equal(got, expected)
        assert moved.shape[2] == c and moved.shape[:2] == moved_label.shape
        assert np.min(moved) >= 0.0 and np.max(moved) <= 1.0 + 1e-6
    assert len({np.asarray(moved).tobytes() for moved, _ in alone}) > 1 or (name, c) == ("saturation", 1)


def test_sharded_over_devices_needs_no_communication(key):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    image = np.stack([example(seed)[0] for seed in range(8)])
    label = np.stack([example(seed)[1] for seed in range(8)])
    keys = jax.random.split(key, 8)
    augment = jax.jit(jax.vmap(ops.make_augment(**EVERYTHING)))
    expected = augment(keys, image, label)
    given = jax.device_put((keys, image, label), sharding)
    text = augment.lower(*given).compile().as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
    got = augment(*given)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(got[1], expected[1])


def test_crop_is_a_window_and_reaches_every_place(key):
    label = np.arange(6 * 5).reshape(6, 5).astype(np.int32)
    image = np.stack([label / 30.0] * 3, axis=-1).astype(np.float32)
    corners = set()
    for one in jax.random.split(key, 120):
        window, window_label = map(np.asarray, ops.random_crop(one, image, label, (4, 3)))
        row, column = divmod(int(window_label[0, 0]), 5)
        np.testing.assert_array_equal(window_label, label[row : row + 4, column : column + 3])
        np.testing.assert_array_equal(window, image[row : row + 4, column : column + 3])
        corners.add((row, column))
    assert corners == {(r, c) for r in range(3) for c in range(3)}
    with pytest.raises(ValueError, match=r"\(7, 3\) does not fit"):
        ops.random_crop(key, image, label, (7, 3))


def share_of(label):
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=1)
    return counts.max() / counts.sum() if counts.sum() else 1.0


def test_crop_honours_the_cap(key):
    rng = np.random.default_rng(0)
    label = np.zeros((40, 40), np.uint8)
    label[:, 20:] = rng.integers(1, 4, (40, 20))
    label[rng.random((40, 40)) < 0.2] = IGNORE
    image = np.zeros((40, 40, 3), np.float32)
    keys = jax.random.split(key, 64)
    crop = jax.jit(
        jax.vmap(lambda k, cap: ops.random_crop(k, image, label, (16, 16), cap)[1], (0, None)), static_argnums=1
    )
    free = [share_of(window) for window in np.asarray(crop(keys, 1.0))]
    capped = [share_of(window) for window in np.asarray(crop(keys, 0.6))]
    assert max(free) == 1.0 and np.mean(np.array(free) > 0.6) > 0.3
    assert max(capped) <= 0.6
    for one, unbound in zip(keys, np.asarray(crop(keys, 1.0))):
        if share_of(unbound) <= 0.6:  # a first window that fits is the one taken
            np.testing.assert_array_equal(ops.random_crop(one, image, label, (16, 16), 0.6)[1], unbound)


def test_crop_that_cannot_honour_the_cap_takes_the_lowest_share(key):
    label = np.zeros((12, 12), np.int32)
    label[:, 9:] = 1
    image = np.zeros((12, 12, 1), np.float32)
    for one in jax.random.split(key, 10):
        origins = (7 * np.asarray(jax.random.uniform(one, (10, 2)))).astype(int)
        shares = [share_of(label[r : r + 6, c : c + 6]) for r, c in origins]
        assert share_of(np.asarray(ops.random_crop(one, image, label, (6, 6), 0.1)[1])) == min(shares)
    ignored = np.full((12, 12), IGNORE, np.int32)
    assert (ops.random_crop(key, image, ignored, (6, 6), 0.5)[1] == IGNORE).all()


def test_crop_after_a_warp_is_the_window_of_the_whole_warp(key):
    image, label = example(h=24, w=24)
    settings = dict(flip_horizontal=0.5, zoom=(0.7, 1.5), rotate=25.0, shear=0.1)
    whole, whole_label = map(np.asarray, ops.make_augment(**settings)(key, image, label))
    part, part_label = map(
        np.asarray, ops.make_augment(**settings, crop=(10, 11), crop_max_share=0.9)(key, image, label)
    )
    hits = [
        (r, c)
        for r in range(15)
        for c in range(14)
        if np.array_equal(whole_label[r : r + 10, c : c + 11], part_label)
        and np.allclose(whole[r : r + 10, c : c + 11], part, atol=1e-6)
    ]
    assert len(hits) == 1


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.9])
def test_colour_against_float64(c, factor):
    image = example(c=c)[0]
    colors, alpha = image.astype(np.float64)[:, :, :3], image[:, :, 3:]
    luma = (colors @ [0.299, 0.587, 0.114])[:, :, None] if c > 1 else colors
    expected = {
        ops.adjust_brightness: colors * factor,
        ops.adjust_contrast: colors.mean() + (colors - colors.mean()) * factor,
        ops.adjust_saturation: luma + (colors - luma) * factor,
    }
    for operation, reference in expected.items():
        got = np.asarray(jax.jit(operation)(image, factor))
        np.testing.assert_allclose(got[:, :, :3], np.clip(reference, 0, 1), atol=2e-6)
        np.testing.assert_array_equal(got[:, :, 3:], alpha)
        assert got.dtype == np.float32
    with pytest.raises(ValueError, match="2 channels"):
        ops.adjust_saturation(image[:, :, :1].repeat(2, axis=2), factor)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_leaves_the_mask_and_stays_in_its_range(name, key):
    image, label = example()
    adjust = getattr(ops, f"adjust_{name}")
    for one in jax.random.split(key, 10):
        moved, same = getattr(ops, f"random_{name}")(one, image, label, 0.4)
        np.testing.assert_array_equal(same, label)
        factor = 1.0 + 0.4 * (2.0 * jax.random.uniform(one) - 1.0)
        assert 0.6 <= factor <= 1.4
        np.testing.assert_allclose(moved, adjust(image, factor), atol=1e-6)


def test_turning_a_step_on_leaves_the_draws_of_the_others(key):
    image, label = example(h=16, w=16)
    alone = ops.make_augment(rotate=30.0)(key, image, label)
    with_color = ops.make_augment(rotate=30.0, brightness=0.3)(key, image, label)
    np.testing.assert_array_equal(alone[1], with_color[1])
    factors = np.asarray(with_color[0])[np.asarray(with_color[0]) < 1.0] / np.asarray(alone[0])[with_color[0] < 1.0]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-5)


def test_nothing_on_is_the_identity_and_nothing_is_interpolated_without_need(key):
    image, label = example()
    for got, given in zip(ops.make_augment()(key, image, label), (image, label)):
        np.testing.assert_array_equal(got, given)
    flips = ops.make_augment(flip_horizontal=0.5, flip_vertical=0.5, crop=(8, 8))
    text = str(jax.make_jaxpr(flips)(key, image, label))
    assert "gather" not in text and "floor" not in text
    always = ops.make_augment(flip_horizontal=1.0, flip_vertical=1.0)(key, image, label)
    np.testing.assert_array_equal(always[0], image[::-1, ::-1])
    np.testing.assert_array_equal(always[1], label[::-1, ::-1])


def test_from_config_takes_the_section(key):
    config = default_config()
    config.augment.flip_horizontal = 1.0
    image, label = example()
    moved, moved_label = ops.from_config(config.augment)(key, image, label)
    np.testing.assert_array_equal(moved, image[:, ::-1])
    np.testing.assert_array_equal(moved_label, label[:, ::-1])


@pytest.mark.parametrize(
    "wrong",
    [
        dict(zoom=(0.0, 1.0)),
        dict(zoom=(2.0, 1.0)),
        dict(zoom=(1.0,)),
        dict(shear=-0.1),
        dict(rotate=-1.0),
        dict(flip_horizontal=1.5),
        dict(brightness=-0.1),
        dict(contrast=2.0),
        dict(crop=(8,)),
        dict(crop=(0, 8)),
        dict(crop_max_share=-1.0),
        dict(rotate=float("nan")),
    ],
)
def test_values_that_cannot_be_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ArgumentError, match=f"^{name} must be"):
        ops.make_augment(**wrong)
    with pytest.raises(ConfigError, match=rf"^augment\.{name} must be"):
        ops.from_config(wrong)


def test_shapes_that_disagree_are_named(key):
    image, label = example()
    for operation in (SINGLE["flip"], SINGLE["rotate"], SINGLE["crop"], SINGLE["all"]):
        with pytest.raises(ValueError, match="of one size"):
            operation(key, image, label[1:])

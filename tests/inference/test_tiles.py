"""Tiles: where they lie, how they are blended, and that a tiled prediction is that of the whole image."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config

from jaxseg.errors import ArgumentError, OutOfMemoryError
from jaxseg.inference import load, tiles
from jaxseg.inference.predictor import make_predictor
from jaxseg.inference.tiles import ArrayRaster, blend, make_grid, parse_tiles, strips, weights


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {fit: load(make_run(root / fit, tiny_config(data__fit=fit))) for fit in ("resize", "crop")}


def picture(h, w, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (h // 5 + 1, w // 5 + 1, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:h, :w]


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "multiple", "expected"),
    [
        ((10, 8), (4, 4), 0.5, 1, ((0, 2, 4, 6), (0, 2, 4))),
        ((11, 9), (4, 4), 0.5, 1, ((0, 2, 4, 6, 7), (0, 2, 4, 5))),  # the last ends with the image
        ((11, 9), (4, 6), 0.5, 4, ((0, 4, 8), (0, 4))),  # at multiples of 4, in an image of 12x12, tiles of 4x8
        ((3, 20), (8, 8), 0.0, 1, ((0,), (0, 8, 12))),  # no larger than the image
        ((9, 9), (4, 4), 0.99, 1, (tuple(range(6)), tuple(range(6)))),
    ],
)
def test_tiles_lie_at_multiples_of_the_stride_and_end_with_the_image(size, tile, overlap, multiple, expected):
    grid = make_grid(size, tile, overlap, multiple)
    assert (grid.tops, grid.lefts) == expected and len(grid) == len(expected[0]) * len(expected[1])
    assert all(reach >= side for reach, side in zip(grid.extended, size))


def test_weights_add_to_one_and_fall_as_a_gaussian():
    every = weights((0, 3, 6), 6, "gaussian")
    total = np.zeros(12)
    for row, start in zip(every, (0, 3, 6)):
        total[start : start + 6] += row
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (every > 0).all()
    a, b = (np.exp(-0.5 * ((place - 2.5) / (6 / 8)) ** 2) for place in (3, 0))  # pixel 3 of the first, 0 of the second
    np.testing.assert_allclose([every[0, 3], every[1, 0]], [a / (a + b), b / (a + b)], rtol=1e-5)


def test_nearest_takes_each_pixel_from_one_tile():
    every = weights((0, 3), 6, "nearest")
    np.testing.assert_array_equal(every, [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]])


def toy(images):
    """A network whose answer depends on the whole tile, so that it matters which tiles are averaged and how."""
    images = jnp.asarray(images, jnp.float32)
    return jnp.concatenate([images, images.mean(axis=(1, 2), keepdims=True) + 0 * images], axis=-1)[..., :5]


def reference(image, grid):
    """Blends with float64 sums over tiles, each divided by the sum of its weights, as the literature writes it."""
    y, x = grid.tile
    high, wide = grid.extended
    image = np.pad(image, ((0, high - image.shape[0]), (0, wide - image.shape[1]), (0, 0)), mode="edge").astype(float)
    gauss = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in grid.tile]
    mask = gauss[0][:, None, None] * gauss[1][None, :, None]
    total, weight = np.zeros((high, wide, 5)), np.zeros((high, wide, 1))
    for top in grid.tops:
        for left in grid.lefts:
            part = image[top : top + y, left : left + x]
            scores = np.concatenate([part, part.mean(axis=(0, 1), keepdims=True) + 0 * part], axis=-1)[..., :5]
            total[top : top + y, left : left + x] += scores * mask
            weight[top : top + y, left : left + x] += mask
    return (total / weight)[: grid.size[0], : grid.size[1]]


def assembled(image, grid, **options):
    found = np.full((*grid.size, 5), np.nan)
    for block in blend(ArrayRaster(image), toy, grid, **options):
        h, w = block.scores.shape[:2]
        place = found[block.top : block.top + h, block.left : block.left + w]
        assert np.isnan(place).all(), "each pixel comes once"
        place[:] = block.scores
    return found


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-3),
        ({"batch": 3}, 1e-3),
        ({"most_columns": 9, "batch": 2}, 1e-3),
        ({"dtype": "float16"}, 0.5),  # of values up to 255, whose spacing there is an eighth
    ],
)
def test_blending_is_the_weighted_mean_over_tiles(options, tolerance):
    image = picture(23, 30)
    grid = make_grid(image.shape[:2], (8, 12), 0.6, 2)
    np.testing.assert_allclose(assembled(image, grid, **options), reference(image, grid), atol=tolerance)


@pytest.mark.parametrize("columns", [None, 11])
def test_blending_continues_where_an_earlier_call_ended(columns):
    image = picture(40, 30)
    grid = make_grid(image.shape[:2], (8, 12), 0.5)
    whole = list(blend(ArrayRaster(image), toy, grid, most_columns=columns))
    for done in (1, 4, len(grid.tops), len(whole) - 1, len(whole)):
        counted = []
        rest = blend(ArrayRaster(image), toy, grid, most_columns=columns, done=done, progress=counted.append)
        for got, expected in zip(rest, whole[done:], strict=True):
            assert got[:3] == expected[:3]
            np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
        if columns is None:
            assert sum(counted) == len(grid)


def test_strips_cover_the_image_and_are_no_wider_than_allowed():
    grid = make_grid((8, 100), (8, 10))
    assert strips(grid, 100) == [(0, 100)]
    assert strips(grid, 30) == [(0, 25), (25, 50), (50, 75), (75, 100)]


def test_a_tiled_prediction_is_that_of_the_whole_image(runs):
    run, image = runs["crop"], picture(70, 96)
    whole = run.predict(image, probabilities=True, tiles=None)
    # The network sees 12 pixels to each side; with half of 48 in common, a pixel is 12 or more from the nearest border.
    predictor = make_predictor([run], tiles=(48, 48), blending="nearest")
    tiled = predictor(image, probabilities=True)
    inside = np.s_[:56, :80]
    np.testing.assert_allclose(tiled.probabilities[inside], whole.probabilities[inside], atol=1e-5)
    np.testing.assert_array_equal(tiled.classes, tiled.probabilities.argmax(-1))
    blended = run.predict(image, probabilities=True, tiles=48)
    assert np.abs(blended.probabilities[inside] - whole.probabilities[inside]).mean() < 1e-3


def test_a_float16_sum_gives_nearly_the_same(runs):
    image = picture(40, 50)
    single = make_predictor([runs["crop"]], tiles=32)(image, True)
    half = make_predictor([runs["crop"]], tiles=32, dtype="float16")(image, True)
    np.testing.assert_allclose(half.probabilities, single.probabilities, atol=0.02)
    assert not np.array_equal(half.probabilities, single.probabilities)


def test_auto_tiles_where_memory_does_not_hold_the_image(runs):
    image = picture(300, 200)
    roomy = make_predictor([runs["crop"]], tiles="auto", memory=10**9)
    assert roomy.grid_for(image) is None
    tight = make_predictor([runs["crop"]], tiles="auto", memory=3_000_000)
    grid = tight.grid_for(image)
    assert grid is not None and max(grid.tile) <= 256 and len(grid) > 1
    assert len(strips(grid, tight.columns(ArrayRaster(image), grid))) >= 1
    with pytest.raises(OutOfMemoryError, match=r"300x200 pixels.*resized to 16x16.*--tiles 16x16"):
        make_predictor([runs["resize"]], tiles="auto", memory=100_000)(image)


def test_a_network_trained_on_resized_images_sees_tiles_at_their_own_scale(runs):
    image = picture(32, 32)
    tiled = make_predictor([runs["resize"]], tiles=16, overlap=0.0)(image)
    expected = runs["resize"].predict(np.ascontiguousarray(image[:16, 16:]), tiles=None)
    np.testing.assert_array_equal(tiled.classes[:16, 16:], expected.classes)


def test_wrong_tiles_are_sentences(runs):
    image = picture(20, 20)
    for value in ("8y8", "0x4", "4x4x4", (8,) * 3, True, -3):
        with pytest.raises(ArgumentError, match="tiles must be auto, or the height and width"):
            parse_tiles(value)
    assert parse_tiles("12x8") == (12, 8) and parse_tiles(9) == (9, 9) and parse_tiles("none") is None
    for overlap in (1.0, 1.5, -0.1):
        with pytest.raises(ArgumentError, match="overlap must be at least 0 and below 1"):
            runs["crop"].predict(image, tiles=16, overlap=overlap)
    with pytest.raises(ArgumentError, match="A tile of 1x16 is smaller than the stride of the network, 2 pixels"):
        runs["crop"].predict(image, tiles=(1, 16))
    assert tiles.make_grid((5, 5), (9, 9)).tile == (5, 5)

"""Regions and their classes in benchmarks/: on examples small enough to be done by hand."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data import ShapesSource
from jaxseg.errors import DataError
from jaxseg.types import IGNORE

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

# Four regions of four pixels, and labels of three classes: region 1 is a tie of 0 and 2, region 3 has no label.
REGIONS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
LABELS = np.array([[1, 1, 2, 0], [1, 0, 0, 2], [2, 255, 255, 255], [255, 255, 255, 255]], np.uint8)


@pytest.fixture
def regions(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("lib.regions")


@pytest.fixture
def classical(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("classical")


def pieces(labels: np.ndarray) -> int:
    """The number of 4-connected pieces of all regions together."""
    return sum(ndimage.label(labels == region)[1] for region in np.unique(labels))


def test_the_oracle_gives_each_region_its_commonest_label(regions):
    found = regions.majority(REGIONS, LABELS, 3)
    assert found.tolist() == [1, 0, 2, IGNORE] and found.dtype == np.uint8
    assert found[REGIONS].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [2, 2, 255, 255], [2, 2, 255, 255]]


def test_neighbours_vote_by_features_measured_in_their_spread(regions):
    # Unscaled, (10, 1500) would be nearest to what is asked; the void one, which equals it, is left out.
    features = np.array([[0, 3000], [10, 1500], [0, 10000], [10, 10000], [0, 1500]], np.float32)
    classes, asked = np.array([2, 0, 1, 1, IGNORE], np.uint8), np.array([[0, 1500]], np.float32)
    voters = [regions.Neighbours.fit(features, classes, 3, k) for k in (1, 3, 4, 9)]
    # One says 2; three say 2, 0 and 1, and the first of equals counts; four say 2, 0, 1, 1; there are no more.
    assert [voter(asked).tolist() for voter in voters] == [[2], [0], [1], [1]]
    assert voters[-1].k == 4 and voters[0](asked).dtype == np.uint8


def test_tidy_cuts_labels_into_connected_pieces_and_floods_the_small_ones(regions):
    labels = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 2, 1, 0], [0, 0, 1, 0]])
    slope = np.array([[0.0, 0.0, 1.0, 0.0]] * 4)
    # The label 0 lies on both sides of the wall of 1: two regions. The single 2 drowns in the lower of its neighbours.
    assert regions.tidy(labels, slope, least=1).tolist() == [[0, 0, 1, 2]] * 2 + [[0, 3, 1, 2]] + [[0, 0, 1, 2]]
    assert regions.tidy(labels, slope, least=2).tolist() == [[0, 0, 1, 2]] * 4
    row, steep = np.array([[0, 0, 1, 2, 2]]), np.array([[0.0, 0.0, 0.5, 0.9, 0.0]])
    assert regions.tidy(row, steep, least=2).tolist() == [[0, 0, 0, 1, 1]]
    assert regions.tidy(row, steep[:, ::-1], least=2).tolist() == [[0, 0, 1, 1, 1]]
    # Where none is large enough the largest stay.
    assert regions.tidy(row, steep, least=9).tolist() == [[0, 0, 0, 1, 1]]


def test_merging_takes_the_likest_neighbours_first_and_compares_means(regions):
    # Along a row 0, 4, 6, 30: 4 and 6 make 5, which is 5 from 0: merged below 5.5, not below 4.5. 30 stays alone.
    found = np.array([[0, 1, 2, 3]])
    values = np.array([[[0.0], [4.0], [6.0], [30.0]]])
    assert regions.merge(found, values, 4.5).tolist() == [[0, 1, 1, 2]]
    assert regions.merge(found, values, 5.5).tolist() == [[0, 0, 0, 1]]
    assert regions.merge(found, values, 1.0).tolist() == [[0, 1, 2, 3]]
    # 0 and the 1 of the other end are alike, but do not touch.
    apart = np.array([[[0.0], [9.0], [0.5], [30.0]]])
    assert regions.merge(found, apart, 3.0).tolist() == [[0, 1, 2, 3]]


def test_features_of_a_region_are_those_of_scikit_image(regions):
    from skimage.color import rgb2lab
    from skimage.measure import regionprops

    example = ShapesSource("train", 1, (48, 40))[0]
    view = regions.look(example["image"])
    found = regions.felzenszwalb(view)
    features = dict(zip(regions.FEATURES, regions.describe(view, found).T, strict=True))
    lab, framed = rgb2lab(example["image"]), np.pad(found, 1, constant_values=-1)
    properties = regionprops(found + 1)
    assert len(properties) == len(features["L"]) > 3
    for i, region in enumerate(properties):
        inside, area = found == i, region.area
        for channel, name in enumerate("Lab"):
            np.testing.assert_allclose(features[name][i], lab[inside][:, channel].mean(), atol=1e-3)
        np.testing.assert_allclose(features["spread of L"][i], lab[inside][:, 0].std(), atol=1e-2)
        np.testing.assert_allclose(features["gradient"][i], view.slope[inside].mean(), rtol=1e-5)
        y, x = region.centroid
        np.testing.assert_allclose([features["y"][i], features["x"][i]], [(y + 0.5) / 48, (x + 0.5) / 40], rtol=1e-5)
        np.testing.assert_allclose(features["log area"][i], np.log(area / (48 * 40)), rtol=1e-5)
        major, minor = np.array(region.inertia_tensor_eigvals) + 1 / 12  # ours has pixels with an extent
        np.testing.assert_allclose(features["moment"][i], (major + minor) / area, rtol=1e-4)
        np.testing.assert_allclose(features["elongation"][i], np.sqrt(minor / major), rtol=1e-4)
        np.testing.assert_allclose(features["fill"][i], region.extent, rtol=1e-5)
        steps = sum((np.abs(np.diff((framed == i).astype(int), axis=axis))).sum() for axis in (0, 1))
        np.testing.assert_allclose(features["outline"][i], steps / np.sqrt(area), rtol=1e-5)
        edges = inside[0].sum() + inside[-1].sum() + inside[:, 0].sum() + inside[:, -1].sum()
        np.testing.assert_allclose(features["border"][i], edges / np.sqrt(area), rtol=1e-5)


def test_every_segmenter_gives_connected_regions_of_some_size_and_finds_a_plain_square(regions):
    noisy = ShapesSource("val", 1, (48, 40))[0]["image"]
    blank = np.full((48, 40, 3), (40, 60, 90), np.uint8)
    plain = blank.copy()
    square = np.zeros((48, 40), bool)
    square[12:36, 10:30] = True
    plain[square] = (220, 200, 120)
    for name, segment in regions.SEGMENTERS.items():
        for image in (noisy, blank, plain):
            found = segment(regions.look(image))
            assert found.shape == (48, 40) and found.dtype == np.int32, name
            areas = np.bincount(found.ravel())
            assert areas.min() >= regions.least_area(48, 40) == 13, name
            assert pieces(found) == len(areas), name
        # By the oracle the square of the last image is found, but for a rim as wide as the texture's window.
        right = (regions.majority(found, square.astype(np.uint8), 2)[found] == square).mean()
        assert right > (0.7 if "LBP" in name or "Gabor" in name else 0.95), (name, right)


def test_mean_shift_climbs_to_the_modes_that_are_derived_by_hand(regions):
    shift, mean_shift = regions.mean_shift.__globals__["shift"], regions.mean_shift
    # Within 2 of 0, of which there are three, lies 1, and within 2 of 1 lies 0: both rest at 1/4. 10 has no neighbours.
    # 5 moves to 5.75, from where 8 is too far; 6.5 is the mean of all three and stays; 8 moves to 7.25.
    points = np.array([[0.0], [1.0], [10.5], [5.0], [6.5], [8.0]])
    rest = shift(points, np.array([3, 1, 1, 1, 1, 1]), 2.0)
    np.testing.assert_allclose(rest[:, 0], [0.25, 0.25, 10.5, 5.75, 6.5, 7.25], atol=1e-6)
    found = mean_shift(np.array([[[0.0], [10.0], [0.5]], [[10.4], [0.2], [30.0]]]), 2.0)
    assert (found == found[0, 0]).tolist() == [[True, False, True], [False, True, False]]
    assert found[0, 1] == found[1, 0] != found[1, 2] and found.max() == 2
    assert mean_shift(np.ones((2, 3, 3)), 2.0).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_gabor_energy_divides_directions_of_one_brightness(regions):
    y, x = np.mgrid[:48, :48]
    stripes = np.where(x < 24, np.sin(0.4 * np.pi * y), np.sin(0.4 * np.pi * x))  # 0.2 cycles a pixel
    image = np.repeat(np.uint8(128 + 80 * stripes)[..., None], 3, axis=-1)
    found = regions.gabor_kmeans(regions.look(image), clusters=2)
    right = (regions.majority(found, (x < 24).astype(np.uint8), 2)[found] == (x < 24)).mean()
    assert right > 0.85, right


def test_scores_of_networks_come_from_a_workdir_or_a_table_and_must_be_of_the_split(classical, tmp_path):
    info = ShapesSource("val", 1).info
    scores = {
        "split": "val",
        "images": 2,
        "parameters": 7,
        "mean_iou": 0.5,
        "pixel_accuracy": 0.75,
        "classes": [{"name": name, "support": 3} for name in info.classes],
    }
    workdir = tmp_path / "unet"
    workdir.mkdir()
    with pytest.raises(DataError, match=r"evaluate --workdir .*unet --split val"):
        classical.network_rows(workdir, "val", info)
    (workdir / "evaluate-val.json").write_text(json.dumps(scores))
    [row] = classical.network_rows(workdir, "val", info)
    assert row["method"] == "unet" and row["mean_iou"] == 0.5 and row["parameters"] == 7
    collected = tmp_path / "all.json"
    collected.write_text(json.dumps({"runs": [{"run": "a", **scores}, {"run": "b", **scores}]}))
    assert [row["method"] for row in classical.network_rows(collected, "val", info)] == ["a", "b"]
    with pytest.raises(DataError, match="the split test"):
        classical.network_rows(collected, "test", info)
    (workdir / "evaluate-val.json").write_text(json.dumps(scores | {"classes": [{"name": "sky"}]}))
    with pytest.raises(DataError, match="does not hold the scores of networks: KeyError"):
        classical.network_rows(workdir, "val", info)
    (workdir / "evaluate-val.json").write_text(json.dumps(scores | {"classes": scores["classes"][1:]}))
    with pytest.raises(DataError, match="classes"):
        classical.network_rows(workdir, "val", info)


def test_images_are_taken_evenly(classical):
    assert classical.evenly(10, 3) == [0, 3, 6] and classical.evenly(3, 5) == classical.evenly(3, None) == [0, 1, 2]


def test_without_scikit_image_one_sentence_says_how_to_get_it(classical, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert classical.main(["--smallest"]) == 1
    assert capsys.readouterr().err == (
        "error: the classical methods need scikit-image: pip install -e '.[benchmarks]'\n"
    )

"""TIFF files that are read, segmented and written by parts: their form, what a kill leaves, and what is refused."""

import errno
import os
import sys

import jax
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg.data.images import read_image
from jaxseg.data.rasters import open_raster, write_labels
from jaxseg.errors import DataError
from jaxseg.files import locked
from jaxseg.inference import fitting, large, load
from jaxseg.inference import tiles as tiling
from jaxseg.inference.predictor import make_predictor
from jaxseg.predict import main

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("zarr")
GEOGRAPHIC = [
    (33550, 12, 3, (2.0, 2.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (34735, 3, 4, (1, 1, 0, 0), True),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load(make_run(tmp_path_factory.mktemp("runs") / "crop", tiny_config(data__fit="crop")))


def picture(h, w):
    coarse = np.random.default_rng(0).integers(0, 255, (h // 5 + 1, w // 5 + 1, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:h, :w]


def save(path, image, **options):
    tifffile.imwrite(path, image, photometric="rgb", **options)
    return path


FORMS = {
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "strips": {"rowsperstrip": 7},
    "planes": {"planarconfig": "separate", "tile": (16, 32)},
    "bigtiff": {"bigtiff": True, "tile": (16, 16), "byteorder": ">"},
}


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_a_file_are_those_of_its_image(tmp_path, form):
    image = picture(45, 52)
    stored = np.moveaxis(image, -1, 0) if form == "planes" else image
    path = save(tmp_path / "a.tif", stored, **FORMS[form])
    with open_raster(path, 3) as raster:
        assert raster.shape == (45, 52, 3) and raster.dtype == np.uint8
        np.testing.assert_array_equal(raster.read(slice(3, 40), slice(10, 52)), image[3:40, 10:52])
    with open_raster(path, 1) as raster:  # one channel of a file of three: its luma
        expected = np.asarray(Image.fromarray(image).convert("L"), int)
        assert np.abs(raster.read(slice(0, 45), slice(0, 52))[..., 0] - expected).max() <= 1


def test_labels_are_written_in_tiles_with_values_and_colours(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (600, 530), np.uint8)
    colors = ((1, 2, 3), (40, 50, 60), (255, 0, 9))
    for values, dtype in (((), np.uint8), ((10, 20, 30), np.uint8), ((1, 2, 3000), np.uint16)):
        with (tmp_path / "a.tif").open("wb") as file:
            write_labels(file, labels, colors, values=values, tags=[tag[:4] for tag in GEOGRAPHIC], software="me")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            page = file.pages.first
            np.testing.assert_array_equal(page.asarray(), np.array(values)[labels] if values else labels)
            assert page.dtype == dtype and page.is_tiled and page.compression == 8
            assert page.tags.valueof(33922)[3] == 440720.0 and page.tags.valueof(305) == "me"
        with Image.open(tmp_path / "a.tif") as shown:
            if dtype == np.uint8:
                np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.array(colors, np.uint8)[labels])


class Killed(Exception):
    pass


@pytest.mark.parametrize("strips", [1, 2])
def test_a_killed_call_continues_and_gives_the_classes_of_the_image(run, tmp_path, monkeypatch, strips):
    image = picture(90, 70)
    path = save(tmp_path / "in.tif", image, tile=(32, 32), compression="zlib", extratags=GEOGRAPHIC)
    predictor, out = make_predictor([run], tiles=32), tmp_path / "out" / "in.tif"
    if strips > 1:  # memory for the networks, and for the sums of little more than a tile
        tiles = fitting.Images(jax.device_count(), (32, 32), np.dtype(np.uint8), whole=False)
        memory = fitting.tiles_memory(predictor.networks, predictor.variables, tiles, fitting.Sums()) + 50_000
        predictor = make_predictor([run], tiles=32, memory=memory)
        grid = predictor.grid_for(image)
        assert len(tiling.strips(grid, predictor.columns(tiling.ArrayRaster(image), grid))) == strips
    expected = make_predictor([run], tiles=32)(image).classes
    monkeypatch.setattr(large, "_SAVE_EVERY", 0.0)

    def kill(done, total):
        if done > total // 2:
            raise Killed

    for identity in ("one", "two"):
        with pytest.raises(Killed):
            large.segment_large(predictor, path, out, colors=run.colors, identity=identity, progress=kill)
        assert not out.exists()
        result = large.segment_large(predictor, path, out, colors=run.colors, identity="two")
        # What another network has begun is not continued.
        assert result.resumed == 0 if identity == "one" else 0 < result.resumed < 1
        with tifffile.TiffFile(out) as file:
            np.testing.assert_array_equal(file.pages.first.asarray(), expected)
            assert file.pages.first.tags.valueof(33550) == (2.0, 2.0, 0.0)
        np.testing.assert_array_equal(result.counts, np.bincount(expected.ravel(), minlength=6))
        assert os.listdir(out.parent) == ["in.tif"], "nothing half-written stays"
        out.unlink()


def test_what_a_killed_call_of_other_networks_left_is_not_believed(run, tmp_path, monkeypatch):
    path = save(tmp_path / "in.tif", picture(90, 70), tile=(32, 32))
    predictor, out = make_predictor([run], tiles=32), tmp_path / "out" / "in.tif"

    def kill(done, total):
        if done > total // 2:
            raise Killed

    for identity, every in (("one", 0.0), ("two", 1e9)):  # the second is killed before it saves
        monkeypatch.setattr(large, "_SAVE_EVERY", every)
        with pytest.raises(Killed):
            large.segment_large(predictor, path, out, colors=run.colors, identity=identity, progress=kill)
    assert large.segment_large(predictor, path, out, colors=run.colors, identity="one").resumed == 0


def test_no_image_or_foreign_file_is_replaced(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(large, "LARGE", 4000)
    path = save(tmp_path / "big.tif", picture(90, 70), tile=(32, 32))
    before = path.read_bytes()
    arguments = ["--workdir", str(run.workdir), str(path), "--tiles", "32"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "big.tif would replace an image to segment" in capsys.readouterr().err and path.read_bytes() == before
    (tmp_path / "out").mkdir()
    mask = save(tmp_path / "out" / "big.tif", picture(9, 9))
    before = mask.read_bytes()
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "would replace a file that prediction did not write" in capsys.readouterr().err
    assert mask.read_bytes() == before


def test_small_tiff_files_need_no_reader_of_parts(run, tmp_path, monkeypatch):
    path = save(tmp_path / "small.tif", picture(20, 30))
    monkeypatch.setitem(sys.modules, "tifffile", None)  # as where it is not installed
    assert not large.is_large(path)


def test_the_command_segments_large_files_by_parts(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(large, "LARGE", 4000)
    image = picture(90, 70)
    paths = [save(tmp_path / "big.tif", image, tile=(32, 32)), save(tmp_path / "small.tif", image[:20, :30])]
    arguments = ["--workdir", str(run.workdir), *map(str, paths), "--out", str(tmp_path / "out"), "--tiles", "32x32"]
    for more in ([], [], ["--skip-existing"]):  # the second time the outputs are there
        assert main([*arguments, *more]) == 0
    assert "0 of 0 images segmented" in (said := capsys.readouterr().out) and "2 images left out" in said
    (tmp_path / "out" / "big.tif").unlink()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 of 2 images segmented" in said and "NAME.tif (1 large image)" in said
    assert f"overlays:      {tmp_path / 'out' / 'NAME-overlay.png'} (2 images)" in said
    expected = make_predictor([run], tiles=32)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "big.tif"), expected(image).classes)
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "small.png"), expected(image[:20, :30]).classes)
    table = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert table[1].startswith(f"{paths[0]},big.tif,90,70,") and table[2].startswith(f"{paths[1]},small.png,20,30,")
    for words in (["--probabilities"], ["--regions"], ["--crf", "--regions"]):
        assert main([*arguments[:2], str(paths[0]), *arguments[-4:], *words]) == 1
        said = capsys.readouterr().err
        assert "big.tif is so large that it is segmented by parts, which gives its classes alone; leave out " in said
        assert f"leave out {' and '.join(words)}, or cut the image." in said
    out = tmp_path / "out"
    before = {file: file.read_bytes() for file in out.iterdir()}
    with locked(next(iter(_hidden(expected, paths[0], out / "big.tif"))), wait=False):
        assert main([*arguments[:2], str(paths[0]), *arguments[-4:]]) == 1
    said = capsys.readouterr()
    assert (
        "Another process writes" in said.err
        and "does not list the images of this call" in said.out
        and "table:" not in said.out
    )
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    assert main([*arguments, "--format", "color"]) == 1
    assert "to a TIFF file of class indices; leave out --format color" in capsys.readouterr().err


def test_the_tags_of_small_files_are_copied_too(run, tmp_path):
    turn = (274, 3, 1, 6, True)
    paths = [
        save(tmp_path / f"{name}.tif", picture(20, 30), extratags=tags)
        for name, tags in (("a", GEOGRAPHIC), ("turned", [*GEOGRAPHIC, turn]), ("plain", ()))
    ]
    words = ["--workdir", str(run.workdir), *map(str, paths), "--out", str(tmp_path / "out"), "--format", "tiff"]
    assert main(words) == 0
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        for code, _, _, value, _ in GEOGRAPHIC:
            assert file.pages.first.tags.valueof(code) == value
    for name in ("turned", "plain"):
        with tifffile.TiffFile(tmp_path / "out" / f"{name}.tif") as file:
            assert 33550 not in file.pages.first.tags


def test_what_cannot_be_read_or_written_is_a_sentence(run, tmp_path, monkeypatch):
    image, predictor = picture(90, 70), make_predictor([run], tiles=32)
    path = save(tmp_path / "in.tif", image, tile=(32, 32))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    def segment(path, out="out.tif"):
        return large.segment_large(predictor, path, tmp_path / out, colors=run.colors)

    with pytest.raises(DataError, match=r"cut.tif (is cut short|cannot be read)"):
        segment(cut)
    with pytest.raises(DataError, match=r"cut.tif is cut short: of 9 parts of its image \d lies? beyond its end"):
        read_image(cut, 3)  # at once
    turned = save(tmp_path / "turned.tif", image, tile=(32, 32), extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(DataError, match=r"turned.tif is turned by its orientation tag"):
        segment(turned)
    floats = tmp_path / "floats.tif"
    tifffile.imwrite(floats, image.astype(np.float32), photometric="rgb")
    with pytest.raises(DataError, match="holds float32 numbers"):
        segment(floats)
    part = next(iter(_hidden(predictor, path, tmp_path / "busy.tif")))
    with locked(part, wait=False), pytest.raises(DataError, match="Another process writes"):
        segment(path, "busy.tif")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        segment(path)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".classes")]


def _hidden(predictor, path, out):
    grid = predictor.grid_for(np.zeros((90, 70, 3), np.uint8))
    yield large._Part.beside(out, grid, "", np.dtype(np.uint8)).lock

"""Images of any channels and of measured values: the same input in training, prediction and export."""

import json
import shutil
import zipfile

import jax
import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from jax import export
from PIL import Image

from jaxseg.config.values import validate
from jaxseg.data.check import main as check
from jaxseg.data.folder import find_faults
from jaxseg.data.images import from_array, read_header, read_image
from jaxseg.data.rasters import open_raster
from jaxseg.data.sources import make_source
from jaxseg.errors import ConfigError, DataError
from jaxseg.export import export_run
from jaxseg.inference import large, load
from jaxseg.inference.images import find_images
from jaxseg.inference.predictor import make_predictor
from jaxseg.predict import main as predict
from jaxseg.run.data import train_batches

LIMITS = (-1.0, 3.0)
CUBE = (np.random.default_rng(0).random((16, 16, 5)) * 6 - 2).astype(np.float32)  # from -2 to 4
STATS = {"data__mean": (0.5,), "data__std": (0.25,)}


def tiff(path, array, **options):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", **options)
    return path


def stored(folder, array):
    """Writes an array in each form; returns the files."""
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "b.npz", array)
    np.savez(folder / "c.npz", image=array, band_names=np.arange(array.shape[-1]))
    return [folder / "a.npy", folder / "b.npz", folder / "c.npz", tiff(folder / "d.tif", array)]


def test_every_form_gives_the_values_of_the_range(tmp_path):
    expected = np.clip((CUBE - np.float32(-1)) / np.float32(4), 0, 1)
    for path in stored(tmp_path, CUBE):
        found = read_image(path, 5, LIMITS)
        assert found.dtype == np.float32 and read_header(path)[:2] == (16, 16)
        np.testing.assert_array_equal(found, expected)
    assert expected.min() == 0 and expected.max() == 1  # what is beyond the range is cut
    np.testing.assert_array_equal(from_array(CUBE, 5, LIMITS), expected)
    words = np.arange(16 * 16 * 7, dtype=np.uint16).reshape(16, 16, 7)
    for path in stored(tmp_path, words):  # 16 bits need no range
        np.testing.assert_array_equal(read_image(path, 7), words)
    np.testing.assert_allclose(read_image(path, 7, (0, 4095))[0, 0], np.arange(7) / 4095, rtol=1e-6)
    # A picture of 12 bits in 16 is converted to the channels that are asked for, as ever.
    grey = np.array([[0, 2048], [4095, 60000]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "grey.png", 1, (0, 4095))[..., 0], [[0, 2048 / np.float32(4095)], [1, 1]]
    )


@pytest.mark.parametrize(
    ("array", "channels", "limits", "words"),
    [
        (CUBE, 5, (), r"holds float32 numbers from -1\.99.* to 3\.99.*, and nothing says .*data.range=\(LOW, HIGH\)"),
        (CUBE.astype(np.int16), 5, (), "holds int16 numbers from -1 to 3"),
        (CUBE, 4, LIMITS, r"holds 5 channels, where data.channels=4 were expected\.$"),
        (np.moveaxis(CUBE, -1, 0), 5, LIMITS, r"holds 16 channels, .*channels come last"),
        (np.where(CUBE > 3, np.nan, CUBE), 5, LIMITS, "numbers that are not finite"),
        (np.zeros((2, 3, 4, 5)), 5, LIMITS, r"an array of the shape \(2, 3, 4, 5\)"),
        (np.array([["a"]]), 1, LIMITS, "array of the type <U1, where numbers"),
        (np.array([[{}]]), 1, LIMITS, "array of the type object, where numbers"),
    ],
)
def test_what_is_refused(tmp_path, array, channels, limits, words):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "x.npy", channels, limits)


def test_damaged_and_huge_arrays_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, CUBE)
    good = path.read_bytes()
    path.write_bytes(good[:300])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_image(path, 5, LIMITS)
    path.write_bytes(good.replace(b"(16, 16, 5), }", b"(99999, 99999, 5), }"[:14]).replace(b"(16, 16", b"(10**9,"))
    with pytest.raises(DataError):
        read_image(path, 5, LIMITS)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 99999, 5), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="more than 178,956,970 pixels"):
        read_image(path, 5, LIMITS)
    np.savez(tmp_path / "y.npz", a=CUBE, b=CUBE)
    with pytest.raises(DataError, match=r"holds the arrays a\.npy, b.npy; expected one with the name 'image'"):
        read_image(tmp_path / "y.npz", 5, LIMITS)


def pages(path, *arrays, **options):
    """Writes a TIFF file with a page for each array."""
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(path) as file:
        for array in arrays:
            file.write(array, photometric="minisblack", contiguous=False, **options)
    return path


def test_a_preview_before_the_pages_is_none_of_the_channels(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    words = np.arange(16 * 12 * 2, dtype=np.float32).reshape(2, 16, 12) / 512
    for count in (1, 2):
        path = tmp_path / f"{count}.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(words[0, ::4, ::4], photometric="minisblack", subfiletype=1, contiguous=False)
            for page in words[:count]:
                file.write(page, photometric="minisblack", contiguous=False)
        assert read_header(path, paged=True)[:2] == (16, 12)
        np.testing.assert_array_equal(read_image(path, count, (0.0, 1.0)), np.moveaxis(words[:count], 0, -1))
    monkeypatch.setattr("jaxseg.data.pages._PAGES", 2)
    with pytest.raises(DataError, match=r"2\.tif holds more than 2 pages, or they lead back to the first"):
        read_image(path, 2)


def test_pages_of_a_tiff_file_are_its_channels_where_these_are_given(tmp_path):
    words = np.arange(16 * 16 * 5, dtype=np.uint16).reshape(16, 16, 5)
    path = pages(tmp_path / "a.tif", *np.moveaxis(words, -1, 0))
    np.testing.assert_array_equal(read_image(path, 5), words)
    assert read_header(path, paged=True)[:2] == (16, 16)
    floats = pages(tmp_path / "b.tif", *np.moveaxis(CUBE[..., :3], -1, 0))
    np.testing.assert_array_equal(read_image(floats, 3, LIMITS), np.clip((CUBE[..., :3] + 1) / np.float32(4), 0, 1))
    pages(tmp_path / "sizes.tif", words[..., 0], words[:8, :, 0])
    pages(tmp_path / "types.tif", words[..., 0], words[..., 0].astype(np.uint8))
    pages(tmp_path / "bands.tif", words[..., :2], words[..., :2], planarconfig="contig")
    for name, channels, limits, said in (
        (
            "a.tif",
            3,
            (),
            r"holds 5 pages, where one image was expected; .* or set data.channels=5, which reads them as",
        ),
        ("a.tif", 7, (), "holds 5 pages, where one page, or one for each of data.channels=7, was expected"),
        ("a.tif", 3, (0, 9), "holds 5 pages, where one image was expected"),
        ("b.tif", 3, (), r"set data.channels=3 and data.range=\(LOW, HIGH\), which reads them as channels"),
        (
            "sizes.tif",
            2,
            (),
            r"pages of different sizes, 16 x 16 \(height x width\) and in page 2 8 x 16, which are not",
        ),
        ("types.tif", 2, (), "pages of different types, uint16 and in page 2 uint8"),
        ("bands.tif", 2, (), "pages of several bands"),
    ):
        with pytest.raises(DataError, match=said):
            read_image(tmp_path / name, channels, limits)
    with pytest.raises(DataError, match="holds 5 pages"):
        read_header(path)


def test_pages_are_those_of_the_image_in_headers_too(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    words = np.arange(16 * 16 * 5, dtype=np.uint16).reshape(16, 16, 5)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:  # a smaller copy comes first
        file.write(words[::2, ::2, 0], photometric="minisblack", subfiletype=1)
        for band in np.moveaxis(words, -1, 0):
            file.write(band, photometric="minisblack", contiguous=False)
    assert read_header(path, paged=True)[:2] == (16, 16)
    np.testing.assert_array_equal(read_image(path, 5), words)
    # What is wrong in a folder does not name files that can be read.
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    path.rename(tmp_path / "images" / "a.tif")
    shutil.copy(tmp_path / "images" / "a.tif", tmp_path / "images" / "b.tif")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "masks" / "a.png")
    (said,) = find_faults(tmp_path, "train", paged=True)
    assert "b.tif has no mask" in said and "pages, where" not in said
    monkeypatch.setattr("jaxseg.data.pages._PAGES", 5)
    with pytest.raises(DataError, match=r"a\.tif holds more than 5 pages, or they lead back to the first"):
        read_image(tmp_path / "images" / "a.tif", 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on images of 5 channels in floats: .npy for training, TIFF for validation."""
    root = tmp_path_factory.mktemp("cubes")
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for name in ("a", "b"):
            cube = (rng.random((16, 16, 5)) * 6 - 2).astype(np.float32)
            path = root / split / "images" / name
            if split == "train":
                np.save(path.with_suffix(".npy"), cube)
            elif name == "a":
                tiff(path.with_suffix(".tif"), cube)
            else:
                pages(path.with_suffix(".tif"), *np.moveaxis(cube, -1, 0))
            Image.fromarray(rng.integers(0, 3, (16, 16)).astype(np.uint8)).save(root / split / "masks" / f"{name}.png")
    np.save(root / "large.npy", (rng.random((37, 26, 5)) * 6 - 2).astype(np.float32))
    config = tiny_config(data__source="folder", data__dir=str(root), data__channels=5, data__range=LIMITS, **STATS)
    return load(make_run(root / "run", config)), root


def test_training_prediction_and_export_see_the_same(run, tmp_path):
    trained, root = run
    train, val = (make_source(trained.config, split) for split in ("train", "val"))
    with train_batches(trained.config, train) as loader:
        batch = next(loader)
    assert batch["image"].dtype == np.float32 and batch["image"].shape[1:] == (16, 16, 5)
    for image, index in zip(batch["image"], batch["index"]):
        np.testing.assert_array_equal(image, train[int(index)]["image"])
        np.testing.assert_array_equal(image, read_image(train.pairs[int(index)].image, 5, LIMITS))
    raw = np.load(root / "large.npy")
    file, given = (trained.predict(x, probabilities=True) for x in (root / "large.npy", raw))
    np.testing.assert_array_equal(file.probabilities, given.probabilities)
    assert len(np.unique(file.classes)) > 1 and len(val) == 2
    written = export_run(trained, tmp_path / "x.stablehlo", probabilities=True)
    with zipfile.ZipFile(written.path) as archive:
        program = export.deserialize(bytearray(archive.read("program")))
        about = json.loads(archive.read("jaxseg.json"))
    assert about["image_type"] == "float32" and about["range"] == [-1.0, 3.0]
    classes, shares = jax.jit(program.call)(raw[None])
    np.testing.assert_allclose(shares[0], file.probabilities, atol=1e-5)
    np.testing.assert_array_equal(classes[0], file.classes)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(export_run(trained, tmp_path / "x.onnx", probabilities=True).path)
    np.testing.assert_allclose(session.run(None, {"image": raw[None]})[1][0], file.probabilities, atol=1e-5)


def test_predict_reads_such_files_and_leaves_its_own_out(run, tmp_path):
    trained, root = run
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copyfile(root / "large.npy", tmp_path / "in" / "deep" / "a.NPY")
    words = ["--workdir", str(trained.workdir), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--recursive"]
    assert predict([*words, "--probabilities"]) == 0
    found = np.asarray(Image.open(tmp_path / "out" / "deep" / "a.png"))
    np.testing.assert_array_equal(found, trained.predict(root / "large.npy").classes)
    names = sorted(path.name for path in (tmp_path / "out" / "deep").iterdir())
    assert names == ["a-overlay.png", "a.npz", "a.png"]
    for gone in ("a.png", "a-overlay.png"):
        (tmp_path / "out" / "deep" / gone).unlink()
    found = find_images([str(tmp_path / "out" / "deep")])
    assert found.paths == [] and "has no images" in found.problems[0]  # NAME.npz holds results


def test_the_check_prints_the_statistics_of_each_channel(run, capsys):
    trained, root = run
    words = ["--config", "experiments/resunet.py:folder", f"--config.data.dir={root}", "--config.data.channels=5"]
    words += ["--config.data.range=(-1,3)", "--config.data.mean=0.5", "--config.data.std=0.25", "--images", "0"]
    assert check(words) == 0
    said = capsys.readouterr().out
    cubes = np.stack([make_source(trained.config, "train")[i]["image"] for i in range(2)])
    mean, std = (", ".join(f"{v:.3f}" for v in x) for x in (cubes.mean((0, 1, 2)), cubes.std((0, 1, 2))))
    assert f"mean {mean}; std {std}; largest value 1 " in said


def test_other_sources_have_pictures(tmp_path):
    for values in ({"data__channels": 5, **STATS}, {"data__range": (0, 1)}):
        with pytest.raises(ConfigError, match=r"needs data\.source=folder, got data.source=shapes"):
            validate(tiny_config(**values))
    with pytest.raises(ConfigError, match=r"data.range must be empty, or \(low, high\) with low < high"):
        validate(tiny_config(data__range=(3, 1)))


def test_a_large_file_is_read_by_parts_with_its_range_and_channels(run, tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    trained, root = run
    raw = np.load(root / "large.npy")
    files = [tiff(tmp_path / "bands.tif", raw, tile=(16, 16)), pages(tmp_path / "pages.tif", *np.moveaxis(raw, -1, 0))]
    expected = make_predictor([trained], tiles=16)(from_array(raw, 5, LIMITS)).classes
    for path in files:
        assert not large.is_large(path)
    monkeypatch.setattr(large, "LARGE", raw[..., 0].size)
    words = ["--workdir", str(trained.workdir), "--out", str(tmp_path / "out"), "--tiles", "16", *map(str, files)]
    assert predict(words) == 0
    for path in files:
        assert large.is_large(path)
        with open_raster(path, 5, LIMITS) as raster:
            assert raster.shape == (37, 26, 5) and raster.dtype == np.float32
            found = raster.read(slice(3, 30), slice(5, 26))
        np.testing.assert_array_equal(found, read_image(path, 5, LIMITS)[3:30, 5:26])
        np.testing.assert_array_equal(pytest.importorskip("tifffile").imread(tmp_path / "out" / path.name), expected)
        for channels, limits, said in ((4, LIMITS, "5 "), (5, (), "float32 numbers, and nothing says which")):
            with pytest.raises(DataError, match=said), open_raster(path, channels, limits):
                pass
    pages(tmp_path / "nan.tif", *np.moveaxis(np.where(raw > 3, np.nan, raw), -1, 0))
    with open_raster(tmp_path / "nan.tif", 5, LIMITS) as raster, pytest.raises(DataError, match="not finite"):
        raster.read(slice(0, 37), slice(0, 26))

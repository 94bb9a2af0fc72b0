"""Images and masks that are damaged, lie about their size, or were made to fill the memory or to run something."""

import argparse
import io
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fuzzing import attempt, read_all
from helpers.mutations import mutated, with_right_sums
from helpers.png import write_png
from helpers.tiny_run import make_folder
from PIL import Image, UnidentifiedImageError

from jaxseg import pictures
from jaxseg.config import default_config
from jaxseg.config.command import configure
from jaxseg.data import make_source
from jaxseg.data.contents import read_contents
from jaxseg.data.images import read_header, read_image, read_mask
from jaxseg.data.masks import Palette
from jaxseg.data.rasters import open_raster, write_labels
from jaxseg.errors import ConfigError, DataError
from jaxseg.inference.large import is_large
from jaxseg.inference.options import add_max_pixels
from jaxseg.inference.outputs import is_output
from jaxseg.inference.regions.world import read_world
from jaxseg.pictures import marks
from jaxseg.pictures.opening import MAX_PIXELS

RGB = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
GREY = RGB[..., 0] // 64
PALETTE = Palette(((0, 0, 0), (255, 0, 0)), (0, 1))


def saved(array: np.ndarray, form: str, mode: str = "", **options: Any) -> bytes:
    image, file = Image.fromarray(array), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def with_tifffile(array: np.ndarray, **options: Any) -> bytes:
    tifffile, file = pytest.importorskip("tifffile"), io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def seeds(tmp_path: Path) -> dict[str, list[bytes]]:
    """Small files of each format in their usual forms."""
    turned = Image.Exif()
    turned[0x0112] = 6
    sixteen = RGB.astype(np.uint16) * 257
    four = np.concatenate([RGB, RGB[..., :1]], -1)
    return {
        "png": [
            saved(RGB, "PNG"),
            saved(GREY, "PNG"),
            saved(RGB, "PNG", "P"),
            saved(GREY, "PNG", "1"),
            saved(RGB, "PNG", "RGBA", exif=turned),
            saved(GREY.astype(np.uint16), "PNG"),
            write_png(tmp_path / "seed.png", sixteen, 2).read_bytes(),
        ],
        "jpg": [
            saved(RGB, "JPEG", exif=turned),
            saved(RGB, "JPEG", progressive=True),
            saved(GREY, "JPEG"),
            saved(RGB, "JPEG", "CMYK"),
        ],
        "tif": [
            saved(RGB, "TIFF"),
            saved(RGB, "TIFF", compression="tiff_lzw"),
            saved(RGB, "TIFF", compression="jpeg"),
            saved(GREY, "TIFF", "1", compression="group4"),
            with_tifffile(sixteen, photometric="rgb"),
            with_tifffile(four, photometric="rgb", extrasamples=["unspecified"], tile=(16, 16), compression="zlib"),
            with_tifffile(np.moveaxis(sixteen, -1, 0), photometric="rgb", planarconfig="separate"),
            with_tifffile(GREY.astype(np.int64), bigtiff=True),
            with_tifffile(GREY.astype(np.float16)),
        ],
        "webp": [saved(RGB, "WEBP"), saved(RGB, "WEBP", lossless=True)],
        "bmp": [saved(RGB, "BMP"), saved(RGB, "BMP", "P"), saved(GREY, "BMP", "1")],
    }


def _raster(path: Path) -> None:
    with open_raster(path, 3) as raster:
        raster.read(slice(0, 16), slice(4, 20))


# Whatever looks at a file of images; the last two say nothing about a damaged one.
READERS: tuple[Callable[[Path], Any], ...] = (
    read_image,
    read_mask,
    read_header,
    lambda path: read_image(path, 1),
    lambda path: read_image(path, 4),
    lambda path: read_mask(path, PALETTE),
    lambda path: list(read_contents([path])),
    _raster,
    read_world,
    marks.software,
)


def damaged(files: list[bytes], count: int) -> Iterator[tuple[str, bytes]]:
    for seed in range(count):
        data = mutated(files[seed % len(files)], seed)
        is_png = data.startswith(b"\x89PNG")
        yield f"seed {seed}", with_right_sums(data) if is_png and seed % 3 else data


@pytest.mark.parametrize("count", [40, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp"])
def test_damaged_images_end_in_a_sentence(
    tmp_path: Path, ending: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which is set again afterwards
    monkeypatch.setenv(MAX_PIXELS, str(2**22))
    files = seeds(tmp_path)[ending]
    readers = itertools.cycle(itertools.chain.from_iterable([reader] * len(files) for reader in READERS))
    tally = read_all(ending, tmp_path / f"x.{ending}", damaged(files, count), lambda path: next(readers)(path))
    print(tally.row())
    assert tally.counts["result"] and tally.counts["sentence"]


def test_the_seeds_themselves_are_read(tmp_path: Path) -> None:
    for ending, files in seeds(tmp_path).items():
        for data in files:
            (tmp_path / f"x.{ending}").write_bytes(data)
            assert read_header(tmp_path / f"x.{ending}")[:2] in ((24, 20), (20, 24))


def png_of(height: int, width: int) -> bytes:
    """A PNG file that says that it has so many pixels, of which it holds none."""
    return with_right_sums(saved(GREY, "PNG").replace(struct.pack(">II", 20, 24), struct.pack(">II", width, height)))


def with_tags(tiff: bytes, numbers: dict[int, int]) -> bytes:
    """Returns a little-endian TIFF file with other values of some tags of one number."""
    data = bytearray(tiff)
    place = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, place)[0]):
        at = place + 2 + 12 * entry
        code = struct.unpack_from("<H", data, at)[0]
        if code in numbers:
            struct.pack_into("<HHII", data, at, code, 4, 1, numbers[code])
    return bytes(data)


def tiff_of(height: int, width: int) -> bytes:
    data = with_tifffile(np.concatenate([RGB, RGB[..., :1]], -1), photometric="rgb", extrasamples=["unspecified"])
    return with_tags(data, {256: width, 257: height})


@pytest.mark.parametrize(("name", "made"), [("x.png", png_of), ("x.tif", tiff_of)])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, name: str, made: Callable[[int, int], bytes]
) -> None:
    path = tmp_path / name
    path.write_bytes(made(50_000, 50_000))
    for reader in (read_image, lambda path: read_image(path, 4)):
        outcome = attempt(lambda reader=reader: reader(path), name, names=name, megabytes=30)
        assert "more than 178,956,970 pixels" in outcome.sentence
        assert "data.max_pixels" in outcome.sentence and "--max-pixels" in outcome.sentence
    assert is_large(path) == (path.suffix == ".tif")  # predict then reads it by parts


def test_the_tiles_of_a_small_image_may_not_be_huge(tmp_path: Path) -> None:
    data = with_tifffile(RGB.astype(np.uint16), photometric="rgb", tile=(16, 16), compression="zlib")
    path = tmp_path / "x.tif"
    path.write_bytes(with_tags(data, {322: 2**20, 323: 2**20}))
    for reader in (read_image, _raster):
        outcome = attempt(lambda reader=reader: reader(path), "huge tiles", names=path.name, megabytes=30)
        assert "more than 178,956,970 pixels" in outcome.sentence


def test_a_chain_of_pages_that_leads_back_ends(tmp_path: Path) -> None:
    data = with_tifffile(GREY.astype(np.int64))
    place = struct.unpack("<I", data[4:8])[0]
    end = place + 2 + 12 * struct.unpack("<H", data[place : place + 2])[0]
    path = tmp_path / "x.tif"
    path.write_bytes(data[:end] + data[4:8] + data[end + 4 :])
    assert attempt(lambda: read_mask(path), "circle", names=path.name).seconds < 2


def test_what_is_no_picture_is_not_given_to_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    ran: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: ran.append(args))
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\nshowpage\n%%EOF\n")
    assert Image.open(path).format == "EPS"  # Pillow takes it as one, by its content
    for reader in READERS[:7]:
        attempt(lambda reader=reader: reader(path), "PostScript")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(path)
    pytest.importorskip("etils")
    from jaxseg.data.datasets.offline_builders import _decode_image

    with pytest.raises(UnidentifiedImageError):
        _decode_image(path.read_bytes())
    with pytest.raises(Image.DecompressionBombError):
        _decode_image(png_of(50_000, 50_000))
    assert not ran


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_key_and_the_option_raise_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setenv(MAX_PIXELS, "200")
    make_folder(tmp_path, [(24, 20), (24, 20)], split="train")
    values = {"data.source": "folder", "data.dir": str(tmp_path), "data.fit": "resize"}
    config = configure(default_config(), values)
    larger = configure(default_config(), {**values, "data.max_pixels": 480})
    for each in (config, larger):  # the environment goes before the key
        with pytest.raises(DataError, match=r"more than 200 pixels.* set data\.max_pixels"):
            make_source(each, "train")[0]
    monkeypatch.delenv(MAX_PIXELS)
    smaller = configure(default_config(), {**values, "data.max_pixels": 200})
    with pytest.raises(DataError, match="more than 200 pixels"):
        make_source(smaller, "train")[0]
    assert make_source(larger, "train")[0]["image"].shape == (24, 20, 3)
    with pytest.raises(DataError, match="more than 200 pixels"):
        make_source(smaller, "train")[0]
    assert make_source(config, "train")[0]["image"].shape == (24, 20, 3)  # the usual limit again
    assert Image.MAX_IMAGE_PIXELS == 178_956_970 // 2 and MAX_PIXELS not in os.environ
    monkeypatch.setenv(MAX_PIXELS, "200")
    parser = argparse.ArgumentParser()
    add_max_pixels(parser)
    assert parser.parse_args(["--max-pixels", "480"]).max_pixels == 480
    assert read_image(tmp_path / "train/images/0.png").shape == (24, 20, 3)
    for wrong in ("0", "-1", "many", "9" * 5000):
        with pytest.raises(SystemExit):
            parser.parse_args(["--max-pixels", wrong])


def test_the_mark_of_an_output_is_read_whatever_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for what is decoded; an output of jaxseg that is larger stays one of jaxseg."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv(MAX_PIXELS, "50")
    pictures.save_image(Image.fromarray(RGB), tmp_path / "check.png", software=marks.FIGURE)
    pictures.save_image(Image.fromarray(RGB), tmp_path / "own.png", software="jaxseg predict")
    pytest.importorskip("tifffile")
    with (tmp_path / "own.tif").open("wb") as file:
        write_labels(file, GREY, PALETTE.colors, software="jaxseg predict")
    marks.require_own_figure(tmp_path / "check.png", "move it")
    for name in ("own.png", "own.tif"):
        with pytest.raises(DataError, match="more than 50 pixels"):
            read_mask(tmp_path / name)
        assert is_output(tmp_path / name)
    Image.fromarray(RGB).save(tmp_path / "foreign.png")
    with pytest.raises(ConfigError, match=r"foreign\.png would replace a file"):
        marks.require_own_figure(tmp_path / "foreign.png", "move it")

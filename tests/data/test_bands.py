"""Files that hold more than a mode of Pillow: every band and bit is read, or the file is refused with what to do."""

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from helpers.png import write_png
from PIL import Image

from jaxseg.data.bands import beyond_mode, stored_form, upright
from jaxseg.data.images import from_pillow, read_header, read_image, read_mask
from jaxseg.errors import DataError
from jaxseg.pictures.opening import MAX_PIXELS

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

BYTES = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.uint8)
WORDS = np.random.default_rng(1).integers(0, 65536, (3, 5, 4)).astype(np.uint16)


def write_tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(("kind", "stored"), [(2, 3), (4, 2), (6, 4)])
def test_png_of_sixteen_bit_colour_or_alpha_keeps_every_bit(tmp_path: Path, kind: int, stored: int) -> None:
    image = read_image(write_png(tmp_path / "i.png", WORDS[..., :stored], kind), channels=4)
    assert image.dtype == np.uint16
    expected = WORDS[..., [0, 0, 0, 1]] if stored == 2 else WORDS.copy()
    if stored == 3:
        expected[..., 3] = 65535
    np.testing.assert_array_equal(image, expected)


def test_png_of_sixteen_bits_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_png(tmp_path / "i.png", WORDS[..., :3], 2, ((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),))
    np.testing.assert_array_equal(read_image(path), np.rot90(WORDS[..., :3], -1))
    assert read_header(path)[:2] == (5, 3)


@pytest.mark.parametrize("options", [{}, {"compression": "lzw", "predictor": True}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("form", ["rgb", "minisblack"])
@pytest.mark.parametrize("array", [BYTES, WORDS])
def test_tiff_keeps_four_bands_of_eight_or_sixteen_bits(
    tmp_path: Path, array: np.ndarray, form: str, options: dict[str, Any]
) -> None:
    stored = np.moveaxis(array, -1, 0) if "planarconfig" in options else array
    extras = ["unspecified"] * (1 if form == "rgb" else 3)
    path = write_tiff(tmp_path / "i.tif", stored, photometric=form, extrasamples=extras, **options)
    assert read_header(path)[:2] == (3, 5)
    image = read_image(path, channels=4)
    assert image.dtype == array.dtype
    np.testing.assert_array_equal(image, array)
    with pytest.raises(DataError, match=r"i\.tif holds 4 bands, .*set data.channels=4"):
        read_image(path, channels=3)


def test_tiff_of_sixteen_bit_colour(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "i.tif", WORDS[..., :3], photometric="rgb")
    np.testing.assert_array_equal(read_image(path), WORDS[..., :3])
    opaque = BYTES.copy()
    opaque[..., 3] = 255
    path = write_tiff(tmp_path / "o.tif", opaque, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(read_image(path), BYTES[..., :3])  # nothing is lost
    path = write_tiff(tmp_path / "r.tif", WORDS[..., :3], photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(read_image(path), np.rot90(WORDS[..., :3], -1))
    assert read_header(path)[:2] == (5, 3)


def test_colours_that_are_multiplied_by_alpha_are_divided_by_it(tmp_path: Path) -> None:
    colors = np.array([[[100, 50, 0], [10, 20, 30]]])
    for dtype, scale in ((np.uint8, 1), (np.uint16, 257)):
        alpha = np.array([[[128], [255]]]) * scale
        stored = np.concatenate([colors * alpha // 255, alpha], -1).astype(dtype)
        path = write_tiff(tmp_path / f"{scale}.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
        image = read_image(path, 4)
        assert image.dtype == dtype
        np.testing.assert_allclose(image[..., :3] / scale, colors, atol=1)


def test_bands_that_are_no_image_are_refused(tmp_path: Path) -> None:
    two = write_tiff(tmp_path / "two.tif", BYTES[..., :2], photometric="minisblack", extrasamples=["unspecified"])
    with pytest.raises(DataError, match=r"two\.tif holds 2 bands; save those"):
        read_image(two)
    many = np.concatenate([BYTES, BYTES], -1)
    path = write_tiff(tmp_path / "many.tif", many, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"many\.tif holds 8 bands"):
        read_image(path)
    path = write_tiff(tmp_path / "f.tif", BYTES[..., :3].astype(np.float32), photometric="rgb")
    with pytest.raises(DataError, match=r"f\.tif holds float32 numbers"):
        read_image(path)
    with pytest.raises(DataError, match=r"The mask .*two\.tif holds 2 bands of 8 bits"):
        read_mask(two)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(
        write_tiff(tmp_path / "i.tif", np.tile(WORDS, (9, 9, 1))[..., :3], photometric="rgb").read_bytes()[:-99]
    )
    with pytest.raises(DataError, match=r"cut\.tif cannot be read as an image"):
        read_image(cut)


def test_several_pages_are_refused_and_previews_are_none(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(BYTES[..., :3], photometric="rgb")
        file.write(BYTES[::2, ::2, :3], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(path), BYTES[..., :3])
    with tifffile.TiffWriter(path, append=True) as file:
        file.write(BYTES[..., :3], photometric="rgb")
    for read in (read_image, read_mask, read_header):
        with pytest.raises(DataError, match=r"pages\.tif holds 2 pages, where one image was expected"):
            read(path)
    frames = [Image.fromarray(BYTES[..., :3]), Image.fromarray(BYTES[::-1, :, :3])]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    for name in ("a.webp", "a.png"):
        with pytest.raises(DataError, match="holds 2 pages"):
            read_image(tmp_path / name)


def test_without_the_readers_the_message_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("tifffile", "imagecodecs"):
            raise ImportError(name)
        return true_import(name, *args, **kwargs)

    tiff = write_tiff(tmp_path / "i.tif", WORDS[..., :3], photometric="rgb")
    bands = write_tiff(tmp_path / "b.tif", BYTES, photometric="minisblack", extrasamples=["unspecified"] * 3)
    png = write_png(tmp_path / "i.png", WORDS[..., :3], 2)
    monkeypatch.setattr(builtins, "__import__", without)
    for path, held in (
        (tiff, "3 bands of 16 bits"),
        (png, "3 bands of 16 bits"),
        (bands, "bands in a form that Pillow"),
    ):
        with pytest.raises(DataError, match=rf"holds {held}.*pip install -e '\.\[images\]'.*or save the image"):
            read_image(path)
    with (
        Image.open(tiff) as image,
        pytest.raises(DataError, match="of which Pillow drops a part; give the file itself"),
    ):
        from_pillow(image)


def test_other_formats_of_sixteen_bit_colour_are_refused(tmp_path: Path) -> None:
    import imagecodecs

    (tmp_path / "i.ppm").write_bytes(b"P6 5 3 65535\n" + WORDS[..., :3].astype(">u2").tobytes())
    (tmp_path / "i.jp2").write_bytes(imagecodecs.jpeg2k_encode(WORDS[..., :3].copy(), level=0, codecformat="jp2"))
    for name in ("i.ppm", "i.jp2"):
        with pytest.raises(DataError, match="holds 3 bands of 16 bits, of which Pillow keeps 8 bits; save it as a PNG"):
            read_image(tmp_path / name)
        Image.fromarray(BYTES[..., :3]).save(tmp_path / name)
        assert read_image(tmp_path / name).shape == (3, 5, 3)
    (tmp_path / "i.pgm").write_bytes(b"P5 5 3 65535\n" + WORDS[..., 0].astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "i.pgm", 1), WORDS[..., :1])


@pytest.mark.parametrize("channels", [3, 4])
def test_four_bands_of_inks_are_not_taken_for_colours_and_alpha(tmp_path: Path, channels: int) -> None:
    path = write_tiff(tmp_path / "i.tif", WORDS, photometric="separated")
    with pytest.raises(DataError, match=r"i\.tif holds 4 bands of the kind SEPARATED; save the image as grey or RGB"):
        read_image(path, channels)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64, np.int32])
def test_masks_of_types_that_pillow_does_not_read(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 1, 300], [2, 0, 65535]])
    path = write_tiff(tmp_path / "m.tif", values.astype(dtype), extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(read_mask(path), np.rot90(values, -1))
    write_tiff(path, values.astype(dtype) + 1)
    with pytest.raises(DataError, match=r"m\.tif holds numbers from 1.* to 65536.* \(.*; whole numbers of 8 or 16"):
        read_mask(path)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16])
def test_images_that_count_from_white_are_turned_over_and_such_masks_refused(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 1, 100], [2, 255, 0]]).astype(dtype)
    path = write_tiff(tmp_path / "i.tif", values, photometric="miniswhite")
    shown = np.where(values, 0, 255) if dtype is np.bool_ else np.iinfo(dtype).max - values
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], shown)
    with pytest.raises(DataError, match=r"The mask .*i\.tif counts from white .*; save it with 0 for black"):
        read_mask(path)
    write_tiff(path, values, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(path), values)


def test_numbers_that_count_from_white_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "i.tif", np.zeros((2, 3), np.float32), photometric="miniswhite")
    with pytest.raises(DataError, match="count from white; save it with 0 for black"):
        read_image(path)
    for dtype in (np.float32, np.int64):  # Pillow does not read the latter
        with pytest.raises(DataError, match="counts from white"):
            read_mask(write_tiff(path, np.zeros((2, 3), dtype), photometric="miniswhite"))


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_signed_bytes_are_read_where_none_is_negative(tmp_path: Path, read: Any) -> None:
    values = np.array([[0, 1, 100], [2, 127, 50]], np.int8)
    path = write_tiff(tmp_path / "i.tif", values)
    image = read(path)
    np.testing.assert_array_equal(image[..., 0] if image.ndim == 3 else image, values)
    write_tiff(path, values - 3)
    with pytest.raises(DataError, match=r"i\.tif holds numbers from -3 to 124 \(int8\); whole numbers of 8 or 16"):
        read(path)


def test_masks_of_half_precision_are_compared_without_overflow(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "m.tif", np.array([[0, 2000]], np.float16))
    np.testing.assert_array_equal(read_mask(path), [[0, 2000]])


@pytest.mark.parametrize(("flags", "bits"), [(0x0C, 8), (0x4C, 10), (0x6C, 12)])
def test_the_bits_of_avif_are_those_of_its_header(flags: int, bits: int) -> None:
    head = b"\0\0\0\x0cav1C\x81\x00\x0c\0" + b"\0\0\0\x0cav1C\x81\x20" + bytes([flags]) + b"\0" + b"mdatav1C\x81\0\x6c"
    file = SimpleNamespace(format="AVIF", mode="RGB", fp=io.BytesIO(head), getbands=lambda: ("R", "G", "B"))
    assert stored_form(cast(Image.Image, file)) == (3, bits)
    assert beyond_mode(cast(Image.Image, file)) == (None if bits == 8 else (3, bits))


def test_avif_of_ten_bits_is_refused(tmp_path: Path) -> None:
    import imagecodecs

    for bits in (8, 10):
        image = np.full((16, 16, 3), 2**bits - 3, np.uint8 if bits == 8 else np.uint16)
        (tmp_path / f"{bits}.png").write_bytes(imagecodecs.avif_encode(image, bitspersample=bits, level=100))
    assert read_image(tmp_path / "8.png").shape == (16, 16, 3)
    with pytest.raises(DataError, match=r"10\.png holds 3 bands of 10 bits, of which Pillow keeps 8 bits; save it as"):
        read_image(tmp_path / "10.png")


def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("imagecodecs.png_decode", full)
    monkeypatch.setattr("tifffile.TiffPage.asarray", full)
    for path in (
        write_png(tmp_path / "i.png", WORDS[..., :3], 2),
        write_tiff(tmp_path / "i.tif", WORDS[..., :3], photometric="rgb"),
    ):
        with pytest.raises(MemoryError):
            read_image(path)


def test_a_large_image_within_the_limit_is_no_warning(tmp_path: Path) -> None:
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    program = "import sys; from jaxseg.data.images import read_header; print(read_header(sys.argv[1])[:2])"
    result = subprocess.run(  # a process of its own, since pytest replaces the filters of warnings
        [sys.executable, "-c", program, str(tmp_path / "large.png")],
        env={**os.environ, MAX_PIXELS: "1200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("(30, 40)\n", "")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pixels_is_named_and_can_be_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=rf"large\.png has more than 1,000 pixels.* variable {MAX_PIXELS} "):
        read_image(tmp_path / "large.png")
    for most in ("0", "1200"):
        monkeypatch.setenv(MAX_PIXELS, most)
        assert read_image(tmp_path / "large.png").shape == (30, 40, 3)
    monkeypatch.setenv(MAX_PIXELS, "all")
    with pytest.raises(DataError, match="must be a whole number of at least 0, got 'all'"):
        read_image(tmp_path / "large.png")


def test_a_file_that_the_system_does_not_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "i.png"
    for error, words in (
        (PermissionError(13, "Permission denied"), "cannot be read: this user lacks the permission."),
        (OSError(5, os.strerror(5)), "cannot be read: Input/output error."),
    ):

        def opened(*_: Any, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(builtins, "open", opened)
        with pytest.raises(DataError, match=rf"i\.png {words}"):
            read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_does(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(BYTES[..., :3])
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(BYTES[..., :3], orientation), ImageOps.exif_transpose(image))

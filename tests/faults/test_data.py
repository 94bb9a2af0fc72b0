"""Files of images that disappear, change, hang or hold NaN in mid-run: named, and nothing of the run is lost."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.faults import Starter, bits, command
from PIL import Image

from jaxseg.data.shapes import ShapesSource

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes as files."""
    folder = tmp_path_factory.mktemp("data")
    for split, length in (("train", 12), ("val", 4)):
        source = ShapesSource(split, length, (16, 16))
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(length):
            example = source[index]
            Image.fromarray(example["image"]).save(folder / split / "images" / f"{index}.png")
            Image.fromarray(example["label"]).save(folder / split / "masks" / f"{index}.png")
    return folder


def of_folder(workdir: Path, folder: Path, **changes: object) -> list[str]:
    classes = "background,disc,square,triangle,ring,cross"
    return command(workdir, data__source="folder", data__dir=folder, data__classes=classes, data__prefetch=1, **changes)


@pytest.fixture(scope="module")
def expected_of_folder(starter: Starter, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    workdir = tmp_path_factory.mktemp("folder") / "run"
    status, said = starter.run(of_folder(workdir, folder))
    assert status == 0, said
    return bits(workdir)


def lose(file: Path) -> None:
    file.unlink()


def change(file: Path) -> None:
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(file)


def not_a_number(file: Path) -> None:
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(file, format="TIFF")


@pytest.mark.parametrize(
    ("fault", "message", "row"),
    [
        (lose, "There is no file", "an image disappears in mid-run"),
        (change, "was changed after the data were opened", "an image changes in mid-run"),
        (not_a_number, "holds numbers from nan to nan", "an image holds NaN"),
    ],
)
def test_an_image_that_breaks_in_mid_run(
    starter: Starter,
    folder: Path,
    expected_of_folder: dict[str, bytes],
    tmp_path: Path,
    record: Callable[..., None],
    fault: Callable[[Path], None],
    message: str,
    row: str,
) -> None:
    workdir, kept = tmp_path / "run", {}
    files = sorted((folder / "train" / "images").iterdir())
    training = starter.start(of_folder(workdir, folder))
    starter.wait_until(training, lambda: "\nstep 2/" in training.said(), 120)
    for file in files:  # one of them is read in every later step
        kept[file] = (file.read_bytes(), file.stat().st_mtime_ns)
        fault(file)
    status, said = starter.wait(training), training.said()
    if fault is change:  # all files are others now: a start is refused, and with "skip" goes on with them and says so
        refused, why = starter.run(of_folder(workdir, folder))
        assert refused == 1 and "has changed since" in why.strip().splitlines()[-1], why
        shutil.copytree(workdir, tmp_path / "skip")
        gone_on, why = starter.run(of_folder(tmp_path / "skip", folder, data__on_error="skip"))
        assert gone_on == 0 and "has changed since" in why, why
    for file, (content, changed) in kept.items():
        file.write_bytes(content)
        os.utime(file, ns=(changed, changed))
    error = said.strip().splitlines()[-1]
    assert status == 1 and error.startswith("error: ") and message in error and "/train/images/" in error, said
    assert "Traceback" not in said
    status, said = starter.run(of_folder(workdir, folder))
    assert status == 0, said
    assert bits(workdir) == expected_of_folder
    happened = "the run ends with the name of the file, status 1; with the file put back, the same bits"
    if fault is change:
        happened += "; without, a new start is refused, and goes on with a warning if data.on_error=skip"
    record(row, 1, happened)


def test_a_decoder_that_hangs(
    starter: Starter,
    folder: Path,
    expected_of_folder: dict[str, bytes],
    tmp_path: Path,
    record: Callable[..., None],
) -> None:
    workdir = tmp_path / "run"
    began = time.monotonic()
    status, said = starter.run(of_folder(workdir, folder, data__timeout=3), "hang", 20)
    assert status == 1 and "was not read within data.timeout=3 seconds" in said.strip().splitlines()[-1], said
    seconds = time.monotonic() - began
    status, said = starter.run(of_folder(workdir, folder, data__timeout=3))
    assert status == 0, said
    assert bits(workdir) == expected_of_folder
    status, said = starter.run(of_folder(tmp_path / "skip", folder, data__timeout=3, data__on_error="skip"), "hang", 20)
    assert status == 0 and said.count("data.on_error=skip: other images are in its place") == 1, said
    record(
        "a decoder that hangs",
        2,
        "with data.timeout=3 the run ends with the name of the image, and the same command in the same bits; with "
        "data.on_error=skip it goes on with another image and says so",
        seconds=round(seconds, 1),
    )

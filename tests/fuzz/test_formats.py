"""The data of strangers that `jaxseg convert` reads, and arrays as images: damaged, cut short, or forged."""

import base64
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.fuzzing import attempt, read_all
from helpers.mutations import mutated, mutated_text
from PIL import Image

from jaxseg.data.formats.collection import Options
from jaxseg.data.formats.colors import read_color_table
from jaxseg.data.formats.forms import read_form
from jaxseg.data.formats.writing import write_collection
from jaxseg.data.images import read_image
from jaxseg.errors import DataError
from jaxseg.pictures.opening import MAX_PIXELS

H, W = 6, 8
RING = [1, 1, 6, 1, 6, 5, 1, 5]
SIZE = {"height": H, "width": W}


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


IMAGE, MASK = png(np.full((H, W, 3), 90, np.uint8)), png(np.eye(H, W).astype(np.uint8))


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pairs() -> list[list[int]]:
    return [list(pair) for pair in zip(RING[::2], RING[1::2])]


def coco() -> bytes:
    kinds: list[dict[str, Any]] = [
        {"segmentation": [RING]},
        {"segmentation": {"size": [H, W], "counts": [20, 2, 4, 2, 20]}},
        {"segmentation": {"size": [H, W], "counts": "d0240`0"}},
        {"bbox": [1, 1, 3, 3]},
    ]
    annotations = [{"id": i, "image_id": 0, "category_id": i % 2, **kind} for i, kind in enumerate(kinds)]
    categories = [{"id": 0, "name": "cell"}, {"id": 1, "name": "cat"}]
    content = {
        "images": [{"id": 0, "file_name": "a.png", **SIZE}],
        "annotations": annotations,
        "categories": categories,
    }
    return json.dumps(content).encode()


def labelme() -> bytes:
    shapes = [
        {"label": "cat", "shape_type": "polygon", "points": pairs()},
        {"label": "cell", "shape_type": "mask", "points": [[1, 1], [4, 4]], "mask": text_of(png(np.eye(3) > 0))},
    ]
    return json.dumps({"imagePath": "a.png", "imageHeight": H, "imageWidth": W, "shapes": shapes}).encode()


def cvat() -> bytes:
    points = ";".join(f"{x},{y}" for x, y in pairs())
    return (
        f'<annotations><image id="0" name="a.png" width="{W}" height="{H}">'
        f'<polygon label="cat" points="{points}" z_order="1"/>'
        '<mask label="cell" rle="1, 2, 1, 2" left="3" top="2" width="3" height="2" z_order="0"/></image></annotations>'
    ).encode()


def label_studio() -> bytes:
    value = {"points": [[10, 10], [80, 10], [80, 80]], "polygonlabels": ["cat"]}
    result = {"type": "polygonlabels", "original_width": W, "original_height": H, "value": value}
    return json.dumps([{"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}]).encode()


def via() -> bytes:
    shapes = [
        {"name": "polygon", "all_points_x": RING[::2], "all_points_y": RING[1::2]},
        {"name": "ellipse", "cx": 3, "cy": 3, "rx": 2, "ry": 1, "theta": 0.5},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "cat"}} for shape in shapes]
    return json.dumps({"a.png9": {"filename": "a.png", "regions": regions}}).encode()


def supervisely() -> bytes:
    bitmap = {"origin": [1, 1], "data": text_of(zlib.compress(png(np.eye(3) > 0)))}
    objects = [
        {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": pairs(), "interior": [pairs()[:3]]}},
        {"classTitle": "cell", "geometryType": "bitmap", "bitmap": bitmap},
    ]
    return json.dumps({"size": SIZE, "objects": objects, "tags": []}).encode()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("0.png", IMAGE), ("0.seg.png", MASK), ("deep/1.png", IMAGE), ("deep/1.seg.png", MASK)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


class Form(NamedTuple):
    file: str
    good: bytes
    text: bool = True


FORMS = {
    "COCO with masks": Form("x.json", coco()),
    "LabelMe with masks": Form("x.json", labelme()),
    "CVAT with masks": Form("x.xml", cvat()),
    "Label Studio's polygons": Form("x.json", label_studio()),
    "VIA": Form("x.json", via()),
    "Supervisely": Form("a.png.json", supervisely()),
    "a table of pairs": Form("x.csv", b"image,mask,split\na.png,b.png,train\n./c.png,b.png,val\n"),
    "webdataset": Form("x.tar", tar(), text=False),
}


def cases(form: Form, count: int) -> Iterator[tuple[str, bytes]]:
    yield "as it is", form.good
    for seed in range(count):
        change = mutated_text if form.text and seed % 4 else mutated
        yield f"seed {seed}", change(form.good, seed)


@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMS)
def test_damaged_data_ends_in_a_result_or_a_sentence(
    tmp_path: Path, name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv(MAX_PIXELS, str(2**22))
    form, folder, out = FORMS[name], tmp_path / "in", tmp_path / "out"
    for made in (folder, out):
        made.mkdir()
    for image in ("a.png", "c.png"):
        (folder / image).write_bytes(IMAGE)
    (folder / "b.png").write_bytes(MASK)

    def read(path: Path) -> None:
        collection = read_form(path, "auto", Options(images=folder, classes=("background", "cat", "cell")))
        write_collection(collection, out)

    before = {path for path in tmp_path.parent.iterdir()}
    tally = read_all(name, folder / form.file, cases(form, count), read, names="")
    print(tally.row())
    assert tally.counts["result"] and tally.counts["sentence"]
    assert {path for path in tmp_path.parent.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}  # nothing is written elsewhere


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_arrays_end_in_a_sentence(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PIXELS, str(2**22))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    cube = np.arange(6 * 5 * 7, dtype=np.float32).reshape(6, 5, 7)
    np.save(tmp_path / "good.npy", cube)
    np.savez(tmp_path / "good.npz", cube)
    np.savez_compressed(tmp_path / "packed.npz", image=cube)
    for good in ("good.npy", "good.npz", "packed.npz"):
        data = (tmp_path / good).read_bytes()
        path = tmp_path / f"x{Path(good).suffix}"
        changed = ((f"seed {seed}", mutated(data, seed)) for seed in range(count))
        tally = read_all(good, path, changed, lambda path: read_image(path, 7, (0.0, 200.0)))
        print(tally.row())
        assert tally.counts["sentence"]


def test_a_bomb_of_entities_and_of_bytes_is_refused(tmp_path: Path) -> None:
    lines = ['<!ENTITY a0 "ha">', *(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))]
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "x.xml").write_text(f"<!DOCTYPE x [{''.join(lines)}]>{cvat().decode().replace('cat', '&a11;')}")
    outcome = attempt(lambda: read_form(tmp_path / "x.xml", "auto", Options()), "entities", names="x.xml", megabytes=30)
    assert "defines entities" in outcome.sentence
    (tmp_path / "x.xml").unlink()
    bomb = json.loads(supervisely())
    bomb["objects"] = bomb["objects"][1:2]  # beside others it is listed
    bomb["objects"][0]["bitmap"]["data"] = text_of(zlib.compress(b"\0" * 2**28, 9))
    (tmp_path / "a.png.json").write_text(json.dumps(bomb))
    outcome = attempt(lambda: read_form(tmp_path, "auto", Options()), "zlib", names="a.png.json", megabytes=200)
    assert "is unpacked to more than 67,108,864 bytes" in outcome.sentence


@pytest.mark.parametrize(
    "text", ["", "name,r,g,b\nx,1,2\n", "x:300,0,0::", "1 2 3 x\n1 2 3 y\n", "name,r,g,b\n\0,1,2,3\n"]
)
def test_tables_of_colours_are_read_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    outcome = attempt(lambda: read_color_table(tmp_path / "x.csv"), text, names="x.csv")
    assert outcome.sentence or "\0" in text
    with pytest.raises(DataError, match="cannot be read"):
        read_color_table(tmp_path / "none.csv")

"""The JSON, the tables and the other texts of strangers: data sets, annotations, folders of proposals and workdirs."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.fuzzing import attempt, read_all
from helpers.mutations import mutated_text
from helpers.tiny_run import make_run, tiny_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxseg.build import build_parts
from jaxseg.data import proposals
from jaxseg.data.classes_file import read_classes_file
from jaxseg.data.hierarchy import hierarchy_of, read_parents
from jaxseg.data.labelled import as_share
from jaxseg.data.weak.marks import check_marks, class_indices
from jaxseg.data.weak.reading import read_annotations
from jaxseg.errors import ConfigError, DataError
from jaxseg.files import names_in_npz, read_json
from jaxseg.inference import fitted
from jaxseg.inference.predictions_table import images_of_table, require_own_table
from jaxseg.inference.regions.world import read_world
from jaxseg.run import provenance, quantised
from jaxseg.run.load import load_config
from jaxseg.run.report import read_log
from jaxseg.run.workdir import read_data, require_own_json
from jaxseg.sweep.outputs import PLAN_FILE
from jaxseg.sweep.plan import read_plan
from jaxseg.sweep.records import read_failure, read_scores
from jaxseg.sweep.search.plan import SEARCH_FILE, Study, read_study
from jaxseg.sweep.search.spaces import LogUniform
from jaxseg.sweep.search.trials import TRIAL_FILE, name_of, read_trial


class Kind(NamedTuple):
    """A kind of file: its name, what is in a good one, its reader, and what a sentence about it names."""

    file: str
    good: bytes
    read: Callable[[Path], Any]
    names: str | None = None


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def as_csv(*rows: tuple[Any, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _classes(path: Path) -> None:
    found = read_classes_file(path.parent)
    assert found is not None
    found.palette()


def _marks(path: Path) -> None:
    annotations = read_annotations(path)
    class_indices(annotations, ("cell", "other"))
    for image in annotations.images:
        check_marks(annotations, image, (40, 60))


def _fitted(path: Path) -> Any:
    run: Any = SimpleNamespace(workdir=path.parent, step=10)
    return fitted.read_fit(run, path.name, "--fit", holds="temperature", parse=lambda c: float(c["temperature"]))


BOX = {"type": "rectanglelabels", "original_width": 60, "original_height": 40}
# 9,600 bytes of 255, the whole of 40 x 60 pixels: their number, words of 8 bits, four lengths of 16 bits, and one run.
RLE = np.packbits(
    [int(bit) for bit in f"{9600:032b}{7:05b}{15:04b}{15:04b}{15:04b}{15:04b}1{0:02b}{9599:016b}{255:08b}"]
)
OF_DATA = {
    "classes.json": Kind(
        "classes.json",
        as_json(
            {
                "classes": [{"index": 0, "name": "road", "colour": [9, 64, 0]}, {"index": 7, "name": "sky"}],
                "ignore_index": 255,
                "ignore_colour": [0, 0, 0],
            }
        ),
        _classes,
    ),
    "classes.json of names": Kind("classes.json", as_json({"classes": ["a", "b", "c"]}), _classes),
    "hierarchy": Kind(
        "tree.json",
        as_json({"car": "vehicle", "bus": "vehicle", "vehicle": "moving"}),
        lambda path: hierarchy_of(read_parents(path), ("car", "bus", "tree"), path),
    ),
    "COCO": Kind(
        "coco.json",
        as_json(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
                "categories": [{"id": 1, "name": "cell"}],
                "annotations": [
                    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12]},
                    {"image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3, 4, 5, 9]]},
                    {"image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]},
                ],
            }
        ),
        _marks,
    ),
    "LabelMe": Kind(
        "labelme.json",
        as_json(
            {
                "shapes": [
                    {"label": "cell", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"},
                    {"label": "cell", "points": [[5, 6], [8, 9]], "shape_type": "circle"},
                    {"label": "other", "points": [[1, 2], [3, 4], [5, 1]], "shape_type": "polygon"},
                ],
                "imagePath": "a.jpg",
                "imageHeight": 40,
                "imageWidth": 60,
                "flags": {"other": True},
            }
        ),
        _marks,
    ),
    "Label Studio": Kind(
        "tasks.json",
        as_json(
            [
                {
                    "data": {"image": "/data/upload/a.jpg"},
                    "annotations": [
                        {
                            "result": [
                                {
                                    **BOX,
                                    "value": {
                                        "x": 1,
                                        "y": 2,
                                        "width": 9,
                                        "height": 8,
                                        "rotation": 3,
                                        "rectanglelabels": ["cell"],
                                    },
                                },
                                {"type": "choices", "value": {"choices": ["other"]}},
                            ]
                        }
                    ],
                }
            ]
        ),
        _marks,
    ),
    "Label Studio's brush": Kind(
        "brush.json",
        as_json(
            [
                {
                    "data": {"image": "a.jpg"},
                    "annotations": [
                        {
                            "result": [
                                {**BOX, "type": "brushlabels", "value": {"brushlabels": ["cell"], "rle": RLE.tolist()}},
                            ]
                        }
                    ],
                }
            ]
        ),
        _marks,
    ),
    "CVAT": Kind(
        "cvat.xml",
        b'<?xml version="1.0"?><annotations><image id="0" name="a.jpg" width="60" height="40"><polygon label="cell" '
        b'points="1,2;3,4;5,1"/><box label="cell" xtl="1" ytl="2" xbr="10" ybr="12" rotation="3"/><tag label="other"/>'
        b'<polyline label="cell" points="1,2;3,4"/></image></annotations>',
        _marks,
    ),
    "CSV": Kind(
        "boxes.csv",
        as_csv(("image", "class", "left", "top", "right", "bottom"), ("a.jpg", "cell", 1, 2, 10, 12)),
        _marks,
    ),
    "world file": Kind("i.pgw", b"1.0\n0\n0\n-1\n500000\n60000\n", lambda path: read_world(path.with_suffix(".png"))),
}
SEARCH = {
    "experiment": "e.py",
    "overrides": [],
    "spaces": {"optimizer.learning_rate": {"kind": "LogUniform", "low": 0.1, "high": 0.2}},
    "trials": 3,
    "sampler": "random",
    "pruner": "median",
    "seed": 0,
    "startup": 5,
    "prune_from": 0,
    "split": "val",
    "start": {"format": 3, "steps": 4},
}
_STUDY = Study(**{**SEARCH, "overrides": (), "spaces": {"optimizer.learning_rate": LogUniform(0.1, 0.2)}})


def _trial(path: Path) -> Any:
    folder = path.parent / name_of(1)  # as it is named in the folder of a search
    if not folder.exists():
        folder.symlink_to(path.parent)
    return read_trial(_STUDY, path.parent, 1)


OF_RUNS = {
    "temperature": Kind("t.json", as_json({"temperature": 1.5, "step": 10}), _fitted),
    "quantised.json": Kind("quantised.json", as_json({"source": "/x"}), lambda path: quantised.origin_of(path.parent)),
    "run.json": Kind(
        "run.json",
        as_json({"starts": [{"time": "x", "step": 0, "device": {"kind": "cpu", "count": 1}}]}),
        lambda path: [dict(start) for start in provenance.read_starts(path.parent)],
    ),
    "log.jsonl": Kind("log.jsonl", b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n', read_log),
    "sweep.json": Kind(
        PLAN_FILE,
        as_json(
            {
                "experiment": "e.py",
                "variants": {"a": {}},
                "baseline": "a",
                "overrides": [],
                "own_seeds": [],
                "seeds": [1],
                "split": "val",
                "configs": None,
            }
        ),
        lambda path: read_plan(path.parent),
    ),
    "search.json": Kind(SEARCH_FILE, as_json(SEARCH), lambda path: read_study(path.parent)),
    "trial.json": Kind(
        TRIAL_FILE,
        as_json({"number": 1, "values": {"optimizer.learning_rate": 0.01, "model.args.widths": [4, 8]}}),
        _trial,
    ),
    "failure.json": Kind("failure.json", as_json({"error": "x"}), lambda path: read_failure(path.parent)),
    "scores of a sweep": Kind(
        "sweep-val.json",
        as_json({"split": "val", "which": "last", "step": 10, "config": {}}),
        lambda path: read_scores(path.parent, "val"),
    ),
    "a file of its own": Kind("own.json", as_json({"a": 1}), lambda path: require_own_json(path, ["a"])),
    "predictions.csv": Kind(
        "predictions.csv",
        as_csv(("image", "output", "height", "width", "a %", "problem"), ("a.jpg", "a.png", 2, 2, 50, "")),
        lambda path: (images_of_table(path.parent), require_own_table(path.parent)),
    ),
}


def cases(good: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    yield "as it should be", good
    for seed in range(count):
        yield f"seed {seed}", mutated_text(good, seed)


COUNT = pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])


@COUNT
@pytest.mark.parametrize("kind", [*OF_DATA, *OF_RUNS])
@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_damaged_texts_end_in_a_sentence(tmp_path: Path, kind: str, count: int) -> None:
    file, good, read, names = {**OF_DATA, **OF_RUNS}[kind]
    Image.new("L", (4, 4)).save(tmp_path / "i.png")
    tally = read_all(kind, tmp_path / file, cases(good, count), read, names=file if names is None else names)
    print(tally.row())
    assert tally.counts["result"]


@COUNT
def test_damaged_folders_of_proposals_end_in_a_sentence(tmp_path: Path, count: int) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "m.png")
    values = {"rank": 1, "name": "m", "image": tmp_path / "m.png", "mask": "m.png", "confidence": 0.5}
    table = as_csv(proposals.COLUMNS, tuple(values[c] if c in values else "" for c in proposals.COLUMNS))
    decision = {"decision": proposals.KEEP, "note": "", "mask": proposals.digest_of(tmp_path / "m.png")}
    decisions = as_json({"made_by": proposals.MADE_BY, "classes": ["a", "b"], "decisions": {"m": decision}})
    goods = {proposals.TABLE: table, proposals.DECISIONS: decisions}
    for name, good in goods.items():
        for other, content in goods.items():
            (tmp_path / other).write_bytes(content)
        tally = read_all(
            name,
            tmp_path / name,
            cases(good, count),
            lambda path: proposals.read_kept(path.parent, ("a", "b")),
            names=str(tmp_path),
        )
        print(tally.row())
        assert tally.counts["result"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), tiny_config())


def _parts(path: Path) -> None:
    config, data = load_config(path.parent), read_data(path.parent)
    build_parts(
        config, data.num_classes, data.class_weights, class_prior=data.class_prior, levels=data.hierarchy.levels
    )


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_damaged_records_of_a_run_end_in_a_sentence(run: Path, name: str, count: int) -> None:
    good = (run / name).read_bytes()
    try:
        tally = read_all(name, run / name, cases(good, count), _parts, names="")  # the key, where it is no file
        print(tally.row())
        assert tally.counts["result"] and tally.counts["sentence"]
    finally:
        (run / name).write_bytes(good)


def test_what_names_another_file_is_named_with_it(run: Path) -> None:
    good = (run / "config.json").read_bytes()
    try:
        (run / "config.json").write_bytes(good.replace(b'"data"', b'"dada"'))
        with pytest.raises(ConfigError, match=r"config\.json: There is no config key 'dada"):
            load_config(run)
    finally:
        (run / "config.json").write_bytes(good)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", [k for k in {**OF_DATA, **OF_RUNS} if {**OF_DATA, **OF_RUNS}[k].file.endswith("json")])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=JSON, data=st.data())
def test_any_json_in_the_place_of_another_ends_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: Any, data: st.DataObject
) -> None:
    file, good, read, _ = {**OF_DATA, **OF_RUNS}[kind]
    path = tmp_path_factory.getbasetemp() / f"json-{os.getpid()}" / file
    path.parent.mkdir(exist_ok=True)
    tree = json.loads(good)
    # It stands for the whole file, or for one value at some depth.
    node, place = {"": tree}, ""
    while isinstance(inner := node[place], dict | list) and inner and data.draw(st.booleans()):
        node, place = inner, data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
    node[place] = content
    whole = content if place == "" else tree
    path.write_text(json.dumps(whole), encoding="utf-8", errors="surrogatepass")
    attempt(lambda: read(path), f"{kind}: {whole!r}"[:300], names=file)


def test_json_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for text, reason in (
        ("[" * 10**5, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("1" * 5000, "more than 100 digits"),
        ("1e400", "too large"),
        ("[NaN]", "a finite number was expected"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_json(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_json(file)
    file.write_text("[NaN, -1e400]")
    assert np.isnan(read_json(file, finite=False)[0])
    file.write_bytes(b"PK\x03\x04 and nothing else")
    assert names_in_npz(file) == set()


def test_entities_of_xml_and_repeated_keys_take_no_time(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "x">{entities}]><annotations>&e11;</annotations>'
    (tmp_path / "a.xml").write_text(text)
    assert "entities of XML" in attempt(lambda: read_annotations(tmp_path / "a.xml"), "entities", seconds=1).sentence
    keys = ",".join(f'"k{i}": 0' for i in range(50_000))
    (tmp_path / "classes.json").write_text(f'{{"classes": ["a"], {keys}, "k7": 1}}')
    assert "'k7' occurs twice" in attempt(lambda: _classes(tmp_path / "classes.json"), "keys", seconds=2).sentence
    names = ",".join(f'"c{i}"' for i in range(50_000))
    (tmp_path / "classes.json").write_text(f'{{"classes": [{names}]}}')
    attempt(lambda: _classes(tmp_path / "classes.json"), "many classes", seconds=3)


def test_shares_of_a_thousand_million_digits_are_no_numbers() -> None:
    assert as_share("1e999999999") is None and as_share("0." + "1" * 10**6) is None
    assert as_share("5e-2") == as_share("0.05") == as_share(" 1/20 ")


def test_a_brush_of_more_pixels_than_an_image_is_refused(tmp_path: Path) -> None:
    task = json.loads(OF_DATA["Label Studio's brush"].good)
    brush = task[0]["annotations"][0]["result"][0]
    brush["original_width"] = brush["original_height"] = 30_000
    brush["value"]["rle"] = [*(4 * 30_000**2).to_bytes(4, "big"), *RLE[4:].tolist()]
    (tmp_path / "b.json").write_text(json.dumps(task))
    with pytest.raises(DataError, match="more than 178,956,970 pixels"):
        read_annotations(tmp_path / "b.json")

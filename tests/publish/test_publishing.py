"""A published network is that of its run, bit for bit, and says nothing of the machine; what may be replaced."""

import dataclasses
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Literal, get_origin

import jax
import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.published import COMMAND, PLANTED, SECRET, secret_run
from helpers.tiny_run import TINY, make_run, short_config

import jaxseg
from jaxseg.config import KEYS
from jaxseg.config.values import flatten, set_key
from jaxseg.data import make_source
from jaxseg.errors import CheckpointError, ConfigError, DataError
from jaxseg.pretrained import flatten as by_path
from jaxseg.publish import publish_run
from jaxseg.publish.__main__ import main
from jaxseg.publish.card import Words, card_of
from jaxseg.publish.places import PLACES, is_place, plain_command, without_places
from jaxseg.publish.record import record_of
from jaxseg.run.load import Run, load_run
from jaxseg.run.weights import plan_weights


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = secret_run(tmp_path_factory.mktemp("run") / "run")
    scores = {"step": 10, "which": "best", "images": 5, "mean_iou": 0.5, "split": "val"}
    classes = [{"name": name, "iou": 0.1 * i} for i, name in enumerate(load_run(made).classes)]
    intervals = {"level": 0.95, "mean_iou": [0.4, 0.6], "iou": {"disc": [0.05, 0.2], "ring": [None, None]}}
    report = {**scores, "classes": classes, "intervals": intervals, "config": {"data": {"dir": PLANTED["data.dir"]}}}
    (made / "evaluate-val.json").write_text(json.dumps(report))
    (made / "evaluate-test.json").write_text(json.dumps({**report, "step": 5, "mean_iou": 0.123}))
    (made / "temperature.json").write_text(json.dumps({"temperature": 1.5, "step": 10, "split": "val"}))
    return made


@pytest.fixture(scope="module")
def run(workdir: Path) -> Run:
    return load_run(workdir)


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published") / "net"
    words = Words("Shapes, drawn by hand.", datasets=("owner/shapes",))
    publish_run(run, made, licence="cc-by-4.0", words=words, exports=["stablehlo"])
    return made


def test_the_published_network_is_that_of_the_run_bit_for_bit(run: Run, folder: Path) -> None:
    back = load_run(folder)
    ours, theirs = by_path(run.variables), by_path(back.variables)
    assert ours.keys() == theirs.keys() and run.state.ema_params is not None
    for path, x in ours.items():
        np.testing.assert_array_equal(np.asarray(x), theirs[path], err_msg=path)
        assert theirs[path].dtype == x.dtype
    assert back.model == run.model and (back.step, back.which) == (10, "best")
    for field in ("classes", "colors", "values", "color_masks", "hierarchy", "class_weights"):
        assert getattr(back, field) == getattr(run, field)
    changed = {key for key, value in flatten(back.config).items() if value != flatten(run.config)[key]}
    assert changed == set(PLANTED) - {"data.cache", "compile.cache", "compile.options"}, "load_run drops these three"
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    a, b = (jaxseg.load(place).predict(image, probabilities=True) for place in (run.workdir, folder))
    np.testing.assert_array_equal(a.probabilities, b.probabilities)


AROUND = [
    {"quantise__weights": 4, "quantise__activations": 8},
    {"lora__rank": 2, "model__args": TINY | {"hidden_kernel": 1}},
    {"adversarial__weight": 0.1, "adversarial__widths": (4, 4)},
    {"model__crf": "deeplab-v1,learn=true"},
]


@pytest.mark.parametrize(
    "values",
    some_slow(AROUND, AROUND[1:]),
    ids=str,
)
def test_what_is_around_the_network_is_published_as_it_is_used(values: dict, tmp_path: Path) -> None:
    """Merged adapters, rounded kernels with their ranges, the segmenter without its discriminator."""
    run = load_run(make_run(tmp_path / "run", short_config(**values)))
    publish_run(run, tmp_path / "net", licence="mit")
    ours, theirs = by_path(run.variables), by_path(load_run(tmp_path / "net").variables)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_array_equal(np.asarray(x), theirs[path], err_msg=path)


def test_nothing_that_is_published_says_where_it_was_made(folder: Path, workdir: Path) -> None:
    assert SECRET in (workdir / "config.json").read_text() and SECRET in (workdir / "run.json").read_text()
    files = sorted(file.name for file in folder.iterdir())
    assert files == sorted(json.loads((folder / "published.json").read_text())["files"])
    assert {"README.md", "model.safetensors", "model.stablehlo", "temperature.json"} <= set(files)
    for file in folder.iterdir():
        content = file.read_bytes()
        words = (SECRET, str(workdir), str(Path.home()), str(Path.cwd()), socket.gethostname())
        for word in (word for word in words if len(word) > 4):  # vm, say, is found in any bytes
            assert word.encode() not in content, f"{file.name} holds {word}"


def test_every_key_that_names_a_place_is_left_out() -> None:
    texts = {n for n, key in KEYS.items() if isinstance(key.default, str) and get_origin(key.hint) is not Literal}
    told = re.compile(r"\b(folder|file|path|workdir|bucket)\b", re.IGNORECASE)
    named = {name for name in texts if told.search(KEYS[name].meaning) and name != "data.source"}
    assert named <= PLACES.keys() <= KEYS.keys()
    assert PLANTED.keys() - PLACES.keys() == {"compile.options"}


def test_names_that_are_no_places_stay() -> None:
    config = short_config(data__labelled="1/64", compile__cache="off", model__weights="hf://owner/name@v1")
    set_key(config, "model.encoder_weights", "imagenet")
    kept = without_places(config)
    assert (kept.data.labelled, kept.compile.cache) == ("1/64", "off")
    assert (kept.model.weights, kept.model.encoder_weights) == ("hf://owner/name@v1", "imagenet")
    set_key(config, "model.args", {"encoder": "/home/x"})
    with pytest.raises(ConfigError, match=r"model\.args\.encoder of the run names a place"):
        without_places(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("/a", "~/a", "../a", "C:\\a", "x=/a/b", "s3://b", "['/a']")),
        *((text, False) for text in ("cross_entropy + 0.5 * dice", "1/64", "hf://a/b", "train[:90%]")),
    ],
)
def test_what_a_place_is(text: str, expected: bool) -> None:
    assert is_place(text) is expected


def test_a_command_is_published_without_its_places() -> None:
    plain = plain_command(COMMAND)
    assert SECRET not in plain and "--workdir" not in plain
    assert plain.startswith("python -m jaxseg train --config EXPERIMENT.py:small --config.data.dir=PATH ")
    assert plain.endswith("--config.data.dir PATH --config.seed=3")
    ours = "python -m jaxseg.train --config /a/experiments/unet.py:folder --config.model.encoder_weights=imagenet"
    assert plain_command(ours) == ours.replace("/a/", "")
    for experiment, kept in (
        ("ex.py", "EXPERIMENT.py"),
        ("/a/mine.py:small", "EXPERIMENT.py:small"),
        ("experiments/resunet.py:camvid", "experiments/resunet.py:camvid"),
        ("../experiments/unet.py", "experiments/unet.py"),
    ):
        for start in ("python -m jaxseg train", "python -m jaxseg.train"):
            assert plain_command(f"{start} {experiment} --config.seed=3") == f"{start} {kept} --config.seed=3"
            assert plain_command(f"{start} --config {experiment} --config.seed=3").endswith(f" {kept} --config.seed=3")
    late = "python -m jaxseg train --config.seed=3 --processes 2 mine.py:small"
    assert plain_command(late) == late.replace("mine", "EXPERIMENT")
    for other in (
        "jaxseg.train('/a/b')",
        "python /home/x/train.py",
        "python -m mine",
        "'",
        None,
        3,
        "python -m jaxseg /a",
    ):
        assert plain_command(other) == ""


def test_the_card_has_the_head_of_the_hub_and_what_is_known(folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = (folder / "README.md").read_text()
    data = hub.ModelCard(text).data
    assert (data.license, data.library_name, data.datasets) == ("cc-by-4.0", "jaxseg", ["owner/shapes"])
    assert data.pipeline_tag == "image-segmentation" and "cnn" in data.tags
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("mean_iou", 0.5, "val")
    for words in (
        "Shapes, drawn by hand. Trained on the split `train`",
        "(8 images in `train`)",
        "| mean | 50.00 | 40.00 to 60.00 |",
        "| disc | 10.00 | 5.00 to 20.00 |",
        "| 1 | disc | #4287f5 |",
        "Seed 0, 10 steps of 8 images",
        f"jax {jax.__version__}, jaxlib ",
        "Its poorest class is background, with an IoU of 0.00 %",
    ):
        assert words in text
    assert "12.30" not in text, "the scores of another checkpoint"


def test_scores_are_those_of_the_network_by_itself_on_the_data_of_the_run(workdir: Path, tmp_path: Path) -> None:
    """Not of an ensemble, views, tiles, a CRF or another layout, nor under another name, nor of a damaged report."""
    copy = Path(shutil.copytree(workdir, tmp_path / "run"))
    report = json.loads((copy / "evaluate-val.json").read_text())
    ways = {"tiles": "", "overlap": None, "average": "", "runs": 1, "crf": ""}
    rates = {"model": {"args": {"encoder_args": {"output_stride": 8}}}}
    for name, change in (
        ("val-runs", {**ways, "runs": 3}),
        ("val-average", {**ways, "average": "flip"}),
        ("val-tiles", {**ways, "tiles": "auto"}),
        ("val-crf", {**ways, "crf": "w1=3"}),
        ("train", {**ways, "split": "train", "tiles": [64, 64]}),
        ("old", {}),
        ("a", {"split": "a", "images": "many"}),
        ("b", {"split": "b", "classes": [1]}),
        ("test_100_", {"split": "test[100]", "mean_iou": 0.25}),
        ("far", {"split": "far", "mean_iou": 0.75, "config": {"data": {"dir": "/elsewhere"}}}),
        ("layout", {"split": "layout", "config": rates}),
    ):
        (copy / f"evaluate-{name}.json").write_text(json.dumps({**report, **change}))
    publish_run(load_run(copy), tmp_path / "net", licence="mit")
    scores = json.loads((tmp_path / "net" / "published.json").read_text())["scores"]
    found = {each["split"]: (each["mean_iou"], each["other"] if "other" in each else None) for each in scores}
    assert found == {"val": (0.5, None), "test[100]": (0.25, None), "far": (0.75, ["data.dir"])}
    card = (tmp_path / "net" / "README.md").read_text()
    assert "`far`, 5 images, scored with another `data.dir` than that of the training: these may be" in card
    assert 'split: "far"' not in card and 'split: "val"' in card and "elsewhere" not in card


def test_it_is_the_weights_that_a_run_starts_from(run: Run, folder: Path) -> None:
    config = short_config(model__weights=str(folder))
    parts = dataclasses.replace(run.parts, config=config)
    planned = plan_weights(parts)
    assert planned is not None and planned.origin.file.endswith("net, best checkpoint, step 10")
    theirs = by_path(planned.variables)
    for path, x in by_path(run.variables).items():
        np.testing.assert_array_equal(np.asarray(x), theirs[path], err_msg=path)


def test_the_same_network_is_published_again_and_another_is_not(run: Run, tmp_path: Path) -> None:
    target, options = tmp_path / "net", {"licence": "mit"}
    first = publish_run(run, target, **options, dry_run=True)
    assert not first.done and not target.exists() and {name for name, _ in first.files} > {"README.md"}
    publish_run(run, target, **options)
    again = dataclasses.replace(run, state=run.state.replace(step=np.int32(20)))
    (target / "notes.txt").write_text("mine")
    for path in (target / "published.json", target / "notes.txt"):  # a record may list what is not jaxseg's
        record = json.loads((target / "published.json").read_text())
        (target / "published.json").write_text(json.dumps({**record, "files": [*record["files"], path.name, ["a"]]}))
    assert publish_run(again, target, **options).removed == ()
    assert load_run(target).step == 20
    other = load_run(make_run(tmp_path / "other", short_config(seed=7)))
    with pytest.raises(ConfigError, match=r"holds another published network; give another folder, or --replace"):
        publish_run(other, target, **options)
    assert load_run(target).step == 20
    assert publish_run(other, target, **options, replace=True).removed == ("temperature.json",)
    assert load_run(target).config.seed == 7 and (target / "notes.txt").read_text() == "mine"
    assert not (target / "temperature.json").exists()


def test_a_card_that_a_person_has_edited_is_not_replaced(run: Run, tmp_path: Path) -> None:
    publish_run(run, tmp_path, licence="mit")
    card = tmp_path / "README.md"
    written = card.read_text()
    card.write_text(f"{written}\nAsk me first.\n")
    for dry_run in (True, False):
        with pytest.raises(
            ConfigError, match=r"README\.md was changed after it was published; keep a copy and give --r"
        ):
            publish_run(run, tmp_path, licence="mit", dry_run=dry_run)
    assert card.read_text().endswith("Ask me first.\n")
    publish_run(run, tmp_path, licence="mit", replace=True)
    assert "Ask me" not in card.read_text()
    card.unlink()
    assert publish_run(run, tmp_path, licence="mit").done and card.is_file()


def test_the_record_of_a_stranger_is_published_without_what_it_should_not_have(folder: Path, tmp_path: Path) -> None:
    stranger = Path(shutil.copytree(folder, tmp_path / "stranger"))
    record = json.loads((stranger / "published.json").read_text())
    mark = "x</a>](http://elsewhere/)`"

    def published(training: object, name: str) -> tuple[dict, str]:
        changed = {**record, "training": training, "licence": mark, "scores": [1]}
        if training is None:
            del changed["training"]
        (stranger / "published.json").write_text(json.dumps(changed))
        publish_run(load_run(stranger), tmp_path / name, licence="mit")
        made = tmp_path / name
        return json.loads((made / "published.json").read_text())["training"], (made / "README.md").read_text()

    assert published(record["training"], "a")[0] == record["training"]
    for number, training in enumerate((None, [1], {"images": [1], "starts": "3", "device": 1, "packages": ["a"]})):
        kept, card = published(training, f"b{number}")
        assert kept["images"] == kept["packages"] == kept["device"] == {} and "The command is not recorded" in card
    bad = dict.fromkeys(("seed", "commit", "command", "fold", "starts"), mark)
    groups = {"images": {"/home/x": 3, "a": mark}, "packages": {"jax": "/home/x"}, "device": {"kind": mark, "count": 1}}
    kept, card = published({**bad, **groups}, "c")
    assert "elsewhere" not in card and "/home/x" not in card and "elsewhere" not in json.dumps(kept)


@pytest.mark.parametrize("several", [False, True])
def test_the_card_says_how_many_classes_a_pixel_has_and_which_values_are_1(run: Run, several: bool) -> None:
    config = short_config(
        data__range=(0, 4095), data__source="folder", **({"data__multilabel": "bits"} if several else {})
    )
    own = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=config))
    card = card_of(own, {**record_of(own, b"", "mit"), "files": []}, "net", Words())
    assert "The values 0 and 4095 of an image file are 0 and 1 (`data.range`)." in card
    assert ("A pixel may have several of the classes, or none (`data.multilabel`)" in card) is several
    assert ("pixel of an image one of the classes" in card) is ("one of its classes to every" in card) is not several


def test_a_network_of_other_data_is_another_network(tmp_path: Path) -> None:
    """The places that are not published, and what run.json says of the data, tell networks apart."""
    workdir = secret_run(tmp_path / "run")
    publish_run(load_run(workdir), tmp_path / "net", licence="mit")
    copy = Path(shutil.copytree(workdir, tmp_path / "copy"))
    assert publish_run(load_run(copy), tmp_path / "net", licence="mit").done
    config, record = (json.loads((workdir / name).read_text()) for name in ("config.json", "run.json"))
    for key in ("dir", "annotations", "fold_file"):
        (copy / "config.json").write_text(json.dumps({**config, "data": {**config["data"], key: "/elsewhere/a"}}))
        with pytest.raises(ConfigError, match="holds another published network"):
            publish_run(load_run(copy), tmp_path / "net", licence="mit")
    (copy / "config.json").write_text(json.dumps({**config, "data": {**config["data"], "cache": "/elsewhere"}}))
    assert publish_run(load_run(copy), tmp_path / "net", licence="mit").done
    record["starts"][0]["data"]["train"]["names"] = "0123456789abcdef"
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="holds another published network"):
        publish_run(load_run(copy), tmp_path / "net", licence="mit")
    publish_run(load_run(tmp_path / "net"), tmp_path / "again", licence="mit")
    assert publish_run(load_run(workdir), tmp_path / "again", licence="mit").done


def test_a_fold_is_left_out_with_what_says_its_images() -> None:
    """Otherwise `evaluate --split fold` would score other images, most of which the network has learnt from."""
    for key in ("fold_file", "group"):
        config = short_config(data__fold="2/3", **{f"data__{key}": "folds.csv" if key == "fold_file" else "a(b+)"})
        kept = without_places(config)
        assert (kept.data.fold, kept.data.fold_file, kept.data.group) == ("", "", "")
        with pytest.raises(DataError, match="'fold'"):
            make_source(kept, "fold")
    assert without_places(short_config(data__fold="2/3")).data.fold == "2/3"


def test_that_groups_were_held_out_is_published_without_their_places() -> None:
    """Otherwise `evaluate --split val` would hold out single images, most of which the network has learnt from."""
    for key, value, published in (
        ("group", "people.csv:patient", "withheld"),
        ("val_group", "people.csv:site", "withheld"),
        ("val_group", "names", "names"),
        ("division", "stable", "group"),
    ):
        kept = without_places(short_config(data__source="folder", **{f"data__{key}": value}))
        assert (kept.data.group, kept.data.val_group) == ("", published)
    former = short_config(data__source="folder", data__division="former", data__group="a")
    assert without_places(former).data.val_group == "group"  # no group was held out


def test_what_cannot_be_published_is_said(run: Run, workdir: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for target, licence, words in (
        (tmp_path / "x", None, "Give --licence, under which others may use the weights: apache-2.0"),
        (tmp_path / "x", "My Licence", "takes an identifier of the Hub"),
        (tmp_path / "x", "ccby", "got 'ccby'. Did you mean 'cc-by-4.0'?"),
        (tmp_path / "mine", "mit", "holds files that are no published network"),
        (tmp_path / "mine" / "README.md", "mit", "is a file; give a folder"),
        (workdir, "mit", "is the workdir of a run"),
        *((f"hf://{name}", "mit", "names no repository to publish to") for name in ("a", "a/b/c", "a/..", "a/b@v1")),
    ):
        with pytest.raises(ConfigError, match=words):
            publish_run(run, target, licence=licence)
    with pytest.raises(ConfigError, match=r"--export takes stablehlo and onnx, got 'onx'\. Did you mean 'onnx'"):
        publish_run(run, tmp_path / "x", licence="mit", exports=["onx"])
    with pytest.raises(CheckpointError, match="has the best checkpoint of its run alone"):
        publish_run(run, tmp_path / "y", licence="mit")
        load_run(tmp_path / "y", "last")
    assert main([str(workdir), str(tmp_path / "z")]) == 1 and "Give --licence" in capsys.readouterr().err
    assert main([str(workdir), str(tmp_path / "z"), "--licence", "mit", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "nothing is published, a dry run" in said and "model.safetensors" in said and not (tmp_path / "z").exists()


def test_damage_ends_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = (copy / "model.safetensors").read_bytes()
    for content, words in (
        (weights[:-1] + b"\xff", "its SHA-256 is not that in published.json"),
        (weights + bytes(2**25), "more than the .* that the network can take"),
    ):
        (copy / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            load_run(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file"):
        load_run(copy)
    record = json.loads((copy / "published.json").read_text())
    for change, words in (
        ({"format": 2}, "it has the form 2, this jaxseg reads 1"),
        ({"program": "x"}, "another program wrote it"),
        ({"step": -1}, "its step or its checkpoint"),
        ({"sha256": "0"}, "it has no SHA-256"),
        ({"files": None}, "it has no list of files"),
    ):
        (copy / "published.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(ConfigError, match=f"is not the record of a published network: {words}"):
            load_run(copy)

"""A run that is started again from its workdir has the same curve, and what differs is named."""

import json
import shutil
import uuid

import fsspec
import jax
import numpy as np
import pytest
from helpers.tiny_run import make_folder, short_config

from jaxseg import build, compiler, reproduce
from jaxseg.config import update
from jaxseg.data.fingerprint import fingerprint
from jaxseg.data.shapes import ShapesSource
from jaxseg.run import provenance, revision
from jaxseg.run.copies import Copies
from jaxseg.run.workdir import read_config
from jaxseg.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 4 steps, scored after 2 and 4."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(short_config(), workdir, "x")
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(run, tmp_path / "copy")


def rewrite(workdir, change):
    """Changes the lines of the log."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    (workdir / "log.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def change_config(workdir, group, **values):
    """Changes keys of a group in the stored configuration."""
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps({**config, group: {**config[group], **values}}))


def test_the_whole_run_is_reproduced_bit_for_bit(run, tmp_path, capsys):
    again = tmp_path / "again"
    assert reproduce.main([str(run), "--workdir", str(again), "--tolerance", "0"]) == 0
    said = capsys.readouterr().out
    assert f"What differs here from {run}:\n  nothing of what it recorded\n" in said
    assert "The curve is equal bit for bit: 6 lines of steps 1 to 4." in said
    assert reproduce.curve(again) == reproduce.curve(run)


def test_the_beginning_is_compared_and_what_differs_is_named(copy, tmp_path, capsys):
    rewrite(copy, lambda line: {**line, "loss": line["loss"] + 0.25 * (line["step"] >= 2)})
    again = ["--workdir", str(tmp_path / "again"), "--steps", "2"]
    assert reproduce.main([str(copy), *again]) == 1
    said = capsys.readouterr().out
    assert "The curve is not within 0.001: 3 lines of steps 1 to 2.\nThe first step that differs: train loss at" in said
    assert "at step 2: " in said and max(step for _, step in reproduce.curve(tmp_path / "again")) == 2
    assert reproduce.main([str(copy), *again, "--tolerance", ".2"]) == 0  # .25 of a loss above 1.25
    assert reproduce.main([str(copy), *again[:2], "--steps", "1"]) == 0
    assert max(step for _, step in reproduce.curve(tmp_path / "again")) == 2  # it has made these steps already


def test_the_copies_of_the_run_are_neither_read_nor_written(copy, tmp_path, capsys):
    url, store = f"memory://{uuid.uuid4().hex}/run", fsspec.filesystem("memory")
    rewrite(copy, lambda line: {**line, "loss": line["loss"] + 1})  # a log that only its copies repeat
    change_config(copy, "checkpoint", copy_to=url)
    with Copies(url, copy) as copies:
        copies.start(4)
        assert copies.settle() == ""
    stored = {path: store.cat_file(path) for path in store.find(url)}
    assert len(stored) == 2
    again = tmp_path / "again"
    assert reproduce.main([str(copy), "--workdir", str(again), "--steps", "2"]) == 1
    said = capsys.readouterr().out
    assert "The curve is not within 0.001: 3 lines of steps 1 to 2." in said and url not in said
    assert read_config(again).checkpoint.copy_to == ""
    assert {path: store.cat_file(path) for path in store.find(url)} == stored


def test_what_a_stored_configuration_names_is_not_opened_and_data_may_lie_elsewhere(copy, tmp_path, monkeypatch):
    opened, trained = [], []
    monkeypatch.setattr(reproduce.compiler, "keep_programs", opened.append)
    monkeypatch.setattr(reproduce, "train", lambda config, *arguments, **options: trained.append(config))
    make_folder(tmp_path / "here", [(16, 16)], classes=6, split="train")
    make_folder(tmp_path / "here", [(16, 16)], classes=6)
    place = str(tmp_path / "theirs")
    change_config(copy, "compile", cache=place, options={"xla_dump_to": place, "xla_cpu_enable_fast_math": False})
    change_config(copy, "data", source="folder", dir=str(tmp_path / "nowhere"))
    record = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**record, "classes": [f"class {i}" for i in range(6)]}))
    arguments = [str(copy), "--workdir", str(tmp_path / "again"), "--config.data.dir", str(tmp_path / "here")]
    assert reproduce.main(arguments) == 1  # nothing was trained
    (config,) = trained
    assert (
        opened == [""]
        and config.compile.cache == ""
        and dict(config.compile.options) == {"xla_cpu_enable_fast_math": False}
    )
    assert config.data.dir == str(tmp_path / "here")


def test_wrong_input_is_one_sentence_and_starts_nothing(copy, tmp_path, capsys):
    def said(*arguments):
        assert reproduce.main([str(copy), *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
        return error

    assert "A repetition has no checkpoint.copy_to" in said("--config.checkpoint.copy_to=memory://x/y")
    assert "seed belongs to the trained run and cannot be changed" in said("--config.seed=1")
    assert "is the run itself; give another directory" in said("--workdir", str(copy))
    record = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**record, "classes": ["sky", *record["classes"][1:]]}))
    assert "was trained on the classes sky, disc" in said()
    config = json.loads((copy / "config.json").read_text())
    missing = {**config, "data": {**config["data"], "source": "folder", "dir": str(tmp_path / "nowhere")}}
    (copy / "config.json").write_text(json.dumps(missing))
    assert "nowhere" in said()
    (copy / "config.json").write_text(json.dumps(config))
    later = (json.dumps({"split": "train", "step": step, "loss": 1.0}) + "\n" for step in (20, 40))
    (copy / "log.jsonl").write_text("".join(later))
    assert "has no line up to step 8, and its first is of step 20; give --steps 20 or more." in said("--steps", "8")
    (copy / "log.jsonl").write_text("")
    assert "has no line: there is nothing to compare with." in said("--steps", "3")
    (copy / "config.json").unlink()
    assert "holds no run: there is no config.json in it." in said()


def test_curves_by_hand():
    then = {("train", 1): {"loss": 2.0, "iou/0": 0.5}, ("val", 2): {"loss": 4.0, "iou/0": None}}
    assert reproduce.compare(then, then).reproduced and str(reproduce.compare(then, then)).startswith("The curve is eq")
    now = {("train", 1): {"loss": 2.0, "iou/0": 0.75}, ("val", 2): {"loss": 2.0, "iou/0": None}}
    found = reproduce.compare(then, now, 0.25)
    assert (found.first.name, found.first.size) == ("iou/0", 0.25)  # absolute below 1
    assert (found.largest.name, found.largest.size) == ("loss", 0.5)  # a share above 1
    assert not found.reproduced and reproduce.compare(then, now, 0.5).reproduced
    fewer = reproduce.compare(then, {("train", 1): then["train", 1]}, 1.0)
    assert not fewer.reproduced and "Missing: val at step 2." in str(fewer)
    other = reproduce.compare(then, {**then, ("val", 2): {"loss": None}}, 1e9)
    assert other.largest.size == float("inf") and not other.reproduced


def test_a_start_records_what_changes_numbers(run):
    (start,) = provenance.read_starts(run)
    assert start["xla"]["jaxlib"] == provenance.jaxlib_build() and len(start["xla"]["jaxlib"]) == 16
    assert start["device"]["cpu_features"] == compiler.cpu_features()
    assert {"scipy", "ml_dtypes"} <= start["packages"].keys()
    assert start["data"]["train"]["images"] == 8 and len(start["data"]["train"]["pixels"]) == 8
    now = {**start, "python": "3.99", "packages": {**start["packages"], "numpy": "0"}, "environment": {"A": "1"}}
    lines, unknown = reproduce.differences({name: start[name] for name in start if name != "xla"}, now)
    assert unknown == ["xla"] and f"python: {start['python']} then, 3.99 now" in lines
    assert f"packages.numpy: {np.__version__} then, 0 now" in lines and "environment.A: nothing then, 1 now" in lines
    more = {**start, "device": {**start["device"], "cpu_features": start["device"]["cpu_features"] + " avx9"}}
    assert reproduce.differences(start, more)[0] == ["device.cpu_features: nothing then, avx9 now"]


def test_the_fingerprint_sees_names_numbers_and_pixels():
    class Changed:
        def __init__(self, name="", pixel=0, length=40):
            self.source, self.added, self.pixel, self.length = ShapesSource("train", 40, (8, 8)), name, pixel, length

        def __len__(self):
            return self.length

        def name(self, index):
            return self.source.name(index) + self.added

        def __getitem__(self, index):
            example = self.source[index]
            return {**example, "label": example["label"] + np.uint8(self.pixel)}

    same = fingerprint(Changed())
    assert same == fingerprint(Changed()) and same["images"] == 40 and len(same["pixels"]) == 16
    assert {"0", "39"} < same["pixels"].keys()
    assert fingerprint(Changed(name="x"))["names"] != same["names"]
    assert fingerprint(Changed(length=39))["images"] == 39
    assert not set(fingerprint(Changed(pixel=1))["pixels"].values()) & set(same["pixels"].values())
    short = fingerprint(Changed(), seconds=0)
    assert len(short["pixels"]) == 1
    lines, _ = reproduce.differences({"data": {"train": same}}, {"data": {"train": short}})
    assert lines == []  # those that both have


def test_changes_to_the_commit_are_kept_up_to_a_size(monkeypatch):
    texts = {"ls-files": "", "rev-parse": 40 * "a", "status": " M x", "diff": "abc" * 10}
    monkeypatch.setattr(revision, "_git", lambda directory, word, *_: texts[word])
    found = revision.git_diff(most=4)
    assert (found["characters"], found["text"], len(found["digest"])) == (30, "abca", 16)
    texts["status"] = ""
    assert revision.git_diff() is None


def test_deterministic_reaches_the_options_of_a_gpu(monkeypatch):
    config = short_config(compile__deterministic=True)
    assert build.step_options(config) == {}  # CPUs give the same bits anyway
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert build.step_options(config) == {"xla_gpu_deterministic_ops": True}
    update(config, compile__options={"xla_gpu_deterministic_ops": False})
    assert build.step_options(config) == {"xla_gpu_deterministic_ops": False}  # what is given by hand holds
    monkeypatch.undo()
    assert compiler.compiler_options(compiler.DETERMINISTIC["gpu"])["xla_gpu_deterministic_ops"] is True  # XLA knows it

"""The directory of a run: written atomically, and refused if it holds another run."""

import importlib.machinery
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxseg.config import default_config, flatten, set_key, to_dict, update
from jaxseg.data.hierarchy import Hierarchy
from jaxseg.errors import ConfigError
from jaxseg.pictures import save_image
from jaxseg.pictures.marks import FIGURE
from jaxseg.run import lists, messages, provenance, revision, workdir


def test_writes_the_config_and_takes_it_again(tmp_path: Path) -> None:
    config = default_config()
    set_key(config, "model.args", {"widths": (8, 16), "shortcut": "learned"})
    path = workdir.prepare_workdir(tmp_path / "a/b", config)
    assert path == tmp_path / "a/b"
    assert flatten(workdir.read_config(path)) == flatten(config)
    assert workdir.prepare_workdir(path, config) == path
    assert [p.name for p in path.iterdir()] == ["config.json"]


def test_refuses_another_config_and_names_the_keys(tmp_path: Path) -> None:
    config = default_config()
    workdir.prepare_workdir(tmp_path, config)
    (tmp_path / "checkpoints/10.orbax-checkpoint-tmp").mkdir(parents=True)  # an incomplete checkpoint counts too
    set_key(config, "optimizer.learning_rate", 0.5)
    set_key(config, "steps", 7)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate: 0.001 -> 0.5; steps: 1000 -> 7"):
        workdir.prepare_workdir(tmp_path, config)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["log.jsonl", "run.json", "data.json", "gradients.jsonl", "curves.png", "samples.png"])
def test_a_run_replaces_no_file_of_someone_else(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    Image.new("L", (2, 2)).save(file, format="PNG")
    before = file.read_bytes()
    config = default_config()
    update(config, log__gradients=True, model__name="dcgan")
    with pytest.raises(
        ConfigError, match=rf"{name} would replace a file that jaxseg did not write; give another --work"
    ):
        workdir.prepare_workdir(tmp_path, config)
    assert [p.name for p in tmp_path.iterdir()] == [name] and file.read_bytes() == before
    file.unlink()
    workdir.prepare_workdir(tmp_path, config)
    save_image(np.zeros((2, 2), np.uint8), file, software=FIGURE)
    workdir.prepare_workdir(tmp_path, config)  # its own files


@pytest.mark.parametrize("name", ["gradients.jsonl", "gradients.png", "samples.png", "predictions.png"])
def test_a_file_of_someone_else_that_the_run_does_not_write_may_stay(tmp_path: Path, name: str) -> None:
    Image.new("L", (2, 2)).save(tmp_path / name, format="PNG")
    config = default_config()
    update(config, log__images=0)
    workdir.prepare_workdir(tmp_path, config)
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["files.txt", "digests.txt", "proposals.txt"])
@pytest.mark.parametrize("text", ["", "notes of mine\n", "12 a.png\nand a note\n", "0123456789abcdef a.png\n\n", "12"])
def test_a_list_of_the_user_in_the_directory_of_an_earlier_run_stays(tmp_path: Path, name: str, text: str) -> None:
    config = default_config()
    update(config, data__source="folder", data__dir="data", data__proposals="proposals")
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    workdir.prepare_workdir(tmp_path, config)  # goes on without the file
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name} would replace a file that jaxseg did not write; move it out"):
        workdir.prepare_workdir(tmp_path, config)
    assert (tmp_path / name).read_text() == text
    (tmp_path / name).write_text(f"{'0' * 16} a.png\n{'1' * 16} b c.png\n")
    workdir.prepare_workdir(tmp_path, config)


def test_a_figure_of_an_earlier_version_is_that_of_the_run(tmp_path: Path) -> None:
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", "Matplotlib version3.10.0, https://matplotlib.org/")
    Image.new("L", (2, 2)).save(tmp_path / "curves.png", pnginfo=mark, dpi=(110, 110))
    workdir.prepare_workdir(tmp_path, default_config())
    Image.new("L", (2, 2)).save(tmp_path / "curves.png", pnginfo=mark, dpi=(100, 100))
    with pytest.raises(
        ConfigError, match=r"curves\.png would replace a figure of matplotlib .*; give another --workdir"
    ):
        workdir.prepare_workdir(tmp_path, default_config())


def test_samples_of_an_earlier_version_are_those_of_the_run(tmp_path: Path) -> None:
    save_image(np.zeros((2, 2), np.uint8), tmp_path / "samples.png")
    config = default_config()
    update(config, model__name="dcgan")
    with pytest.raises(ConfigError, match=r"samples\.png would replace a file"):
        workdir.prepare_workdir(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    workdir.prepare_workdir(tmp_path, config)


@pytest.mark.parametrize("empty", [False, True])
def test_a_start_that_saved_nothing_has_no_effect_on_later_starts(tmp_path: Path, empty: bool) -> None:
    config = default_config()
    workdir.prepare_workdir(tmp_path, config)
    if empty:
        (tmp_path / "checkpoints").mkdir()
    set_key(config, "steps", 7)
    workdir.prepare_workdir(tmp_path, config)
    assert workdir.read_config(tmp_path).steps == 7


def test_keys_that_change_no_number_may_differ(tmp_path: Path) -> None:
    config = default_config()
    workdir.prepare_workdir(tmp_path, config)
    set_key(config, "data.dir", "/elsewhere")
    set_key(config, "log.every", 3)
    workdir.prepare_workdir(tmp_path, config)
    assert workdir.read_config(tmp_path).data.dir == "/elsewhere"


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/nothing/here"])
def test_directory_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"The workdir .* cannot be written: (File exists|Not a directory|No such file).*--workdir"
    ):
        workdir.prepare_workdir(tmp_path / path, default_config())


def test_read_only_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(workdir.tempfile, "TemporaryFile", refuse)  # the tests may run as root
    with pytest.raises(ConfigError, match=r"The workdir .* cannot be written: Permission denied"):
        workdir.prepare_workdir(tmp_path, default_config())


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[1]", "holds list"), ("{}", "is empty"), ('{"sed": 1}', "no config key 'sed'")],
)
def test_unreadable_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        workdir.prepare_workdir(tmp_path, default_config())
    with pytest.raises(ConfigError, match="holds no run"):
        workdir.read_config(tmp_path / "nowhere")


def test_checkpoints_of_who_knows_what(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/10").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"checkpoints but no config.json"):
        workdir.prepare_workdir(tmp_path, default_config())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    workdir.write_json(file, {"a": 1})
    with pytest.raises(ValueError):
        workdir.write_json(file, {"a": float("nan")})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        workdir.write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [file]
    with pytest.raises(ConfigError, match=r"config.json cannot be written: No space left"):
        workdir.prepare_workdir(tmp_path, default_config())


def test_default_workdir() -> None:
    assert workdir.default_workdir("experiments/resunet.py") == Path("runs/resunet")
    assert workdir.default_workdir("experiments/resunet.py:camvid") == Path("runs/resunet-camvid")


@pytest.mark.parametrize(
    ("argv", "module", "command"),
    [
        (["FILE", "--config", "my runs/a.py"], "jaxseg.train", "python -m jaxseg.train --config 'my runs/a.py'"),
        (["FILE", "--report"], "jaxseg.sweep.__main__", "python -m jaxseg.sweep --report"),
        (["FILE", "train", "--config", "a.py"], "jaxseg.__main__", "python -m jaxseg train --config a.py"),
        (["/env/bin/jaxseg", "train", "--config", "a.py"], None, "python -m jaxseg train --config a.py"),
        (["jaxseg.sweep", "--jobs", "2"], "jaxseg.sweep.worker", "python -m jaxseg.sweep --jobs 2"),
        (["FILE", "-x"], None, "python FILE -x"),
        (["FILE", "-x"], "cProfile", "python FILE -x"),
        (["-c"], None, ""),
        (["-", "-x"], None, ""),
        ([""], None, ""),
    ],
)
def test_command_is_recorded_as_one_types_it(argv, module, command, monkeypatch, tmp_path) -> None:
    file = tmp_path / "program.py"
    file.touch()
    monkeypatch.setattr(sys, "argv", [str(file) if word == "FILE" else word for word in argv])
    origin = str(file) if module and module.startswith("jaxseg") else "elsewhere"
    spec = module and importlib.machinery.ModuleSpec(module, None, origin=origin)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    provenance.run_record(tmp_path, default_config())
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert start["command"] == command.replace("FILE", str(file))


def test_a_notebook_has_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [__file__, "-f", "/home/me/kernel.json"])
    for session, command in ((None, f"python {__file__} -f /home/me/kernel.json"), ("a session", "")):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda session=session: session))
        assert provenance.command_line() == command


@pytest.mark.parametrize(
    ("program", "evaluate", "predict"),
    [
        ("jaxseg train", "jaxseg evaluate --workdir 'a b' --split test", "jaxseg predict --workdir 'a b' IMAGES"),
        (messages.PROGRAM, "python -m jaxseg.evaluate --workdir 'a b' --sp", "python -m jaxseg.predict --workdir"),
        (messages.FROM_PYTHON, "run = jaxseg.load('a b'); run.evaluate('test')", "run.predict('IMAGE')"),
    ],
)
def test_the_last_message_has_the_form_that_the_user_called(program: str, evaluate: str, predict: str) -> None:
    lines = messages.closing_message(default_config(), Path("a b"), program).splitlines()
    assert any("report 'a b'  (a page" in line for line in lines) == (program != messages.FROM_PYTHON)
    assert lines[-2].startswith(f"evaluate:    {evaluate}") and lines[-1].startswith(f"predict:     {predict}")


def test_each_start_is_recorded(tmp_path: Path) -> None:
    config = default_config()
    provenance.run_record(tmp_path, config)
    provenance.run_record(tmp_path, config, step=400)
    starts = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 400]
    start = starts[0]
    assert start["config"]["optimizer"]["name"] == "adamw" and start["device"]["platform"] == "cpu"
    assert start["packages"]["jax"] and "command" in start and start["time"].endswith("+00:00")
    assert start["device"]["cpu"] and 1 <= start["device"]["threads"] <= start["device"]["cpus"]
    assert "device_count=8" in start["environment"]["XLA_FLAGS"], "what may change the numbers"
    assert start["environment"]["JAX_NUMPY_RANK_PROMOTION"] == "raise"
    assert not any("CACHE" in name for name in start["environment"]), "and nothing of the machine's folders"
    assert start["git"] is None or len(start["git"]["commit"]) == 40
    (tmp_path / "run.json").write_text("torn {")
    with pytest.warns(UserWarning, match="its record starts again"):
        provenance.run_record(tmp_path, config)
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1


def test_no_commit_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision.jaxseg, "__file__", str(tmp_path / "__init__.py"))
    assert revision.git_state() is None
    monkeypatch.setenv("PATH", "")
    assert revision.git_state() is None


DATA = {"classes": ("sky", "tree"), "colors": ((0, 0, 0), (1, 2, 3)), "num_classes": 2}


def test_data_of_a_run(tmp_path: Path) -> None:
    assert not workdir.holds_checkpoint(tmp_path)
    about = workdir.data_record(tmp_path, **DATA, weigh=lambda: np.array([0.1, 3.0], np.float32))
    assert (
        about
        == workdir.read_data(tmp_path)
        == (*DATA.values(), (float(np.float32(0.1)), 3.0), (0, 1), False, None, Hierarchy())
    )
    kept = workdir.data_record(tmp_path, **DATA, values=(1, 7), weigh=lambda: None)
    assert kept.values == workdir.read_data(tmp_path).values == (1, 7)
    # Without a checkpoint, other data replace these.
    about = workdir.data_record(tmp_path, **DATA | {"classes": ["sea"], "num_classes": 1}, weigh=lambda: None)
    assert about == workdir.read_data(tmp_path) == (("sea",), DATA["colors"], 1, None, (0,), False, None, Hierarchy())


def test_data_of_more_classes_than_a_byte_holds(tmp_path: Path) -> None:
    about = workdir.data_record(tmp_path, **DATA | {"num_classes": 65535}, weigh=lambda: None)
    assert workdir.read_data(tmp_path) == about
    workdir.data_record(tmp_path, **DATA | {"num_classes": 65536}, weigh=lambda: None)
    with pytest.raises(ConfigError, match="have no places in the logits"):
        workdir.read_data(tmp_path)


def test_a_resumed_run_keeps_its_class_weights_and_its_classes(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("the masks were read again")

    (tmp_path / "checkpoints/10").mkdir(parents=True)
    first = workdir.data_record(  # its data.json was lost
        tmp_path, **DATA, weigh=lambda: [0.5, 3], prior=lambda: [0.75, 0.25]
    )
    assert (first.class_weights, first.class_prior) == ((0.5, 3), (0.75, 0.25))
    assert workdir.data_record(tmp_path, **DATA, weigh=never, prior=never) == first == workdir.read_data(tmp_path)
    before = (tmp_path / "data.json").read_bytes()
    with pytest.raises(
        ConfigError, match=r"on 2 classes \(sky, tree; 2 logits\), .* now have 2 classes \(tree, sky; 2"
    ):
        workdir.data_record(tmp_path, **DATA | {"classes": ["tree", "sky"]}, weigh=never)
    with pytest.raises(ConfigError, match=r"now have 2 classes \(sky, tree; 1 logit\)"):
        workdir.data_record(tmp_path, **DATA | {"num_classes": 1}, weigh=never)
    assert (tmp_path / "data.json").read_bytes() == before
    for text, said in (("torn {", ""), ("[" * 100_000, "it is nested too deeply"), ("\xff", "it is no text in UTF-8")):
        (tmp_path / "data.json").write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=f"is not a record that training wrote: {said}"):
            workdir.data_record(tmp_path, **DATA, weigh=never)


def test_data_that_were_never_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no data.json: it was stopped before its first step"):
        workdir.read_data(tmp_path)


def test_labelled_replaces_no_list_of_a_person(tmp_path: Path) -> None:
    file, about = tmp_path / "labelled.txt", {"classes": ("a", "b"), "colors": ((0, 0, 0), (1, 1, 1)), "num_classes": 2}
    file.write_text("of a person\n")
    workdir.prepare_workdir(tmp_path, default_config())
    with pytest.raises(ConfigError, match=r"labelled\.txt would replace a file that jaxseg did not write; move it out"):
        lists.record_labelled(tmp_path, ["one", "two"])
    assert file.read_text() == "of a person\n"
    workdir.data_record(tmp_path, **about, weigh=lambda: None)
    with pytest.raises(ConfigError, match="would replace"):  # a run without labels wrote the record
        lists.record_labelled(tmp_path, ["one", "two"])
    file.unlink()
    for names in (["one", "two"], ["one", "three"]):  # a start without a checkpoint replaces its own list
        lists.record_labelled(tmp_path, names)
        workdir.data_record(tmp_path, **about, weigh=lambda: None, labels=True)
        assert file.read_text().split() == names
    assert workdir.read_data(tmp_path).classes == ("a", "b")
    file.write_text("changed by a person\n")
    with pytest.raises(ConfigError, match="would replace"):
        lists.record_labelled(tmp_path, ["one", "two"])

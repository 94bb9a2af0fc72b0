"""Copies of a run in a store that fsspec opens: what is kept, verified, read back, and said when it fails."""

import io
import json
import re
import shutil
import tarfile
import uuid
from pathlib import Path

import fsspec
import pytest
from helpers.tiny_run import tiny_config
from helpers.tiny_training import arguments, assert_identical, state_of

from jaxseg.config import to_dict
from jaxseg.errors import CheckpointError, ConfigError
from jaxseg.run.checkpoint import Checkpoints, CheckpointWarning
from jaxseg.run.copies import Copies, bring_back, small_files, taking_back
from jaxseg.run.workdir import write_json
from jaxseg.sweep.plan import load_plan, runs_of
from jaxseg.train import main

STORE = fsspec.filesystem("memory")


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def fill(workdir: Path, *steps: int, seed: int = 0) -> Path:
    """Writes the files of a run with checkpoints of these steps, as far as copies read them."""
    for step in steps:
        folder = workdir / "checkpoints" / str(step)
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "array").write_bytes(bytes(range(256)) * step)
        (folder / "about").write_text(f"step {step}")
    write_json(workdir / "config.json", to_dict(tiny_config(seed=seed)))
    (workdir / "log.jsonl").write_text(f"up to {steps[-1]}\n")
    (workdir / "notes.txt").write_text("a file of the user")
    return workdir


def copy(url: str, workdir: Path, *steps: int) -> Copies:
    copies = Copies(url, workdir)
    for step in steps:
        copies.start(step)
    assert copies.settle() == ""
    return copies


def stored(url: str) -> set[str]:
    return {path.rpartition("/")[2] for path in STORE.ls(url.removeprefix("memory:/"), detail=False)}


def test_copies_come_back_whole(tmp_path: Path, url: str) -> None:
    workdir = fill(tmp_path / "run", 2, 4)
    copy(url, workdir, 2, 4)
    assert stored(url) == {"2.tar", "2.json", "4.tar", "4.json"}
    assert bring_back(url, tmp_path / "other") == [2, 4]
    files = {p.relative_to(workdir): p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    del files[Path("notes.txt")]  # not of the run
    other = tmp_path / "other"
    assert {p.relative_to(other): p.read_bytes() for p in other.rglob("*") if p.is_file()} == files
    assert bring_back(url, other) == []  # it has them already


def test_a_workdir_that_is_behind_gets_the_newer_checkpoint_alone(tmp_path: Path, url: str) -> None:
    copy(url, fill(tmp_path / "run", 2, 4), 2, 4)
    behind = fill(tmp_path / "behind", 2)
    assert bring_back(url, behind) == [4]
    assert (behind / "log.jsonl").read_text() == "up to 4\n"
    ahead = fill(tmp_path / "ahead", 6)
    assert bring_back(url, ahead) == [] and (ahead / "log.jsonl").read_text() == "up to 6\n"


def test_the_store_keeps_what_the_workdir_keeps(tmp_path: Path, url: str) -> None:
    workdir = fill(tmp_path / "run", 2, 4, 6)
    copy(url, workdir, 2, 4)
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "2.deleting")
    copy(url, workdir, 6)
    assert stored(url) == {"4.tar", "4.json", "6.tar", "6.json"}


@pytest.mark.parametrize("harm", ["flipped", "short", "no description"])
def test_a_damaged_copy_is_left_out(tmp_path: Path, url: str, harm: str) -> None:
    copy(url, fill(tmp_path / "run", 2, 4), 2, 4)
    place = url.removeprefix("memory:/")
    content = bytearray(STORE.cat_file(f"{place}/4.tar"))
    if harm == "flipped":
        content[len(content) // 2] ^= 1
    elif harm == "short":
        del content[-700:]
    else:
        STORE.rm_file(f"{place}/4.json")
    STORE.pipe_file(f"{place}/4.tar", bytes(content))
    if harm == "no description":  # as after a kill in the middle of a copy
        assert bring_back(url, tmp_path / "other") == [2]
    else:
        with pytest.warns(CheckpointWarning, match="step 4 .* is damaged"):
            assert bring_back(url, tmp_path / "other") == [2]
    assert (tmp_path / "other" / "log.jsonl").exists()
    assert not (tmp_path / "other" / "checkpoints" / "4").exists()


@pytest.mark.parametrize("name", ["../outside", "notes.txt", "checkpoints/4/../../outside", "/outside"])
def test_a_copy_with_foreign_files_writes_none(tmp_path: Path, url: str, name: str) -> None:
    import hashlib

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("checkpoints/4/about"), io.BytesIO())
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    about = {"bytes": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    STORE.pipe_file(f"{url}/4.tar", buffer.getvalue())
    STORE.pipe_file(f"{url}/4.json", json.dumps(about).encode())
    with pytest.warns(CheckpointWarning, match="no file of this checkpoint"):
        assert bring_back(url, tmp_path / "run") == []
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_what_cannot_be_read_now_is_not_damaged(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began anew beside its copies would replace them."""
    copy(url, fill(tmp_path / "run", 2), 2)

    def away(*arguments, **options):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(STORE), "cat_file", away)
    with pytest.raises(ConfigError, match=r"cannot be read \(reset by peer\)"):
        bring_back(url, tmp_path / "other")
    assert stored(url) == {"2.tar", "2.json"} and not list((tmp_path / "other").glob(".copies.*"))


@pytest.mark.parametrize("about", [b"null", b"[]", b'{"bytes": Infinity}', b'{"bytes": "1", "sha256": ""}', b"\xff"])
def test_a_description_that_is_none_is_a_damaged_copy(tmp_path: Path, url: str, about: bytes) -> None:
    copy(url, fill(tmp_path / "run", 2), 2)
    STORE.pipe_file(f"{url}/2.json", about)
    with pytest.warns(CheckpointWarning, match="step 2 .* is damaged"):
        assert bring_back(url, tmp_path / "other") == []


@pytest.mark.parametrize("step", [3, 9])
def test_the_copies_of_another_run_are_refused_and_nothing_is_mixed(tmp_path: Path, url: str, step: int) -> None:
    copy(url, fill(tmp_path / "run", 2, 4), 2, 4)
    other = fill(tmp_path / "other", step, seed=1)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"holds copies of another run than .* seed: 0 -> 1|seed"):
        bring_back(url, other)
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_a_store_that_deletes_nothing_has_its_copies_all_the_same(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workdir = fill(tmp_path / "run", 2, 4)
    copy(url, workdir, 2)
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "2.deleting")

    def denied(*arguments, **options):
        raise PermissionError("retention")

    monkeypatch.setattr(type(STORE), "rm_file", denied)
    copy(url, workdir, 4).require_last()
    assert stored(url) == {"2.tar", "2.json", "4.tar", "4.json"} and "cannot be removed (retention)" in caplog.text


def test_a_workdir_without_its_configuration_is_not_copied(tmp_path: Path, url: str) -> None:
    workdir = fill(tmp_path / "run", 2, 4)
    copy(url, workdir, 2)
    (workdir / "config.json").unlink()  # someone removed the workdir in mid-run
    with Copies(url, workdir) as copies:
        copies.start(4)
        assert "config.json is gone" in copies.settle() and stored(url) == {"2.tar", "2.json"}


def test_a_new_run_with_the_address_of_another_is_told_so(
    tmp_path: Path, url: str, capfd: pytest.CaptureFixture
) -> None:
    copy(url, fill(tmp_path / "run", 2), 2)
    assert main(arguments(tmp_path / "new", checkpoint__copy_to=url, log__images=0)) == 1
    said = capfd.readouterr().err
    assert "another configuration" in said and f"has just been read from checkpoint.copy_to={url}" in said
    assert list((tmp_path / "new").iterdir()) == [] and stored(url) == {"2.tar", "2.json"}


@pytest.mark.parametrize("steps", [(), (2,)])
def test_a_workdir_in_which_another_run_was_read_is_as_it_was(tmp_path: Path, url: str, steps: tuple) -> None:
    copy(url, fill(tmp_path / "run", 2, 4), 2, 4)
    workdir = fill(tmp_path / "other", 2)
    if not steps:  # a start that ended before its first checkpoint
        shutil.rmtree(workdir / "checkpoints")
        write_json(workdir / "config.json", to_dict(tiny_config(seed=7)))
    (workdir / "run.json").write_text("of before")
    (workdir / "log.jsonl").write_text("of before")
    content = lambda: {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}  # noqa: E731
    kept, before = content(), small_files(workdir)
    with pytest.raises(ConfigError, match="is removed from the workdir again"):
        brought = bring_back(url, workdir)
        assert content() != kept
        with taking_back(url, workdir, brought, before):
            raise ConfigError("It differs.")
    assert content() == kept


@pytest.mark.parametrize("name", ["labelled.txt", "log.jsonl"])
def test_copies_replace_no_file_of_a_person(tmp_path: Path, url: str, name: str) -> None:
    workdir, other = fill(tmp_path / "run", 2), tmp_path / "other"
    (workdir / "labelled.txt").write_text("a\n")
    copy(url, workdir, 2)
    other.mkdir()
    (other / name).write_text("of a person")
    if name == "labelled.txt":
        write_json(other / "config.json", to_dict(tiny_config()))
    with pytest.raises(ConfigError, match=f"The output .*{name} would replace a file that jaxseg did not write"):
        bring_back(url, other)
    assert (other / name).read_text() == "of a person" and not (other / "checkpoints").exists()
    (other / name).write_bytes((workdir / name).read_bytes())
    assert bring_back(url, other) == [2]


def test_a_workdir_that_vanishes_says_where_its_copies_are(
    tmp_path: Path, url: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"checkpoint__copy_to": url, "log__images": 0}
    workdir, save = tmp_path / "one", Checkpoints.save

    def vanish(self: Checkpoints, step: int, *rest: object, **more: object) -> None:
        if step == 4:
            workdir.rename(tmp_path / "gone")
        save(self, step, *rest, **more)

    monkeypatch.setattr(Checkpoints, "save", vanish)
    assert main(arguments(workdir, **changes)) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("error: The checkpoint of step 4 could not be saved"), said
    where = re.escape(f"The workdir {workdir} is gone; copies are in {url} ")
    found = re.search(where + r"\(steps [23, ]+\), and the same command .* goes on after step (\d)\.$", said)
    assert found, said
    monkeypatch.undo()
    shutil.rmtree(workdir, ignore_errors=True)
    assert main(arguments(workdir, **changes)) == 0
    assert f"resuming after step {found[1]}" in capfd.readouterr().err
    assert main(arguments(tmp_path / "whole", log__images=0)) == 0
    assert_identical(state_of(workdir), state_of(tmp_path / "whole"))


def test_a_copy_that_failed_is_made_by_the_next_start(tmp_path: Path, url: str) -> None:
    workdir = fill(tmp_path / "run", 2)
    with Copies(url, workdir) as copies:
        copies.start_missing(2)
        assert copies.settle() == "" and stored(url) == {"2.tar", "2.json"}
        STORE.pipe_file(f"{url}/2.tar", b"as it is")
        copies.start_missing(2)  # the store has it
    assert STORE.cat_file(f"{url}/2.tar") == b"as it is"


def test_a_save_that_fails_is_said_and_waits_for_no_copy(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import orbax.checkpoint as ocp

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.AsyncCheckpointer, "wait_until_finished", full)
    monkeypatch.setattr(Copies, "_copy", lambda self, step: self._leave.wait())  # as where the folder never comes
    assert main(arguments(tmp_path / "one", checkpoint__copy_to=url, log__images=0, checkpoint__keep=1)) == 1


def test_each_run_of_a_sweep_has_copies_of_its_own() -> None:
    plan = load_plan(
        "experiments/ablations/residual.py", ["--config.checkpoint.copy_to=gs://bucket/sweep/"], None, "val"
    )
    addresses = [run.config.checkpoint.copy_to for run in runs_of(plan, Path("sweep"))]
    assert len(set(addresses)) == len(addresses) > 1
    assert addresses[0] == f"gs://bucket/sweep/{next(iter(plan.variants))}/seed-0"


def test_a_store_that_fails_is_a_sentence(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(url, fill(tmp_path / "run", 2))

    def broken(*arguments, **options):
        raise RuntimeError("the bucket is gone")

    monkeypatch.setattr(type(STORE), "open", broken)
    copies.start(2)
    with pytest.raises(CheckpointError, match=r"step 2 could not be copied to memory:.* \(the bucket is gone\)"):
        copies.require_last()
    monkeypatch.setattr(type(STORE), "ls", broken)
    with pytest.raises(ConfigError, match=r"cannot be read \(the bucket is gone\)"):
        bring_back(url, tmp_path / "other")


def test_an_unknown_store_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint.copy_to=nowhere://x/y names no store"):
        bring_back("nowhere://x/y", tmp_path)


def test_a_store_whose_package_is_missing_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"checkpoint.copy_to=gs://x/y needs another package: Please install gcsfs"):
        bring_back("gs://x/y", tmp_path)


def test_a_checkpoint_that_never_completes_holds_nobody_up(tmp_path: Path, url: str) -> None:
    with Copies(url, fill(tmp_path / "run", 2)) as copies:
        copies.start(4)
    assert not STORE.exists(url)


def test_an_empty_machine_goes_on_bit_for_bit(tmp_path: Path, url: str, capfd: pytest.CaptureFixture) -> None:
    place = url.removeprefix("memory:/")
    changes = {"checkpoint__copy_to": url, "log__images": 0}
    assert main(arguments(tmp_path / "one", **changes)) == 0
    assert stored(url) >= {"4.tar", "4.json", "6.tar", "6.json"}
    for name in ("6.tar", "6.json"):  # as if the machine had gone before
        STORE.rm_file(f"{place}/{name}")
    capfd.readouterr()
    assert main(arguments(tmp_path / "two", **changes)) == 0
    assert "step 4" in "".join(capfd.readouterr())
    assert_identical(state_of(tmp_path / "one"), state_of(tmp_path / "two"))
    one, two = (timeless(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert one == two and len(one) == 8


def timeless(log: Path) -> list[dict]:
    """Returns the records of a log without what differs from time to time."""
    records = map(json.loads, log.read_text().splitlines())
    return [{key: value for key, value in record.items() if key != "images_per_second"} for record in records]

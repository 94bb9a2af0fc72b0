"""Copies of a run in a store that fsspec opens: what is kept, verified, read back, and said when it fails."""

import io
import json
import tarfile
import uuid
from pathlib import Path

import fsspec
import pytest
from helpers.tiny_training import arguments, assert_identical, state_of

from jaxseg.errors import CheckpointError, ConfigError
from jaxseg.run.checkpoint import CheckpointWarning
from jaxseg.run.copies import Copies, bring_back
from jaxseg.train import main

STORE = fsspec.filesystem("memory")


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def fill(workdir: Path, *steps: int) -> Path:
    """Writes the files of a run with checkpoints of these steps, as far as copies read them."""
    for step in steps:
        folder = workdir / "checkpoints" / str(step)
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "array").write_bytes(bytes(range(256)) * step)
        (folder / "about").write_text(f"step {step}")
    (workdir / "config.json").write_text("{}")
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
    assert bring_back(url, behind) == [2, 4]
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

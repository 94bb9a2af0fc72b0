"""A network on a stand-in of the Hub: read back with its numbers, bounded before it is fetched, and uploaded."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, fake_hub
from helpers.tiny_run import make_run, short_config
from PIL import Image

import jaxseg
from jaxseg import predict
from jaxseg.errors import CheckpointError, ConfigError
from jaxseg.inference.options import split_workdirs
from jaxseg.pretrained import flatten
from jaxseg.publish import publish_run
from jaxseg.run import published
from jaxseg.run.load import load_run
from jaxseg.run.weights import plan_weights

NAME = "owner/net"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("run") / "run", short_config())
    (made / "thresholds.json").write_text(json.dumps({"thresholds": [0.5], "step": 10}))
    return made


@pytest.fixture(scope="module")
def folder(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published") / "net"
    publish_run(load_run(workdir), made, licence="mit")
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Iterator[FakeHub]:
    """Serves the folder, and the same with another step as the revision v1."""
    monkeypatch.setattr(published, "_CACHE", str(tmp_path / "published"))
    with fake_hub(monkeypatch, tmp_path / "cache") as served:
        for revisions, step in ((("main", COMMIT), 10), (("v1", OTHER_COMMIT), 7)):
            for file in folder.iterdir():
                content = file.read_bytes()
                if file.name == "published.json":
                    content = json.dumps({**json.loads(content), "step": step}).encode()
                served.files |= {(NAME, revision, file.name): content for revision in revisions}
        yield served


def test_a_repository_is_used_like_the_workdir_bit_for_bit(hub: FakeHub, workdir: Path, tmp_path: Path, capsys) -> None:
    run, ours = jaxseg.load(f"hf://{NAME}"), load_run(workdir)
    theirs = flatten(run.variables)
    for path, x in flatten(ours.variables).items():
        np.testing.assert_array_equal(np.asarray(x), theirs[path], err_msg=path)
    assert run.workdir == tmp_path / "published" / "owner--net" / COMMIT and run.classes == ours.classes
    assert (run.workdir / "thresholds.json").is_file() and load_run(run.workdir).step == 10
    assert all(f"/resolve/{COMMIT}/" in asked for asked in hub.asked if "published.json" not in asked)
    assert load_run(f"hf://{NAME}@v1").step == 7
    Image.new("RGB", (20, 12), (9, 200, 30)).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png"), "--out"]
    assert predict.main(["--workdir", f"hf://{NAME}", *words, str(tmp_path / "x")]) == 0
    assert predict.main(["--workdir", str(workdir), *words, str(tmp_path / "y")]) == 0
    assert (tmp_path / "x" / "a.png").read_bytes() == (tmp_path / "y" / "a.png").read_bytes()


def test_a_repository_is_the_weights_that_a_run_starts_from(hub: FakeHub, workdir: Path) -> None:
    ours = load_run(workdir)
    planned = plan_weights(dataclasses.replace(ours.parts, config=short_config(model__weights=f"hf://{NAME}")))
    assert planned is not None and planned.origin.commit == COMMIT
    theirs = flatten(planned.variables)
    for path, x in flatten(ours.variables).items():
        np.testing.assert_array_equal(np.asarray(x), theirs[path], err_msg=path)


def test_without_the_hub_its_cache_serves_a_commit(hub: FakeHub) -> None:
    load_run(f"hf://{NAME}")
    hub.close()
    assert load_run(f"hf://{NAME}@{COMMIT}").step == 10
    assert load_run(f"hf://{NAME}").step == 10


def test_what_was_fitted_here_stays(hub: FakeHub) -> None:
    run = load_run(f"hf://{NAME}")
    (run.workdir / "thresholds.json").write_text("mine")
    assert (load_run(f"hf://{NAME}").workdir / "thresholds.json").read_text() == "mine"


def test_a_file_larger_than_the_network_is_not_fetched(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[NAME, COMMIT, "model.safetensors"] = bytes(2**24 + 2**20)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _only_json(__import__("huggingface_hub").hf_hub_download))
    with pytest.raises(CheckpointError, match=r"model\.safetensors of owner/net has 17,825,792 bytes; 16,7.* the most"):
        load_run(f"hf://{NAME}")
    hub.files[NAME, "main", "published.json"] = bytes(2**24 + 1)
    with pytest.raises(ConfigError, match=r"published\.json of owner/net has 16,777,217 bytes"):
        load_run(f"hf://{NAME}")


def _only_json(fetch: Any) -> Any:
    def fetched(repository: str, name: str, **options: Any) -> str:
        assert name.endswith(".json") or options["local_files_only"]
        return fetch(repository, name, **options)

    return fetched


def test_what_holds_no_network_is_said(hub: FakeHub) -> None:
    hub.files = {key: x for key, x in hub.files.items() if key[2] != "published.json"}
    for source, words in (
        (f"hf://{NAME}", r"holds none of published\.json\. A copy of the repository's folder"),
        ("hf://owner/other", "There is no repository owner/other on the Hub, or it is private"),
        (f"hf://{NAME}@nothere", "has no revision 'nothere'"),
        (f"hf://{NAME}/model.safetensors", "leave /FILE out"),
        ("hf://owner", "names no repository"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_run(source)


def test_repositories_among_the_words_of_a_command_are_workdirs(workdir: Path) -> None:
    words = [f"hf://{NAME}", "a.png", "hf://owner/b", str(workdir)]
    assert split_workdirs(words, ["c.png"]) == ([words[0], words[2], words[3]], ["a.png", "c.png"])


class Api:
    """What the upload asks of `huggingface_hub.HfApi`; keeps each repository as {name of a file: content}."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repositories, self.private = folder, dict[str, dict[str, bytes]](), dict[str, bool]()

    def repo_exists(self, name: str) -> bool:
        return name in self.repositories

    def list_repo_files(self, name: str) -> list[str]:
        return list(self.repositories[name])

    def hf_hub_download(self, name: str, file: str) -> str:
        (self.folder / file).write_bytes(self.repositories[name][file])
        return str(self.folder / file)

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if name not in self.repositories:
            self.repositories[name], self.private[name] = {".gitattributes": b""}, private

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str] | None
    ) -> None:
        assert commit_message
        files = self.repositories[repo_id]
        for name in delete_patterns or ():
            del files[name]
        files |= {file.name: file.read_bytes() for file in folder_path.iterdir()}


def test_a_network_is_uploaded_and_another_one_is_left_alone(workdir: Path, folder: Path, tmp_path: Path) -> None:
    api, run = Api(tmp_path), load_run(workdir)
    options: dict[str, Any] = {"licence": "mit", "api": api}
    assert not publish_run(run, f"hf://{NAME}", **options, dry_run=True).done and not api.repositories
    done = publish_run(run, f"hf://{NAME}", **options, private=True)
    assert done.done and done.place == f"hf://{NAME}" and api.private == {NAME: True}
    files = api.repositories[NAME]
    assert files.keys() == {".gitattributes", *(file.name for file in folder.iterdir())}
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b'jaxseg.load("hf://owner/net")' in files["README.md"]
    assert publish_run(run, f"hf://{NAME}", **options).removed == ()
    other = load_run(make_run(tmp_path / "other", short_config(seed=7)))
    with pytest.raises(ConfigError, match="The repository hf://owner/net holds another published network; give anoth"):
        publish_run(other, f"hf://{NAME}", **options)
    assert api.repositories[NAME]["model.safetensors"] == files["model.safetensors"]
    assert publish_run(other, f"hf://{NAME}", **options, replace=True).removed == ("thresholds.json",)
    assert "thresholds.json" not in api.repositories[NAME]
    files = api.repositories[NAME]
    record = json.loads(files["published.json"])
    files |= {"published.json": json.dumps({**record, "files": ["*", "data.csv", [1]]}).encode(), "data.csv": b""}
    assert publish_run(other, f"hf://{NAME}", **options).removed == () and "data.csv" in files
    files["README.md"] += b"Ask me first."
    with pytest.raises(ConfigError, match=r"README\.md of hf://owner/net was changed after it was published"):
        publish_run(other, f"hf://{NAME}", **options)
    assert publish_run(other, f"hf://{NAME}", **options, replace=True).done and b"Ask" not in files["README.md"]
    api.repositories["owner/data"] = {"train.csv": b""}
    with pytest.raises(ConfigError, match=r"holds files of something else, train\.csv for one"):
        publish_run(run, "hf://owner/data", **options)


def test_what_the_hub_refuses_is_one_sentence(workdir: Path, tmp_path: Path) -> None:
    class Refusing(Api):
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            raise RuntimeError("401 Client Error.\n(Request ID: 3)")

    with pytest.raises(ConfigError, match=r"did not take hf://owner/net \(401 Client Error\)\. `hf auth login`"):
        publish_run(load_run(workdir), f"hf://{NAME}", licence="mit", api=Refusing(tmp_path))

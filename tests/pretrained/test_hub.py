"""Published weights: which there are, how they are named, fetched and checked, and what is said without a network."""

import hashlib
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_hub import COMMIT, OTHER_COMMIT, fake_hub
from helpers.tiny_run import tiny_config
from helpers.tiny_weights import ENCODED, assert_equal, in_two_files, network

from jaxseg import pretrained
from jaxseg.build import build_parts
from jaxseg.config import update
from jaxseg.errors import ConfigError, WeightsError
from jaxseg.pretrained import catalogue, find, hub
from jaxseg.pretrained.family import HUB_FILES, MIT, EncoderWeights, Family, Published
from jaxseg.run.weights import plan_weights

REPOSITORY = "owner/residual.in1k"


@pytest.fixture
def published(monkeypatch):
    """A catalogue with one entry."""
    family = Family(encoder_weights=(EncoderWeights("residual", "imagenet", Published(REPOSITORY), MIT),))
    monkeypatch.setattr(catalogue, "families", lambda: (family,))


@pytest.fixture
def server(monkeypatch, tmp_path):
    with fake_hub(monkeypatch, tmp_path / "cache") as served:
        yield served


def test_find_knows_names_files_and_repositories(published, tmp_path):
    assert find("imagenet", encoder="residual").place == Published(REPOSITORY)
    assert find("hf://a/b", encoder="residual").place == Published("a/b", HUB_FILES, None)
    assert find("hf://a/b/c/d.bin", encoder="residual").place == Published("a/b", ("c/d.bin",), None)
    assert find("hf://a/b@v1", encoder="residual").place == Published("a/b", HUB_FILES, "v1")
    assert find("hf://a/b@v1/c/d@2.bin", model="unet").place == Published("a/b", ("c/d@2.bin",), "v1")
    assert find("x.pth", model="unet").place == Path("x.pth")
    (tmp_path / "run").mkdir()
    assert find(str(tmp_path / "run"), model="unet").place == tmp_path / "run"
    no_repository = r"names no repository, which is hf://OWNER/NAME .*@REVISION after NAME"
    for source, encoder, words in (
        ("imagnet", "residual", r"no published weights 'imagnet' for the encoder 'residual'\. Did you mean 'imagenet'"),
        ("imagenet", "plain", "None are known by name. A file can be given too"),
        (
            REPOSITORY,
            "residual",
            f"no published weights '{REPOSITORY}'.* Nor is there a folder .* or a repository: hf://",
        ),
        (str(tmp_path / "nothere"), "plain", rf"There is no file or folder '{tmp_path}/nothere'\.$"),
        ("imagenet", "resnt", "There is no encoder 'resnt'"),
        *((f"hf://{text}", "residual", no_repository) for text in ("a", "a/", "a/b/", "a/b@", "a@v1/b", "a/b@v1@v2")),
    ):
        with pytest.raises(WeightsError, match=words):
            find(source, encoder=encoder)


def to_bytes(variables):
    from safetensors.numpy import save

    return save({name: np.asarray(x) for name, x in pretrained.flatten(variables).items()})


def test_published_weights_are_fetched_checked_and_loaded(published, server):
    _, theirs = network()
    _, ours = network(seed=1)
    inner = {name: tree["encoder"] for name, tree in theirs.items()}
    server.files[REPOSITORY, "main", "model.safetensors"] = to_bytes(inner)
    loaded = pretrained.load(ours, "imagenet", encoder="residual")
    assert loaded.commit == COMMIT
    np.testing.assert_array_equal(
        loaded.variables["params"]["encoder"]["stage0"]["block1"]["conv1"]["kernel"],
        theirs["params"]["encoder"]["stage0"]["block1"]["conv1"]["kernel"],
    )
    with Path(loaded.file).resolve().open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 is not"):
        pretrained.load(ours, "imagenet", encoder="residual")


def test_a_revision_can_be_pinned_and_the_commit_is_kept(server):
    """A fetched commit needs no network; a branch is asked for each time, and a run records its commit."""
    old, new = (network(seed=seed)[1] for seed in (1, 2))
    server.files = {
        (REPOSITORY, revision, "model.safetensors"): to_bytes(variables)
        for revision, variables in (("main", new), ("v1", old), (OTHER_COMMIT, old))
    }
    config = tiny_config(model__name="unet", model__args=ENCODED)

    def planned(source):
        update(config, model__weights=source)
        return plan_weights(build_parts(config, 3))

    for source, variables, commit in (
        ("@v1", old, OTHER_COMMIT),
        ("", new, COMMIT),
        (f"@{OTHER_COMMIT}", old, OTHER_COMMIT),
    ):
        result = planned(f"hf://{REPOSITORY}{source}")
        kernel = result.variables["params"]["head"]["kernel"]
        np.testing.assert_array_equal(kernel, variables["params"]["head"]["kernel"])
        assert result.origin.commit == commit and result.origin._asdict()["commit"] == commit
    asked = len(server.asked)
    planned(f"hf://{REPOSITORY}@{OTHER_COMMIT}/model.safetensors")
    assert len(server.asked) == asked


def test_small_files_have_the_digest_of_git(server):
    server.etag = lambda content: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    server.files[REPOSITORY, "main", "model.safetensors"] = b"xyz"
    path = hub.fetch(Published(REPOSITORY))
    assert hub.digest(path) == server.etag(b"xyz")
    path.resolve().write_bytes(b"xyy")
    with pytest.raises(WeightsError, match="is damaged: its git SHA-1 is not"):
        hub.fetch(Published(REPOSITORY))


def test_a_file_without_a_digest_is_noted(published, server):
    _, ours = network()
    server.etag = lambda content: "a-name-of-the-mirror"
    server.files[REPOSITORY, "main", "model.safetensors"] = to_bytes(ours)
    loaded = pretrained.load(ours, "imagenet", encoder="residual")
    assert loaded.notes[0] == "not compared with the Hub's digest, which its cache does not keep here"


def test_weights_in_several_files_are_fetched_of_one_commit(published, server, tmp_path):
    _, theirs = network()
    flat = pretrained.flatten(theirs)
    for name, content in in_two_files(flat).items():
        server.files[REPOSITORY, "main", name] = server.files[REPOSITORY, COMMIT, name] = content
    _, ours = network(seed=1)
    loaded = pretrained.load(ours, f"hf://{REPOSITORY}", model="unet")
    assert_equal(loaded.variables, theirs)
    assert loaded.commit == COMMIT and loaded.file.endswith("model.safetensors.index.json")
    assert loaded.notes == ("read 2 files that model.safetensors.index.json lists",)
    asked = [address.rpartition("resolve/")[2] for address in server.asked]
    assert {f"{COMMIT}/model-0000{i}-of-00002.safetensors" for i in (1, 2)} <= set(asked)
    second = Path(loaded.file).parent / "model-00002-of-00002.safetensors"
    second.resolve().write_bytes(b"x")
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 is not"):
        pretrained.load(ours, f"hf://{REPOSITORY}", model="unet")
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in in_two_files(flat).items():
        (folder / name).write_bytes(content)
    config = tiny_config(model__name="unet", model__args=ENCODED)
    update(config, model__weights=str(folder))
    planned = plan_weights(build_parts(config, 3))
    assert planned.origin.sha256 == loaded.sha256
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"^model\.weights: .*in 2 files, of which model-00002-of-.* is not beside it"
    ):
        plan_weights(build_parts(config, 3))


def test_what_a_repository_lacks_is_named(server):
    server.files[REPOSITORY, "main", "pytorch_model.bin"] = b"x"
    assert hub.fetch(Published(REPOSITORY)).name == "pytorch_model.bin"
    for wanted, words in (
        (Published(REPOSITORY, ("other.bin",)), rf"The repository {REPOSITORY} holds none of other\.bin\."),
        (Published(REPOSITORY, revision="v2"), rf"The repository {REPOSITORY} has no revision 'v2'\."),
        (Published("owner/other"), r"There is no repository owner/other on the Hub, or it is private\."),
        (Published("no name/x"), r"no name/x is not in the cache .* could not be fetched \(.*Fetch http"),
    ):
        with pytest.raises(WeightsError, match=words) as raised:
            hub.fetch(wanted)
        assert "\n" not in str(raised.value)
    assert server.said == []


def test_large_files_lie_on_another_server_and_repositories_are_renamed(server):
    content = b"x" * 100
    server.files[REPOSITORY, "main", "model.safetensors"] = content
    server.links, server.renamed = True, {"owner/former": REPOSITORY}
    for name in (REPOSITORY, "owner/former"):
        path = hub.fetch(Published(name), most=100)
        assert path.read_bytes() == content and hub.commit(path) == COMMIT
        assert hub.digest(path) == hashlib.sha256(content).hexdigest()  # that of the file, and not of its pointer
    with pytest.raises(WeightsError, match="has 100 bytes; 99 are the most"):
        hub.fetch(Published(REPOSITORY), most=99)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (
            401,
            "GatedRepo",
            r"The repository owner/x is gated: .* Ask for it at http\S*/owner/x; `hf auth login` or .*HF_T",
        ),
        (403, "GatedRepo", r"The repository owner/x is gated: "),
        (
            401,
            "RepoNotFound",
            r"no repository owner/x on the Hub, or it is private\. For a private one, `hf auth login`",
        ),
    ],
)
def test_a_repository_that_may_not_be_read_says_what_to_do(server, status, code, words):
    server.files["owner/x", "main", "model.safetensors"] = b"x"
    server.closed = {"owner/x": (status, code)}
    with pytest.raises(WeightsError, match=words) as raised:
        hub.fetch(Published("owner/x"))
    assert "\n" not in str(raised.value) and server.said == []


def test_a_token_opens_a_private_repository_and_a_branch_may_have_slashes(server, monkeypatch):
    server.files[REPOSITORY, "refs/pr/1", "model.safetensors"] = b"x"
    server.commits["refs/pr/1"], server.token = OTHER_COMMIT, "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    place = find(f"hf://{REPOSITORY}@refs%2Fpr%2F1", model="unet").place
    assert place == Published(REPOSITORY, HUB_FILES, "refs/pr/1")
    assert hub.fetch(place).read_bytes() == b"x"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(WeightsError, match="or it is private"):
        hub.fetch(Published("owner/other"))
    server.close()
    with pytest.raises(WeightsError, match=f"{REPOSITORY}/resolve/refs%2Fpr%2F2/model.safetensors or "):
        hub.fetch(Published(REPOSITORY, revision="refs/pr/2"))


def test_without_a_network_the_cache_serves_and_nothing_else_is_said(server, monkeypatch, capfd):
    server.files[REPOSITORY, "main", "pytorch_model.bin"] = b"x"  # the second name that is looked for
    path = hub.fetch(Published(REPOSITORY))
    server.close()
    capfd.readouterr()

    def sleep(seconds):
        raise AssertionError("waited for a Hub that is out of reach")

    monkeypatch.setattr(time, "sleep", sleep)
    assert hub.fetch(Published(REPOSITORY)) == path
    with pytest.raises(WeightsError) as raised:
        hub.fetch(Published("owner/other", revision="v1"))
    said = str(raised.value)
    assert re.search(r"owner/other is not in the cache .* and could not be fetched \(.*refused\)\. Fetch ", said)
    assert f"{server.address}/owner/other/resolve/v1/model.safetensors or " in said  # of the Hub or its mirror
    assert "give the path of that file in place of the name" in said and "\n" not in said
    assert server.said == [] and "".join(capfd.readouterr()) == ""


def test_a_slow_hub_is_waited_for(server, monkeypatch):
    server.files[REPOSITORY, "main", "model.safetensors"] = b"x"
    server.delay = [0.5]
    monkeypatch.setattr(hub, "_TIMEOUTS", (0.1, 0.1))
    assert hub.fetch(Published(REPOSITORY)).read_bytes() == b"x"


def test_offline_mode_is_named(published, server, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"is not in the cache .* could not be fetched \(.*HF_HUB_OFFLINE"):
        hub.fetch(find("imagenet", encoder="residual").place)
    assert server.asked == []


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), RuntimeError(), OSError(28, "No space left")])
def test_what_breaks_on_the_way_is_one_sentence(server, monkeypatch, error):
    import huggingface_hub

    server.files[REPOSITORY, "main", "model.safetensors"] = b"x"

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(WeightsError, match=r"could not be fetched \(") as raised:
        hub.fetch(Published(REPOSITORY))
    assert "\n" not in str(raised.value)


def test_a_slow_server_is_reachable(monkeypatch):
    """A server that accepts a connection and sends nothing is reachable; a port without a server is not."""
    import huggingface_hub

    monkeypatch.setattr(hub, "_TIMEOUTS", (0.3,))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *args, **kwargs: address)
        assert hub._unreachable(Published(REPOSITORY)) is None
    assert hub._unreachable(Published(REPOSITORY)) is not None

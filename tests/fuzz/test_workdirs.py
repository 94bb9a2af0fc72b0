"""Workdirs of strangers as a whole, and command lines of any words: a result, a sentence, or the usage."""

import contextlib
import io
import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from helpers.fuzzing import Tally, attempt
from helpers.mutations import mutated, mutated_text
from helpers.tiny_run import make_run, tiny_config
from PIL import Image

from jaxseg import predict
from jaxseg.config import KEYS, default_config, validate
from jaxseg.config.command import load_experiment, parse_overrides
from jaxseg.errors import CheckpointError, ConfigError
from jaxseg.models.__main__ import main as models_main
from jaxseg.pictures.opening import MAX_PIXELS
from jaxseg.run import snapshot
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.load import load_run
from jaxseg.sweep import worker


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "run", tiny_config())


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize("count", [25, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::jaxseg.run.checkpoint.CheckpointWarning")
def test_damaged_checkpoints_end_in_a_sentence(copy: Path, count: int) -> None:
    template = {"params": {"kernel": jax.numpy.ones((3, 4)), "bias": jax.numpy.zeros(4)}, "step": jax.numpy.int32(3)}
    shutil.rmtree(copy / "checkpoints")
    with Checkpoints(copy / "checkpoints") as checkpoints:
        checkpoints.save(3, template, {"place": 7}, {"mean_iou": 0.5}, wait=True)
    files = sorted(path for path in (copy / "checkpoints" / "3").rglob("*") if path.is_file())
    tally = Tally("checkpoints")
    for seed in range(count):
        file = files[seed % len(files)]
        good = file.read_bytes()
        file.write_bytes((mutated_text if good[:1] == b"{" else mutated)(good, seed))
        with Checkpoints(copy / "checkpoints") as checkpoints:
            what = f"{file.relative_to(copy)}, seed {seed}"
            tally.add(attempt(lambda opened=checkpoints: opened.restore(template), what, names="checkpoints"))
        file.write_bytes(good)
    print(tally.row())
    assert tally.counts["result"] and tally.counts["sentence"]


def about(copy: Path) -> Path:
    return copy / "checkpoints" / "10" / "about" / "metadata"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arrays": []}, "not the description of a checkpoint"),
        ({"arrays": {"step": {"shape": [2**40], "dtype": "float32"}}}, "does not describe the array 'step'"),
        ({"iterators": ["x"]}, "neither bytes nor JSON"),
        ({"iterators": [None]}, "neither bytes nor JSON"),
        ({"iterators": []}, "the data iterator of no process"),
        ({"metrics": {"mean_iou": "high"}}, "its metrics are no numbers"),
    ],
)
def test_a_description_that_is_sealed_and_wrong_is_refused(copy: Path, change: dict, said: str) -> None:
    """Whoever writes a checkpoint can also seal it; its seal is against accidents."""
    content = json.loads(about(copy).read_bytes())["content"]
    about(copy).write_text(json.dumps(snapshot.seal({**content, **change})))
    assert said in attempt(lambda: load_run(copy), said, names=str(copy / "checkpoints")).sentence


def test_arrays_of_a_checkpoint_are_no_larger_than_its_description(copy: Path, tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "a") as small, Checkpoints(tmp_path / "b") as large:
        small.save(1, {"x": jax.numpy.zeros(4)}, wait=True)
        large.save(1, {"x": jax.numpy.zeros(4000)}, wait=True)
    shutil.rmtree(tmp_path / "a" / "1" / "state")
    shutil.copytree(tmp_path / "b" / "1" / "state", tmp_path / "a" / "1" / "state")
    with Checkpoints(tmp_path / "a") as mixed, pytest.raises(CheckpointError, match="x is not what the description"):
        mixed.restore({"x": jax.numpy.zeros(4)})


def test_the_places_in_a_stored_configuration_are_not_used(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """XLA runs the programs in its folder, TFDS the modules that a cache names; some options of XLA write files."""
    config = json.loads((copy / "config.json").read_text())
    config["compile"]["cache"] = str(copy / "programs")
    config["data"]["cache"], config["data"]["max_pixels"] = str(copy / "prepared"), 10**12
    config["compile"]["options"] = {"xla_dump_to": str(copy / "dump"), "xla_cpu_enable_fast_math": False}
    (copy / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING, "jaxseg"):
        stored = load_run(copy).config
    assert stored.compile.cache == ""
    assert dict(stored.compile.options) == {"xla_cpu_enable_fast_math": False}
    assert stored.data.cache == "" and stored.data.max_pixels == 0
    assert "left out: xla_dump_to" in caplog.text and "data.cache of the workdir is left out" in caplog.text
    caplog.clear()
    mine = str(copy / "mine")
    own = load_run(copy, overrides={"compile.cache": mine, "data.cache": mine, "data.max_pixels": 7}).config
    assert own.compile.cache == own.data.cache == mine and own.data.max_pixels == 7 and "data.cache" not in caplog.text
    config["compile"]["cache"] = "off"
    (copy / "config.json").write_text(json.dumps(config))
    assert load_run(copy).config.compile.cache == "off"


def test_a_run_of_a_sweep_is_scored_with_its_own_places(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["data"]["cache"], config["steps"] = str(copy / "prepared"), 10  # those of its checkpoint
    (copy / "config.json").write_text(json.dumps(config))
    trained = worker._trained(copy)
    assert trained is not None and trained.config.data.cache == str(copy / "prepared")


WORDS = (
    *(
        "",
        "-",
        "--",
        "0",
        "-1",
        "1e400",
        "nan",
        "9" * 5000,
        "(" * 300,
        "[" * 300 + "]" * 300,
        "{[]: 1}",
        "(1,",
        "'",
        '"',
    ),
    *(
        "None",
        "True",
        "a=b",
        "../../x",
        "~",
        "~nobody-of-this-name",
        "x" * 5000,
        "\udcff",
        "é",
        "1" + "+1" * 4000,
        "-" * 3000,
    ),
    *("1/0", "1e999999999", "99999999999999999999x2", "{'a': {'a': {}}}", "()", "(0,)", "(1e999, 2)", "\\", "%s", "{}"),
)


def overrides(rng: random.Random) -> Iterator[str]:
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice([*KEYS, "model.args.widths", "model.args", "optimizer.args.b1", "nothing", "data.", ".", ""])
        yield rng.choice(("--config.{}={}", "--config.{}={}", "--config.{} {}", "{}={}")).format(key, rng.choice(WORDS))


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_value_of_any_key_ends_in_a_sentence(count: int) -> None:
    tally = Tally("command lines")
    for seed in range(count):
        words = list(overrides(random.Random(seed)))

        def call(words: list[str] = words) -> None:
            config = default_config()
            parse_overrides(config, words)
            validate(config)

        tally.add(attempt(call, f"seed {seed}: {[word[:60] for word in words]}", seconds=2))
    print(tally.row())
    assert tally.counts["result"] and tally.counts["sentence"]


OPTIONS = (
    *(
        "--workdir",
        "--out",
        "--tiles",
        "--overlap",
        "--average",
        "--crf",
        "--seed",
        "--samples",
        "--video",
        "--min-area",
    ),
    *("--regions", "--uncertainty", "--temperature", "--thresholds", "--format", "--max-pixels", "--recursive", "--x"),
)


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_command_line_ends(copy: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is predicted here: there is no image, so that every line ends before."""
    monkeypatch.chdir(copy)
    monkeypatch.setenv(MAX_PIXELS, "1000000")  # which is set again afterwards
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    tally = Tally("options of commands")
    for seed in range(count):
        rng = random.Random(seed)
        words = ["--workdir", str(copy)] if rng.random() < 0.5 else []
        for _ in range(rng.randrange(1, 5)):
            words += [rng.choice(OPTIONS), rng.choice(WORDS)][: rng.choice((1, 2, 2, 2))]
        words += rng.choice([[], [rng.choice(WORDS)], ["no-such.png"]])

        def call(words: list[str] = words, seed: int = seed) -> None:
            quiet = io.StringIO()
            with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
                try:
                    status = predict.main(words) if seed % 2 else models_main(words)
                except SystemExit as end:  # of argparse, with the usage
                    status = end.code
            assert status in (0, 1, 2)

        tally.add(attempt(call, f"seed {seed}: {[word[:60] for word in words]}", seconds=20))
    print(tally.row())


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_experiments_end_in_a_sentence(tmp_path: Path, count: int) -> None:
    """An experiment is Python and is run; whatever it raises is a sentence that names the file, or the key."""
    good = (
        b"from jaxseg.config import default_config, update\n\n\ndef get_config(arg=None):\n"
        b"    config = default_config()\n    update(config, steps=3, data__size=(8, 8))\n    return config\n"
    )
    tally = Tally("experiments")
    for seed in range(count):
        file = tmp_path / f"experiment{seed}.py"  # Python keeps what it has compiled of a name
        file.write_bytes(mutated_text(good, seed))
        tally.add(attempt(lambda file=file: load_experiment(str(file)), f"seed {seed}"))
    print(tally.row())
    with pytest.raises(ConfigError, match="is not a Python file"):
        (tmp_path / "x.json").write_bytes(b"{}")
        load_experiment(str(tmp_path / "x.json"))

"""Whether a step fits is known before it runs, and what would fit is compiled, not guessed."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from helpers.marks import some_slow
from helpers.tiny_run import make_run, short_config, tiny_config
from helpers.tiny_training import assert_identical, state_of

from jaxseg import build, evaluate, fit, session
from jaxseg.config import FREE_KEYS, update, validate
from jaxseg.errors import ConfigError, OutOfMemoryError
from jaxseg.inference import fitting, placement, predictor
from jaxseg.run import preflight
from jaxseg.run.load import load_run
from jaxseg.run.preflight import StepMemory, changed, memory_of_step, splits
from jaxseg.train import main, train


@pytest.fixture(scope="module")
def config():
    """A step of 32 images of 16x16 on 8 devices, whose batches are multiples of 8."""
    config = short_config(compile__options={"xla_backend_optimization_level": 0})
    update(config, batch_size=32)
    return config


@pytest.fixture(scope="module")
def parts(config):
    return build.build_parts(config, 6)


@pytest.fixture(scope="module")
def memory(parts):
    return memory_of_step(parts, build.make_strategy(parts.config))


@pytest.fixture
def measured(monkeypatch):
    """`memory_of_step`, which compiles a step once although the training under test and the test itself ask for it."""
    known = {}

    def memory_of(parts, strategy, dtype=np.uint8):
        c = parts.config
        key = c.batch_size, c.remat, c.accumulate, tuple(c.mesh.to_dict().items()), np.dtype(dtype)
        if key not in known:
            known[key] = memory_of_step(parts, strategy, dtype)
        return known[key]

    monkeypatch.setattr(preflight, "memory_of_step", memory_of)
    return memory_of


def test_the_parts_of_a_step_are_counted_by_hand(memory, parts):
    state = jax.eval_shape(parts.init, jax.eval_shape(jax.random.key, 0))
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    devices = jax.device_count()  # which share the memory of this machine; each holds the state
    assert memory.parameters == memory.average == devices * parameters
    assert memory.optimiser >= 2 * devices * parameters  # two moments of Adam, and counts
    assert memory.batches == 2 * 32 * 16 * 16 * (3 + 1)  # this batch and the next, split over the devices
    assert memory.teacher == 0 and memory.activations > 32 * 16 * 16 * 4 * 6  # at least the logits
    assert memory.total == sum((devices * parameters * 2, memory.optimiser, memory.statistics)) + (
        memory.batches + memory.activations
    )


def test_a_step_that_does_not_fit_names_the_largest_batch_that_does(tmp_path, config, parts, memory, measured):
    strategy = build.make_strategy(config)
    sizes = {n: measured(changed(parts, batch_size=n), strategy).total for n in (8, 16, 24)} | {32: memory.total}
    assert sorted(sizes.values()) == list(sizes.values())
    limited = config.copy_and_resolve_references()
    limited.compile.memory = f"{sizes[24] / 1000:.3f}kB"  # rounded up, to the byte
    with pytest.raises(ConfigError) as error:
        train(limited, tmp_path / "run", "x")
    text = str(error.value)
    found = re.match(
        r"A training step of batch_size=32 takes .* of memory \(.*activations and gradients .*\), and .* are what "
        r"compile\.memory gives; batch_size=24 fits, and so does the whole batch with (.*)\. "
        r"\(compile\.memory=off starts without this check\.\)$",
        text,
    )
    assert found, text
    ways = {"remat=true": {"remat": True}, "accumulate=2": {"accumulate": 2}, "accumulate=4": {"accumulate": 4}}
    ways |= {"mesh.space=8": {"mesh.space": 8}}  # on devices that share the memory of one machine, by its other forms
    for way in found[1].split(" or "):
        assert measured(changed(parts, **ways[way]), strategy).total <= sizes[24]
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("axis", "attribute", "own"),
    [("mesh.fsdp", "parameters", 8), ("mesh.space", "activations", 8), ("mesh.space", "activations", 4)],
)
def test_a_mesh_that_fits_is_named(monkeypatch, parts, axis, attribute, own):
    whole = StepMemory(800, 0, 0, 0, 0, 0, 800)
    monkeypatch.setattr(jax, "local_device_count", lambda: own)  # 4: of the first of two processes

    def memory_of(parts, strategy, dtype):  # of devices with a memory of their own, of which each holds its part
        sizes = dict(strategy.mesh.shape)
        split = sizes[axis.removeprefix("mesh.")] if len(sizes) > 1 else 1
        return dataclasses.replace(whole, **{attribute: 800 // split})

    monkeypatch.setattr(preflight, "memory_of_step", memory_of)
    said = preflight.ways_to_fit(parts, build.make_strategy(parts.config), 1000, whole)
    assert said == f"the whole batch with {axis}={own} fits"


def test_every_key_of_a_mesh_that_fits_is_named(monkeypatch, parts):
    meshes = []

    def memory_of(parts, strategy, dtype):
        meshes.append(dict(strategy.mesh.shape))
        fits = meshes[-1] == {"data": 1, "fsdp": 1, "space": 8}
        return StepMemory(0, 0, 0, 0, 0, 0, 100 if fits else 2000)

    monkeypatch.setattr(preflight, "memory_of_step", memory_of)
    parts = changed(parts, **{"mesh.data": 4, "mesh.fsdp": 2})
    whole = StepMemory(800, 0, 0, 0, 0, 0, 1200)
    said = preflight.ways_to_fit(parts, build.make_strategy(parts.config), 1000, whole)
    assert said == "the whole batch with mesh.data=-1 mesh.fsdp=1 mesh.space=8 fits"
    assert {"data": 1, "fsdp": 8, "space": 1} in meshes


def test_a_batch_divides_into_devices_and_micro_batches():
    config = tiny_config(batch_size=48, accumulate=1)
    assert list(splits(config)) == [2, 3, 6]  # micro-batches of 24, 16 and 8
    update(config, accumulate=2)
    assert list(splits(config)) == [3, 6]
    update(config, accumulate=1, semi__method="mean_teacher")  # of pairs
    assert list(splits(config)) == [3]


def test_the_memory_is_no_part_of_what_a_run_computes():
    assert "compile.memory" in FREE_KEYS
    with pytest.raises(ConfigError, match=r"compile\.memory must be an amount such as 6GB or 500 MiB, off, or empty"):
        validate(tiny_config(compile__memory="6 apples"))


def test_fit_finds_what_training_takes(tmp_path, monkeypatch, capsys, config, memory):
    monkeypatch.setattr(fit.command, "load_experiment", lambda spec: config.copy_and_resolve_references())
    limit = f"--config.compile.memory={memory.total / 1000:.3f}kB"
    epochs = ["--config.epochs=100", "--config.schedule.warmup=1500"]  # more than the steps that the experiment had
    assert fit.main(["--config", "x.py", limit, "--only", "--json", str(tmp_path / "fit.json"), *epochs]) == 0
    (line,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("32 "))
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["planned"] == report["free"] == memory.total
    (row,) = report["rows"]
    assert row["memory"] == {**dataclasses.asdict(memory), "total": memory.total}
    assert (row["fits"], row["largest_batch"], line[-2:]) == ("yes", 32, ["yes", "32"])


@pytest.mark.parametrize("size", ["-4", "0", "4.5"])
def test_fit_takes_only_batch_sizes(capsys, size):
    with pytest.raises(SystemExit):
        fit.main(["--config", "x.py", "--batches", "8", size])
    assert f"--batches: must be a whole number of at least 1, got {size}" in capsys.readouterr().err


def test_fit_has_a_row_for_each_kind_of_step(monkeypatch, config):
    def linear(parts, strategy, dtype=np.uint8):
        c = parts.config
        size = c.batch_size * (1 if c.remat else 2) * (1 if c.dtype == "bfloat16" else 2)
        return StepMemory(100, 0, 200, 0, 0, 0, size)

    monkeypatch.setattr("jaxseg.fit.memory_of_step", linear)
    monkeypatch.setattr("jaxseg.run.preflight.memory_of_step", linear)
    config = config.copy_and_resolve_references()
    config.compile.memory, config.remat = "0.5kB", True
    rows, room = fit.fit(config, [32, 64])
    assert [(row.dtype, row.remat, row.batch_size, row.fits, row.largest_batch) for row in rows] == [
        ("float32", True, 32, "yes", 96),
        ("float32", True, 64, "yes", 96),  # 300 + 2 * 96 bytes; 104 would be 508
        ("float32", False, 32, "yes", 48),
        ("float32", False, 64, "no", 48),
        ("bfloat16", False, 32, "yes", 96),
        ("bfloat16", False, 64, "yes", 96),
        ("bfloat16", True, 32, "yes", 200),
        ("bfloat16", True, 64, "yes", 200),
    ]
    text = fit.table(rows, room)
    cells = [line.replace(" bytes", "").split() for line in text.splitlines()[1:9]]
    assert {len(row) for row in cells} == {9}, "no cell is blank"
    assert "   64   float32  false   100 bytes  200 bytes    256 bytes  556 bytes    no             48" in text
    assert text.endswith("8 cpu devices share it; 500 bytes are what compile.memory gives.")
    with pytest.raises(ConfigError, match=r"batch_size is 12, which is not divisible by the number of devices, 8"):
        fit.fit(config, [12])


# That of the training: `evaluate` has whole images on every device, as after a training without one.
@pytest.mark.parametrize("space", some_slow((1, 4), (1,)))
def test_an_evaluation_that_does_not_fit_names_the_largest_batch_that_does(tmp_path, capsys, space):
    config = tiny_config(data__shapes_val=40, mesh__space=space)
    update(config, eval__batch_size=32)
    make_run(tmp_path / "run", config)

    def score(memory, size=32):
        keys = {"compile.memory": memory, "eval.batch_size": size}
        return evaluate.main(["--workdir", str(tmp_path / "run"), *(f"--config.{k}={v}" for k, v in keys.items())])

    assert score("1kB") == 1
    text = capsys.readouterr().err.splitlines()[-1]
    assert "no smaller eval.batch_size fits: give eval.tiles, such as eval.tiles=16x16." in text
    taken = re.search(r"images of 16x16 pixels takes ([\d.]+) (kB|MB) of memory beside the network", text)
    assert taken, text
    half = float(taken[1]) * 0.6
    assert score(f"{half:.0f}{taken[2]}") == 1
    size = re.search(r"; eval\.batch_size=(\d+) fits\. ", capsys.readouterr().err)
    assert size and 8 <= int(size[1]) < 32
    assert score(f"{half:.0f}{taken[2]}", int(size[1])) == 0
    assert score("off") == 0
    capsys.readouterr()
    assert evaluate.main(["--workdir", str(tmp_path / "run"), "--memory", "1kB"]) == 1
    assert "and 1 kB are what compile.memory gives" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [1, 8])
def test_tiles_auto_and_tiles_none_count_the_same_and_the_tiles_that_are_named_fit(tmp_path, monkeypatch, devices):
    if devices == 1:
        monkeypatch.setattr(placement, "predictor_mesh", lambda tiled, space: None)
        monkeypatch.setattr(predictor, "predictor_mesh", lambda tiled, space: None)
    run = load_run(make_run(tmp_path / "run", tiny_config(data__fit="crop")))
    image = np.zeros((512, 512, 3), np.uint8)
    whole, free = fitting.Images(1, (512, 512), image.dtype), predictor.make_predictor([run])
    needed = fitting.images_memory(free.networks, free.variables, whole, False)
    assert needed >= 512 * 512 * (4 * run.num_classes + 8)  # logits and classes at the size of the image
    predictor.make_predictor([run], memory=needed)(image)
    with pytest.raises(OutOfMemoryError) as error:
        predictor.make_predictor([run], memory=needed - 1)(image)
    found = re.fullmatch(
        r"an image of 512x512 pixels would take .* of memory, and .* are what there may be; --tiles (\d+)x\1 fits",
        str(error.value),
    )
    assert found
    cut = predictor.make_predictor([run], tiles="auto", memory=needed - 1)
    assert cut.grid_for(image, probabilities=False).tile == (int(found[1]),) * 2 < (512, 512)
    predictor.make_predictor([run], tiles=int(found[1]), memory=needed - 1)(image)
    if devices == 1:  # where all devices share one memory, each has an image that they cannot split
        auto = predictor.make_predictor([run], tiles="auto", memory=needed)
        assert auto.grid_for(image, probabilities=False) is None
    with pytest.raises(OutOfMemoryError, match=r" of 64x64 pixels would .*; not even the smallest tiles fit"):
        predictor.make_predictor([run], tiles="auto", memory=100_000)(image)


def forms_of_evaluation(monkeypatch):
    """Returns a list of the shapes of images for which a training compiles its evaluation."""
    compiled, made = [], session.ahead_of_evaluation

    class Counting:
        def __init__(self, step):
            self.step = step

        def lower(self, state, batch):
            compiled.append(batch["image"].shape)
            return self.step.lower(state, batch)

    monkeypatch.setattr(session, "ahead_of_evaluation", lambda step, *rest, **more: made(Counting(step), *rest, **more))
    return compiled


@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_an_evaluation_that_does_not_fit_ends_a_training_before_its_first_step(tmp_path, monkeypatch, capsys, strategy):
    config = short_config(data__shapes_val=256, strategy=strategy)
    update(config, batch_size=8, eval__batch_size=256)
    parts = build.build_parts(config, 6, axis_name=build.make_strategy(config).axis_name)
    limit = memory_of_step(parts, build.make_strategy(config)).total + 200_000
    config.compile.memory = f"{limit / 1000:.0f}kB"
    compiled = forms_of_evaluation(monkeypatch)
    with pytest.raises(
        ConfigError, match=r"An evaluation of 256 images of 16x16 .*; eval\.batch_size=\d+ fits\. "
    ) as error:
        train(config, tmp_path / "run", "x")
    assert not (tmp_path / "run" / "checkpoints").exists() and "step 1" not in capsys.readouterr().out
    config.eval.batch_size = int(re.search(r"eval\.batch_size=(\d+)", str(error.value))[1])
    assert 8 <= config.eval.batch_size < 256
    compiled.clear()
    train(config, tmp_path / "run", "x")
    assert len(compiled) == len(set(compiled)), compiled


def test_an_evaluation_in_tiles_is_checked_and_compiled_once_before_the_first_step(tmp_path, monkeypatch):
    config = short_config(data__fit="crop", eval__tiles="16x16")
    config.compile.memory = "60kB"
    with pytest.raises(ConfigError, match="A training step"):
        train(config, tmp_path / "run", "x")
    asked, scoring = [], fitting._scoring
    monkeypatch.setattr(fitting, "_scoring", lambda networks, *rest: asked.append(networks) or scoring(networks, *rest))
    monkeypatch.setattr(session, "described", lambda program, shapes, parts: StepMemory(0, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(preflight, "described", lambda program, shapes, parts: StepMemory(0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(
        OutOfMemoryError, match=r"a tile of 16x16 pixels would take .*; not even the smallest tiles fit"
    ):
        train(config, tmp_path / "run", "x")
    assert not (tmp_path / "run" / "checkpoints").exists()
    config.compile.memory = ""
    asked.clear()
    train(config, tmp_path / "run", "x")
    programs = [key for key in asked[0]._programs if isinstance(key[1], tuple) and len(key[1]) == 4]
    assert len(programs) == 1, "the first evaluation uses the program of the check"


def test_a_run_that_memory_ends_says_so_and_resumes_to_the_same_bits(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.py").write_text(
        "from helpers.tiny_run import short_config\ndef get_config(arg=None):\n    return short_config()\n"
    )
    called, calls = preflight.Ahead.__call__, []

    def fail(self, *arguments):
        calls.append(len(arguments))
        if calls.count(3) == 3:  # the third training step; an evaluation has two arguments
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return called(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(preflight.Ahead, "__call__", fail)
        assert main(["--config", str(tmp_path / "tiny.py"), "--workdir", str(tmp_path / "run")]) == 1
    text = capsys.readouterr().err
    line = text.strip().splitlines()[-1]
    assert "Traceback" not in text, text
    assert line.startswith("error: A training step or its evaluation does not fit into the device's memory: ")
    assert "what is saved stays, and the run resumes from it by python -m jaxseg.train --config" in line
    assert "accumulate=2" in line and "remat=true" in line
    train(short_config(), tmp_path / "run", "x")
    train(short_config(), tmp_path / "whole", "x")
    assert_identical(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))

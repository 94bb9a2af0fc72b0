"""Each benchmark runs once at its smallest size and writes what it promises; no time is asserted."""

import argparse
import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_run import make_run, tiny_config
from lib import timing
from lib.timing import ratio_of, result_file, time_rounds

from jaxseg.errors import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TIMES = {"ours", "naive"}


def run(name: str, out: Path, *arguments: str, alone: bool = False) -> dict:
    """The record of a benchmark; in this process, which has imported what most need, or in one of its own (`alone`)."""
    words = ["--smallest", "--out", str(out), *arguments]
    if alone:
        command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    else:
        assert importlib.import_module(name).main(words) == 0
    assert result_file(out, ".md").read_text().count("|") > 10
    record = json.loads(result_file(out, ".json").read_text())
    assert record["environment"]["packages"]["jax"] and record["environment"]["date"].startswith("20")
    return record


def positive(times: dict) -> bool:
    return all(isinstance(value, float) and value > 0 for value in times.values())


def test_primitives(tmp_path):
    record = run("primitives", tmp_path / "p-0.1", "--only", "pool", "bilinear", "group")
    assert set(record["primitives"]) == {
        "max pool 2x2",
        "max pool 3x3/2",
        "max pool and un-pool",
        "bilinear x2",
        "group norm",
    }
    for times in record["primitives"].values():
        assert set(times) == {"forward", "step", "difference"} and times["difference"] <= record["allowed"]
        assert all(set(times[kind]) >= TIMES and positive(times[kind]) for kind in ("forward", "step"))
    assert (tmp_path / "p-0.1.png").is_file()


@pytest.mark.slow  # its parts are tested in tests/nn/ops/test_dense_crf.py
def test_crf(tmp_path):
    record = run("crf", tmp_path / "c")
    assert positive(record["parts"]) and positive({"seconds": record["sizes"][0]["seconds"]})
    [preset] = record["presets"]
    assert preset["preset"] == "deeplab-v1" and preset["field"] < 0.05


@pytest.mark.slow  # its parts are tested in tests/inference
def test_crf_effect(tmp_path):
    workdir = make_run(tmp_path / "run", tiny_config())
    effect, picture = importlib.import_module("crf_effect"), tmp_path / "p.png"
    words = ["--workdir", str(workdir), "--crf", "smooth_xy=1,appearance_xy=4,appearance_rgb=9,iterations=1"]
    assert effect.main([*words, "--limit", "2", "--picture", str(picture), "--out", str(tmp_path / "e")]) == 0
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    alone, refined = rows
    assert alone["crf"] == "none" and alone["better"] == alone["worse"] == 0 and picture.is_file()
    assert refined["images"] == 2 and 0 <= refined["mean_iou"] <= 1
    assert effect.main([*words[:2], "--crf", "deeplab"]) == 1


@pytest.mark.slow  # its parts are tested in tests/inference/test_averaging.py
def test_ensembles(tmp_path, capsys):
    runs = [str(make_run(tmp_path / f"r{step}", tiny_config(), {step: 0.5})) for step in (10, 11, 12)]
    record = run("ensembles", tmp_path / "e", "--workdir", *runs)
    assert [(row["runs"], row["groups"]) for row in record["rows"]] == [(1, 3), (2, 3), (3, 1)]
    assert all(row["lowest"] <= row["mean_iou"] <= row["highest"] for row in record["rows"])
    one, *forms = record["times"]
    assert one["form"] == "one run" and {form["form"] for form in forms} == {"in turn", "vmap", "scan"}
    assert all(form["difference"] < 1e-6 for form in forms)
    other = make_run(tmp_path / "other", tiny_config(model__args={"widths": (8,), "hidden": 8, "hidden_kernel": 3}))
    with pytest.raises(SystemExit):
        importlib.import_module("ensembles").main(["--workdir", runs[0], str(other)])
    assert "differ in architecture" in capsys.readouterr().err


def test_device(tmp_path, monkeypatch, capsys):
    record = run("device", tmp_path / "d")
    assert record["differences"].keys() == {"conv 1x1", "loss: cross_entropy"}
    assert record["differences"]["conv 1x1"]["float32"] < 1e-6 < record["differences"]["conv 1x1"]["bfloat16"] < 0.01
    device = importlib.import_module("device")
    monkeypatch.setattr(device, "compare", lambda cases, dtypes: {name: {"float32": float("nan")} for name in cases})
    assert device.main(["--smallest"]) == 1
    assert "the device's numbers are not the CPU's: conv 1x1, loss: cross_entropy" in capsys.readouterr().err


@pytest.mark.slow  # `compare_torch` goes through the same measurement
def test_throughput(tmp_path):
    record = run("throughput", tmp_path / "t", "--remat", "on", alone=True)
    (row,) = record["runs"]
    assert row["remat"] == "on"
    # Forward, gradient by the image and by the kernels: at least the 6 operations a weight of one pixel.
    assert row["flops"] > 6 * row["parameters"] and row["memory_bytes"] > row["parameters"] * 4
    assert row["bytes"] > row["parameters"] * 4
    numbers = (
        "train_images_per_second",
        "infer_images_per_second",
        "compile_seconds",
        "compile_seconds_cached",
        "share_of_matmul",
        "share_of_bandwidth",
    )
    assert positive({name: row[name] for name in numbers})
    assert positive(record["ceilings"]["float32"])


def test_compare_torch(tmp_path):
    pytest.importorskip("torch")
    record = run("compare_torch", tmp_path / "c")
    assert record["torch"]["memory_format"] == "channels_last" and record["torch"]["autocast"] is None
    network = record["networks"]["unet"]
    assert network["parameters"] > 0 and set(network["left_out"]) == {"torch compile"}
    programs = {"jaxseg", "flax naive", "torch eager"}
    for kind in ("train", "infer"):
        assert set(network[kind]) == programs and positive(network[kind])
        assert network["rounds"][kind] == {name: [seconds] for name, seconds in network[kind].items()}
        assert set(network["compile_seconds"][kind]) == programs and positive(network["compile_seconds"][kind])
        memory = network["memory_bytes"][kind]
        assert memory["jaxseg"] > 0 and memory["flax naive"] > 0
        assert memory["torch eager"] is None  # torch counts that of a GPU alone
    # Forward, gradient by the image and by the kernels: at least the 6 operations a weight of one pixel.
    assert network["flops"] > 6 * network["parameters"] and record["ceilings"]["matmul_flops"] > 0
    share = network["flops"] / network["train"]["jaxseg"] / record["ceilings"]["matmul_flops"]
    assert (tmp_path / "c.md").read_text().count(f" {share:.0%} |") == 1


def test_a_ratio_is_the_median_of_the_rounds_with_its_middle_half():
    assert ratio_of([2.0, 4.0, 6.0], [1.0, 1.0, 2.0]) == (3.0, 2.5, 3.5, 2.0)
    assert ratio_of([3.0], [2.0]) == (1.5, 1.5, 1.5, 1.5)


def test_rounds_go_on_until_the_ratios_are_steady(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)

    def taking(*seconds):
        left = itertools.chain(seconds, itertools.repeat(seconds[-1]))
        return lambda: now.__setitem__(0, now[0] + next(left))

    # The first two calls are not of a round. The ratios are 2, 3, 2, 2, 2: after five, the middle half is 2 to 2.
    cases = {"ours": taking(1.0), "other": taking(2.0, 2.0, 2.0, 3.0, 2.0)}
    assert time_rounds(cases, 2, max_rounds=9)["other"] == [2.0, 3.0, 2.0, 2.0, 2.0]
    cases = {"ours": taking(1.0), "other": taking(2.0, 2.0, 2.0, 3.0, 2.0)}
    assert time_rounds(cases, 2)["other"] == [2.0, 3.0]
    cases = {"ours": taking(1.0), "other": taking(2.0, 2.0, *(2.0, 3.0) * 5)}
    assert len(time_rounds(cases, 2, max_rounds=6)["ours"]) == 6


@pytest.mark.slow  # `primitives` and `compare_torch` go through the same measurement
def test_operations(tmp_path):
    pytest.importorskip("torch")
    record = run("operations", tmp_path / "o")
    rows = record["networks"]["unet"]
    # The smallest U-Net has two levels: 2 x 2 convolutions down, 2 up, the head, and a norm after each but the head.
    counts = {kind: sum(row["count"] for row in rows if row["kind"] == kind) for kind in {row["kind"] for row in rows}}
    assert counts == {
        "convolution": 6,
        "1x1 convolution": 1,
        "batch norm": 6,
        "max pooling": 1,
        "transposed convolution": 1,
    }
    for row in rows:
        assert all(set(row[kind]) == {"ours", "torch"} and positive(row[kind]) for kind in ("forward", "step"))
    excess = [row["excess"] for row in rows]
    assert excess == sorted(excess, reverse=True)
    assert excess[0] == pytest.approx(rows[0]["step"]["ours"] - rows[0]["step"]["torch"])


def test_those_without_data_need_no_library_of_data():
    """Grain, TFDS and ml_collections may be missing, and no device is taken before a benchmark has set things up."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('grain', 'tensorflow_datasets', 'ml_collections'))\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import compare_torch, device, lib.flax_networks, operations, primitives, suite, throughput\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "[compare_torch.NETWORKS[name].ours() for name in compare_torch.NETWORKS]\n"
        "throughput.parallel.make_strategy('jit', {'batch': 8})\n"
        "print(suite.missing_for('input_pipeline'), '|', suite.missing_for('throughput'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "grain and ml_collections |"


def test_input_pipeline(tmp_path):
    record = run("input_pipeline", tmp_path / "i")
    assert record["workers"][0]["images_per_second"] > 0
    assert 0 <= record["training"]["share_waiting"] < 1


@pytest.mark.slow  # it starts trainings in processes of their own
def test_startup(tmp_path):
    record = run("startup", tmp_path / "s", "--config", "experiments/encoder_decoder.py", alone=True)
    assert set(record["seconds"]) == {"cold", "warm"} and positive(record["seconds"])


@pytest.mark.parametrize("key", ["model.name=unet", "loss.terms=dice", "optimizer.name=adam"])
def test_whole_run_compares_no_other_training(key, tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=r"is '\w+', but the PyTorch loop has '.*' alone"):
        importlib.import_module("whole_run").main(["--out", str(tmp_path / "w"), f"--config.{key}"])


@pytest.mark.slow  # it starts trainings in processes of their own
def test_whole_run(tmp_path):
    pytest.importorskip("torch")
    record = run("whole_run", tmp_path / "w")
    assert set(record["seconds"]) == {"jaxseg cold", "jaxseg warm", "torch eager"} and positive(record["seconds"])
    assert record["mean_iou"]["jaxseg cold"] == record["mean_iou"]["jaxseg warm"]
    assert all(0 <= score <= 1 for score in record["mean_iou"].values())


@pytest.mark.slow  # it starts a process for each program
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory(tmp_path):
    pytest.importorskip("torch")
    record = run("memory", tmp_path / "m")
    [ours], [theirs] = (record["networks"]["unet"][name] for name in ("jaxseg", "torch eager"))
    # At the least the gradients of two levels, at the most a thousand times the batch.
    assert 10_000 < ours["resident"] < 2**28 and 10_000 < theirs["resident"] < 2**28
    assert ours["planned"] > 10_000 and theirs["planned"] is None


def test_scaling(tmp_path):
    record = run("scaling", tmp_path / "s", "--parts", "memory")
    (found,) = record["networks"]["unet"]
    assert found["mesh"] == [1, 1, 8] and found["temporary"] > 10_000 and found["state"] > 3 * found["parameter_bytes"]
    assert found["exchanged"]["all-reduce"]["bytes"] >= found["parameter_bytes"]
    assert found["exchanged"]["collective-permute"]["count"] > 10 and set(found["exchanged"]) <= {
        *("all-reduce", "collective-permute"),
    }


def test_bytes_on_paper_are_those_counted_by_hand():
    scaling = importlib.import_module("scaling")
    kinds = {"all-reduce": 800, "all-gather": 400, "collective-permute": 30}
    each = {"exchanged": {k: {"bytes": v} for k, v in kinds.items()}, "operations": 64.0, "split_bytes": 400}
    assert scaling.sent("data", each, 8) == (7 / 8 * (1600 + 400) + 30, 64.0)
    assert scaling.sent("fsdp", each, 2) == (1 / 2 * (1600 + 400 - 400) + 30, 64.0)
    assert scaling.sent("space", each, 16)[1] == 32.0


@pytest.mark.slow  # `compare_torch` goes through the same measurement
def test_growth(tmp_path):
    record = run("growth", tmp_path / "g")
    assert set(record["axes"]) == {"batch", "size", "width", "classes", "seeds"}
    for axis, found in record["axes"].items():
        (row,) = found["points"]
        assert row["value"] == row[axis] and row["memory_bytes"] > 10_000 and row["seconds"] > 0
        assert row["images_per_second"] == pytest.approx(row["batch"] * row["seeds"] / row["seconds"])
    parts = record["axes"]["classes"]["points"][0]["parts"]
    assert set(parts) == {"network", "loss", "confusion"}  # the U-Net's logits have the size of the image
    assert positive({part: found["seconds"] for part, found in parts.items()})
    assert (tmp_path / "g.png").is_file()


def test_growth_leaves_out_what_lacks_time_or_memory(monkeypatch):
    growth = importlib.import_module("growth")
    points = growth.points_of("size", smallest=False)[::2]  # of the U-Net
    now, seen = [0.0], []

    def step(self, point):
        seen.append(point.size)
        now[0] += 10.0
        if point.size == 128:
            return {"left_out": "no memory: it needs 9.9 GB"}
        return {"seconds": 1.0, "images_per_second": 1.0, "memory_bytes": 8}

    monkeypatch.setattr(growth.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(growth.Measurements, "_step", step)
    measure = growth.Measurements(argparse.Namespace(loss="cross_entropy", repeats=1), 200.0)
    measure.begin_axis(2)
    rows = [measure.point("size", point) for point in points]
    # 100 s for this axis: 10 s; no memory, 10 s; 10 + 5 (16 - 1) s are too many, as is all that is larger.
    assert seen == [64, 128]
    assert [row["left_out"] for row in rows if "left_out" in row] == [
        "no memory: it needs 9.9 GB",
        "no time: it would take about 85 s",
        "no time: it would take about 325 s",
        "no time: it would take about 1285 s",
    ]
    record = {"environment": timing.environment(), "loss": "x", "axes": {"size": {"power": 2, "points": rows}}}
    assert "| left out, no time: it would take about 85 s |" in growth.describe(record)


@pytest.mark.slow  # it starts a process for each network
def test_compilation(tmp_path):
    record = run("compilation", tmp_path / "x", "--names", "encoder_decoder")
    assert set(record["networks"]["encoder_decoder"]) == {"trace", "lower", "compile", "cpu"}
    assert positive(record["networks"]["encoder_decoder"])


def test_classical(tmp_path):
    record = run("classical", tmp_path / "k", "--networks", str(BENCHMARKS / "results" / "shapes-cpu.json"))
    assert record["environment"]["packages"]["scikit-image"]
    assert record["images"] == 1 and record["training_images"] == 2
    floor, *methods = record["methods"]
    assert floor["oracle"] is None and len(methods) == 8
    for row in methods:
        # By the oracle no pixel of a region can be less often right than by any other class of it.
        assert 0 < row["pixel_accuracy"] <= row["oracle"]["pixel_accuracy"] <= 1
        assert row["oracle"]["pixel_accuracy"] >= floor["pixel_accuracy"] and row["regions"] >= 1
        assert len(row["classes"]) == len(row["oracle"]["classes"]) == 6
    collected = json.loads((BENCHMARKS / "results" / "shapes-cpu.json").read_text())["runs"]
    assert [row["same_pixels"] for row in record["networks"]] == [False] * len(collected)
    assert (tmp_path / "k.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("primitives --batch 0", "--batch: must be at least 1, got 0"),
        ("primitives --only pol", "no primitive's name holds 'pol'; they are max pool 2x2, "),
        ("throughput --sizes 64 x", "--sizes: invalid whole number value: 'x'"),
        ("throughput --models unnet", "invalid choice: 'unnet'"),
        ("suite --minutes 0", "--minutes: must be above 0, got 0"),
    ],
)
def test_wrong_arguments_are_told_before_anything_runs(arguments, words, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    name, *rest = arguments.split()
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(name).main(rest)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("zoo --names nope", "There is no experiment file"),
        ("exported --names unett", "There is no network or encoder 'unett'. Did you mean 'unet'"),
        ("startup --config experiments/nope.py --repeats 1", "failed: There is no experiment file"),
    ],
)
def test_what_is_missing_is_named(arguments, words, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    name, *rest = arguments.split()
    with pytest.raises(ConfigError, match=words):
        importlib.import_module(name).main(rest)


def test_predicting_a_folder(tmp_path):
    record = run("predict_folder", tmp_path / "f")
    assert record["seconds"].keys() == {"predict", "loop", "network"}
    assert all(positive(dict(enumerate(times))) and len(times) == 1 for times in record["seconds"].values())

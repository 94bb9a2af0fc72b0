"""Each benchmark runs once at its smallest size and writes what it promises; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TIMES = {"ours", "naive"}


def run(name: str, out: Path, *arguments: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--smallest", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".md").read_text().count("|") > 10
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["environment"]["packages"]["jax"] and record["environment"]["date"].startswith("20")
    return record


def positive(times: dict) -> bool:
    return all(isinstance(value, float) and value > 0 for value in times.values())


def test_primitives(tmp_path):
    record = run("primitives", tmp_path / "p", "--only", "pool", "bilinear", "group")
    assert set(record["primitives"]) == {"max pool 2x2", "max pool and un-pool", "bilinear x2", "group norm"}
    for times in record["primitives"].values():
        assert set(times) == {"forward", "step"}
        assert all(set(kind) >= TIMES and positive(kind) for kind in times.values())
    assert (tmp_path / "p.png").is_file()


def test_throughput(tmp_path):
    record = run("throughput", tmp_path / "t")
    (row,) = record["runs"]
    assert row["flops"] > 1e6 and row["memory_bytes"] > row["parameters"] * 4
    numbers = ("train_images_per_second", "infer_images_per_second", "compile_seconds", "compile_seconds_cached")
    assert positive({name: row[name] for name in numbers})
    assert positive(record["ceilings"]["float32"])


def test_compare_torch(tmp_path):
    pytest.importorskip("torch")
    record = run("compare_torch", tmp_path / "c")
    network = record["networks"]["unet"]
    assert network["parameters"] > 0
    assert {"jaxseg", "torch eager"} <= set(network["train"]) and positive(network["train"])
    assert {"jaxseg", "torch eager"} <= set(network["infer"]) and positive(network["infer"])


def test_input_pipeline(tmp_path):
    record = run("input_pipeline", tmp_path / "i")
    assert record["workers"][0]["images_per_second"] > 0
    assert 0 <= record["training"]["share_waiting"] < 1


def test_classical(tmp_path):
    record = run("classical", tmp_path / "k", "--networks", str(BENCHMARKS / "results" / "shapes-cpu.json"))
    assert record["environment"]["packages"]["scikit-image"]
    assert record["images"] == 1 and record["training_images"] == 2
    floor, *methods = record["methods"]
    assert floor["oracle"] is None and len(methods) == 6
    for row in methods:
        # By the oracle no pixel of a region can be less often right than by any other class of it.
        assert 0 < row["pixel_accuracy"] <= row["oracle"]["pixel_accuracy"] <= 1
        assert row["oracle"]["pixel_accuracy"] >= floor["pixel_accuracy"] and row["regions"] >= 1
        assert len(row["classes"]) == len(row["oracle"]["classes"]) == 6
    assert [row["same_pixels"] for row in record["networks"]] == [False] * 6
    assert (tmp_path / "k.png").is_file()


@pytest.mark.slow
def test_suite(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "suite.py"), "--smallest", "--out", str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s-check.json").read_text())["difference_from_cpu"] <= 1e-5
    for name in ("primitives", "throughput", "input_pipeline"):
        assert (tmp_path / f"s-{name}.json").is_file()

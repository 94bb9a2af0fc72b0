"""The suite of benchmarks: its plan, its shares of the time, and what it cuts off."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lib import timing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_suite(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "suite.py"), "--smallest", "--out", str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s-check.json").read_text())["difference_from_cpu"] <= 1e-5
    fates = json.loads((tmp_path / "s-check.json").read_text())["benchmarks"]
    for name in ("primitives", "throughput", "input_pipeline"):
        assert fates[name].startswith("done") and (tmp_path / f"s-{name}.json").is_file()


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_suite_gives_arguments_that_the_benchmarks_have(platform, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    suite = importlib.import_module("suite")

    class Parsed(Exception):
        pass

    def stopping(parse):
        def parsed(argv):
            parse(argv)
            raise Parsed

        return parsed

    for name, planned in suite.plan(platform).items():
        module = importlib.import_module(name)
        method = "parse_known_args" if name in ("input_pipeline", "startup") else "parse_args"  # keys may follow

        def make_parser(description, method=method):
            parser = timing.make_parser(description)
            setattr(parser, method, stopping(getattr(parser, method)))
            return parser

        monkeypatch.setattr(module, "make_parser", make_parser)
        with pytest.raises(Parsed):
            module.main([*planned.arguments, "--out", "x"])


def test_the_last_benchmarks_of_the_suite_get_what_is_left(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    suite = importlib.import_module("suite")
    now, limits = [0.0], {}

    def run(name, arguments, out, limit):
        limits[name] = limit
        now[0] += limit
        return "done"

    monkeypatch.setattr(suite, "run", run)
    monkeypatch.setattr(suite, "check_device", lambda: 0.0)
    monkeypatch.setattr(suite.time, "monotonic", lambda: now[0])
    plan = {name: suite.Planned(share, []) for name, share in (("a", 3), ("b", 5), ("c", 1), ("d", 1))}
    monkeypatch.setattr(suite, "plan", lambda platform: plan)
    assert suite.main(["--minutes", "1.5", "--out", str(tmp_path / "s")]) == 0
    # A fifth of the time would be too short for c, and nothing is left for d, which `run` leaves out.
    assert limits == pytest.approx({"a": 27.0, "b": 45.0, "c": 18.0, "d": 0.0})
    fates = json.loads((tmp_path / "s-check.json").read_text())["benchmarks"]
    assert fates == dict.fromkeys("abcd", "done")


def test_a_benchmark_that_is_cut_off_takes_along_what_it_started(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suite

    child, cleared = tmp_path / "child", tmp_path / "cleared"
    (tmp_path / "slow.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(child.pid))\n"
        "try:\n    time.sleep(600)\n"
        f"finally:\n    pathlib.Path({str(cleared)!r}).touch()\n"
    )
    monkeypatch.setattr(suite, "HERE", tmp_path)
    monkeypatch.setattr(suite, "LEAST", 0.0)
    assert suite.run("slow", [], None, 5.0) == "cut off after 5 s"
    assert cleared.exists(), "it had the time to clear away"
    status = Path(f"/proc/{child.read_text()}/stat")

    def ended():
        try:
            return status.read_text().split()[2] == "Z"
        except OSError:
            return True

    for _ in range(100):  # on a busy machine a process takes a moment to end after its signal
        if ended():
            break
        time.sleep(0.1)
    assert ended()

"""Sweeps: equal tables from equal runs, no run repeated, interrupted runs resumed, failures reported."""

import contextlib
import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from helpers.figures import blank_figures, drawn_figures

from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.evaluate import main as evaluate_main
from jaxseg.report.__main__ import main as report_main
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.report import Reporter, read_log
from jaxseg.run.workdir import prepare_workdir
from jaxseg.sweep import Sweep, draw, pool, report, results, worker
from jaxseg.sweep.__main__ import main
from jaxseg.sweep.plan import Plan, digest, load_plan, read_plan, runs_of, write_plan
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.records import read_failure, read_scores
from jaxseg.sweep.results import Cost, Result, Row
from jaxseg.sweep.statistics import Difference, Spread, paired_difference, spread
from jaxseg.sweep.stored import stored_division, with_stored_steps

ROOT = Path(__file__).resolve().parents[2]
ABLATION = """
from jaxseg.config import default_config, update
from jaxseg.sweep import Sweep


def get_config(arg=None):
    config = default_config()
    update(
        config, model__name="cnn", model__args={"widths": (4,), "hidden": 8, "hidden_kernel": 3, "dropout": 0.0},
        data__size=(16, 16), data__shapes_train=24, data__shapes_val=8, steps=4, batch_size=8, eval__every=2,
        eval__batch_size=8, checkpoint__every=2, log__every=4, log__gradients=True, log__images=0,
        log__tensorboard=False,
    )
    return config


def sweep():
    broken = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e38}
    return Sweep({"narrow": {}, "wide": {"model__args__hidden": 12}, "broken": broken}, baseline="narrow", seeds=(0, 1))
"""
REPEATED = ("table.md", "table.csv", "results.jsonl", "plot.png", "gradients.csv", "gradients.png")


class Here:
    """Stands for a process that has ended: the run was made in this one."""

    def __init__(self, status: int):
        self.returncode = status

    def poll(self) -> int:
        return self.returncode


def run_here(run: Any, split: str) -> Here:
    """Makes a run in this process; its pictures, not those of the sweep, are blank."""
    with blank_figures():
        return Here(worker.run(run.workdir, split))


@contextlib.contextmanager
def runs_here(git: dict[str, Any] | None) -> Iterator[None]:
    """Makes the runs in this process, at the commit `git`: one during the tests must not change the report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_start", lambda run, split, *_: run_here(run, split))
        patch.setattr(pool, "_PAUSE", 0.0)
        patch.setattr("jaxseg.run.provenance.git_state", lambda: git)
        yield


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ablation") / "hidden.py"
    path.write_text(ABLATION)
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the runs in this process instead of one process each; returns the names of the started runs."""
    started: list[str] = []

    def start(run: Any, split: str, arguments: Any, environment: Any) -> Here:
        started.append(run.name)
        return run_here(run, split)

    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(pool, "_PAUSE", 0.0)
    return started


@pytest.fixture(scope="module")
def one_run(ablation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a sweep of one run, for `copied`."""
    workdir = tmp_path_factory.mktemp("one")
    with runs_here({"commit": 40 * "a", "changed": False}):
        assert sweep(ablation, workdir, "--only=narrow", "--seeds=0") == 0
    return workdir


@pytest.fixture
def copied(one_run: Path, tmp_path: Path) -> Path:
    """A copy of `one_run` that a test may change; its table names the folder of the copy in the command."""
    copy = Path(shutil.copytree(one_run, tmp_path / "copied"))
    table = copy / "table.md"
    table.write_text(table.read_text().replace(str(one_run), str(copy)))
    return copy


def sweep(ablation: Path, workdir: Path, *more: str) -> int:
    return main(["--config", str(ablation), "--workdir", str(workdir), *more])


@pytest.fixture(scope="module")
def whole(ablation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the whole sweep, at one go."""
    workdir = tmp_path_factory.mktemp("whole")
    with runs_here(None), drawn_figures():
        assert sweep(ablation, workdir) == 1, "a variant failed, so the status is 1"
    return workdir


def test_a_failing_variant_is_told_and_keeps_no_other_from_its_end(whole: Path) -> None:
    for seed in (0, 1):
        assert "NotFiniteError: The training diverged at step 1" in read_failure(whole / "broken" / f"seed-{seed}")
        for variant in ("narrow", "wide"):
            assert read_scores(whole / variant / f"seed-{seed}", "val")["step"] == 4
    table = (whole / "table.md").read_text()
    assert "- `broken` seed 1: jaxseg.errors.NotFiniteError: The training diverged" in table
    assert "Partial: 4 of 6 runs have scores, 2 failed." in table and "| `broken` | 0 of 2, 2 failed |  |  |" in table


def test_a_second_run_that_is_stopped_and_resumed_gives_the_same_bytes(
    ablation: Path, whole: Path, in_process: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: None
) -> None:
    evaluation, stopped = Reporter.evaluation, []

    def stop_once(self: Reporter, step: int, *more: Any) -> None:
        evaluation(self, step, *more)
        if len(in_process) == 2 and not stopped:  # in the midst of the second run
            stopped.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Reporter, "evaluation", stop_once)
    monkeypatch.setattr("jaxseg.run.provenance.git_state", lambda: None)
    assert sweep(ablation, tmp_path, "--only=narrow,wide", "--seeds=0") == 1
    assert stopped == [2] and in_process == ["narrow seed 0", "wide seed 0"]
    assert "stopped from outside" in read_failure(tmp_path / "wide" / "seed-0")
    assert "Partial: 1 of 3 runs has scores, 1 failed." in (tmp_path / "table.md").read_text()
    in_process.clear()
    for variant in ("narrow", "wide"):  # as another shard has made them
        shutil.copytree(whole / variant / "seed-1", tmp_path / variant / "seed-1")
    assert sweep(ablation, tmp_path) == 1
    assert in_process == ["wide seed 0", "broken seed 0", "broken seed 1"]
    starts = json.loads((tmp_path / "wide" / "seed-0" / "run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 2]
    for name in REPEATED:
        here, there = str(tmp_path).encode(), str(whole).encode()  # the command names the folder
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes().replace(there, here), name


def test_what_has_ended_is_not_repeated_and_the_report_is_written_again(
    ablation: Path, whole: Path, in_process: list[str], capsys: pytest.CaptureFixture[str], drawn: None
) -> None:
    before = {name: (whole / name).read_bytes() for name in REPEATED}
    for name in REPEATED:
        (whole / name).unlink()
    assert sweep(ablation, whole, "--only", "narrow,wide") == 0 and in_process == []
    assert {name: (whole / name).read_bytes() for name in REPEATED} == before
    (whole / "table.md").unlink()
    capsys.readouterr()
    assert main(["--workdir", str(whole), "--report"]) == 0
    assert (whole / "table.md").read_bytes() == before["table.md"]
    assert before["table.md"].decode() in capsys.readouterr().out


def test_the_page_has_the_numbers_of_the_table(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_main([str(whole)]) == 0
    page = (whole / "report.html").read_text()
    _, *lines = [line.split(",") for line in (whole / "table.csv").read_text().splitlines()]
    for name, _, runs, planned, mean, _, difference, low, *_ in lines:
        row = page.partition(f'data-v="{name}">{name}')[2].partition("</tr>")[0]
        assert f"{runs} of {planned}" in row
        assert all(f"{100 * float(value):{form}}" in row for value, form in ((mean or 0, ".2f"),) if mean)
        assert all(f"{100 * float(value):+.2f}" in row for value in (difference, low) if value)
    assert page.count("<circle") >= 4 and "4 of 6 runs with scores" in page and "NotFiniteError" in page
    assert "optimizer.name=&#x27;sgd&#x27;" in page and str(whole / "report.html") in capsys.readouterr().out


def test_numbers_of_the_report(whole: Path) -> None:
    scores = {
        (variant, seed): read_scores(whole / variant / f"seed-{seed}", "val")["mean_iou"]
        for variant, seed in itertools.product(("narrow", "wide"), (0, 1))
    }
    narrow, wide = ([scores[variant, 0], scores[variant, 1]] for variant in ("narrow", "wide"))
    header, *lines = [line.split(",") for line in (whole / "table.csv").read_text().splitlines()]
    rows = {line[0]: dict(zip(header, line)) for line in lines}
    assert float(rows["narrow"]["mean_iou"]) == pytest.approx(sum(narrow) / 2)
    assert float(rows["narrow"]["deviation"]) == pytest.approx(abs(narrow[0] - narrow[1]) / math.sqrt(2))
    expected = scipy.stats.ttest_rel(wide, narrow).confidence_interval(0.95)
    assert float(rows["wide"]["low"]) == pytest.approx(expected.low)
    assert float(rows["wide"]["high"]) == pytest.approx(expected.high)
    assert rows["broken"]["mean_iou"] == "" and rows["broken"]["paired"] == "0"
    parameters = int(rows["narrow"]["parameters"])
    assert parameters == read_scores(whole / "narrow" / "seed-0", "val")["parameters"]
    assert rows["wide"]["resized"] == "True" and int(rows["wide"]["parameters"]) > 1.1 * parameters
    results = [json.loads(line) for line in (whole / "results.jsonl").read_text().splitlines()]
    assert [(r["variant"], r["seed"]) for r in results] == list(itertools.product(("narrow", "wide", "broken"), (0, 1)))
    assert [r["mean_iou"] for r in results[:4]] == [*narrow, *wide] and "diverged" in results[4]["error"]


def test_times_are_kept_apart(whole: Path) -> None:
    assert "| `wide` | 2 |" in (whole / "timing.md").read_text()
    assert len((whole / "timing.csv").read_text().splitlines()) == 5


def test_another_configuration_is_refused(
    ablation: Path, whole: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "sweep.json").read_text()
    assert sweep(ablation, whole, "--config.steps=6") == 1
    assert "steps: 4 -> 6" in capsys.readouterr().err
    assert in_process == [] and (whole / "sweep.json").read_text() == before


def test_one_table_is_of_one_configuration_and_one_ablation(
    ablation: Path, whole: Path, in_process: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "sweep.json").read_text()
    changed = tmp_path / ablation.name
    changed.write_text(ABLATION.replace('"narrow": {}', '"narrow": {"optimizer__learning_rate": 0.5}'))
    other = tmp_path / "other.py"
    other.write_text(ABLATION)
    for path, more, message in (
        (ablation, ("--seeds=2", "--config.steps=6"), "of 'narrow'; runs of two configurations cannot"),
        (ablation, ("--seeds=2", "--config.steps=6"), "The keys that differ: steps: 4 -> 6."),
        (changed, ("--only=wide",), "another configuration of 'narrow'"),
        (other, (), "holds the sweep of"),
    ):
        assert sweep(path, whole, *more) == 1
        assert message in capsys.readouterr().err
    refused = (("--split=vall", "--seeds=7"), ("--config.model.name=nil", "--seeds=7"))
    for more in refused:
        assert sweep(ablation, whole, *more) == 1
    assert in_process == [] and (whole / "sweep.json").read_text() == before
    assert sorted(path.name for path in whole.glob("*/seed-*")) == sorted(["seed-0", "seed-1"] * 3)


def test_a_sweep_of_an_earlier_version_goes_on(ablation: Path, in_process: list[str], copied: Path) -> None:
    table = (copied / "table.md").read_text()
    values = json.loads((copied / "sweep.json").read_text())
    del values["configs"]
    (copied / "sweep.json").write_text(json.dumps(values))
    assert main(["--workdir", str(copied), "--report"]) == 0 and (copied / "table.md").read_text() == table
    assert sweep(ablation, copied, "--only=narrow", "--seeds=0") == 0 and in_process == []
    assert read_plan(copied).configs is not None


def test_seeds_add_up_and_go_with_their_folders(ablation: Path, tmp_path: Path) -> None:
    plan = load_plan(str(ablation), (), None, "val")

    def seeds_after(*seeds: int) -> tuple[int, ...]:
        write_plan(plan._replace(seeds=seeds), tmp_path)
        return read_plan(tmp_path).seeds

    assert seeds_after(0, 1) == (0, 1)
    (tmp_path / "wide" / "seed-1").mkdir(parents=True)
    assert seeds_after(7) == (1, 7)
    (tmp_path / "wide" / "seed-1").rmdir()
    assert seeds_after(0) == (0,)


def test_what_others_do_to_a_run(copied: Path) -> None:
    table, run = (copied / "table.md").read_text(), copied / "narrow" / "seed-0"
    assert evaluate_main(["--workdir", str(run), "--which=best"]) == 0
    assert main(["--workdir", str(copied), "--report"]) == 0
    assert (copied / "table.md").read_text() == table, "scores of another command are not the sweep's"
    config = run / "config.json"
    for text in ("{", config.read_text().replace('"hidden": 8', '"hidden": 9')):
        config.write_text(text)
        assert main(["--workdir", str(copied), "--report"]) == 0
        said = (copied / "table.md").read_text()
        assert "| 0 of 1, 1 failed |" in said and "`narrow` seed 0: config.json is not that of this variant" in said


def test_a_run_has_ended_when_all_of_it_is_written(
    ablation: Path, in_process: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jaxseg.pictures.confusion_picture", full)
        assert sweep(ablation, tmp_path, "--only=narrow", "--seeds=0") == 1
    said = (tmp_path / "table.md").read_text()
    assert "confusion-val.png cannot be written: No space left" in said and "| 0 of 1, 1 failed |" in said
    assert sweep(ablation, tmp_path, "--only=narrow", "--seeds=0") == 0
    assert len(in_process) == 2 and "Failed" not in (tmp_path / "table.md").read_text()


def test_versions_that_are_mixed_are_told(
    ablation: Path, in_process: list[str], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = "Run on 2 kinds of machine or versions"
    assert mixed not in (copied / "table.md").read_text()
    monkeypatch.setattr("jaxseg.run.provenance.git_state", lambda: {"commit": 40 * "b", "changed": False})
    assert sweep(ablation, copied, "--only=narrow", "--seeds=1") == 0
    assert in_process == ["narrow seed 1"] and mixed in (copied / "table.md").read_text()
    lines = [json.loads(line) for line in (copied / "results.jsonl").read_text().splitlines()]
    assert [line["git"]["commit"][0] for line in lines] == ["a", "b"]


@pytest.mark.slow  # two processes of their own, and one for each run
def test_two_shards_at_once_give_the_table_of_one_process(ablation: Path, whole: Path, tmp_path: Path) -> None:
    shards = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jaxseg.sweep",
                "--config",
                str(ablation),
                "--workdir",
                str(tmp_path),
                f"--shard={part}/2",
                "--jobs=2",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for part in (1, 2)
    ]
    for process in shards:
        said = process.communicate()[0]
        assert process.returncode == 1 and "FAILED: jaxseg.errors.NotFiniteError" in said, said
    # The fixture knows no commit; all else is the same, to the last digit.
    of = [
        [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()] for path in (tmp_path, whole)
    ]
    assert [{**line, "git": None} for line in of[0]] == [{**line, "git": None} for line in of[1]]
    for name in ("table.csv", "plot.png", "gradients.csv", "gradients.png"):
        here, there = str(tmp_path).encode(), str(whole).encode()  # the command names the folder
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes().replace(there, here), name


def test_another_split_scores_without_training(
    ablation: Path, whole: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "train", lambda *_: pytest.fail("trained again"))
    assert sweep(ablation, whole, "--split=test", "--only=narrow", "--seeds=0") == 0
    assert in_process == ["narrow seed 0"]
    assert read_scores(whole / "narrow" / "seed-0", "test")["images"] == 8
    assert "--split=test" in read_plan(whole).command(whole) and read_plan(whole).seeds == (0, 1)
    assert "mIoU on test" in (whole / "table.md").read_text()
    assert sweep(ablation, whole, "--only=narrow") == 0 and in_process == ["narrow seed 0"]
    assert "mIoU on val" in (whole / "table.md").read_text() and "--split" not in read_plan(whole).command(whole)


def start(ablation: Path, workdir: Path) -> subprocess.Popen[str]:
    """Starts a sweep of one long run in a process of its own."""
    values = {"steps": 100_000, "eval.every": 100_000, "checkpoint.every": 100_000, "log.every": 5}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jaxseg.sweep",
            "--config",
            str(ablation),
            "--workdir",
            str(workdir),
            "--only=narrow",
            "--seeds=0",
            *(f"--config.{key}={value}" for key, value in values.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


# Each start is two processes; how a run takes the signal of a stop is tested in tests/run/test_signals.py.
@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_saves_and_leaves_when_its_sweep_is_stopped_or_killed(
    ablation: Path, tmp_path: Path, stopped: bool
) -> None:
    run = tmp_path / "narrow" / "seed-0"

    def logged() -> int:
        return max((r["step"] for r in read_log(run / "log.jsonl")), default=0) if (run / "log.jsonl").exists() else 0

    def saved() -> int:
        with Checkpoints(run / "checkpoints") as checkpoints:
            return checkpoints.latest_step() or 0

    first = 0
    if stopped:
        process = start(ablation, tmp_path)
        wait_for(logged)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0]
        assert process.returncode == 130, said
        assert "Stopped as asked" in said and "| `narrow` (baseline) | 0 of 1 |" in said
        first = saved()
        assert first > 0 and read_failure(run) is None
    process = start(ablation, tmp_path)
    wait_for(lambda: logged() > first)
    process.kill()
    process.communicate()
    wait_for(lambda: saved() > first)
    assert read_failure(run) is None
    assert (f"resuming after step {first}" in (run / "console.txt").read_text()) == stopped


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (-9, "killed by SIGKILL, perhaps because memory ran out; see "),
        (-11, "killed by SIGSEGV; see "),
        (-40, "killed by signal 40; see "),
    ],
)
def test_a_process_that_the_system_ends_is_a_failure(
    ablation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, why: str
) -> None:
    monkeypatch.setattr(pool, "_start", lambda run, *_: Here(status))
    monkeypatch.setattr(pool, "_PAUSE", 0.0)
    assert sweep(ablation, tmp_path, "--only=narrow") == 1
    assert f"{why}narrow/seed-0/console.txt." in (tmp_path / "table.md").read_text()


def test_shards_cover_every_run_once(ablation: Path, tmp_path: Path) -> None:
    plan = load_plan(str(ablation), (), range(5), "val")
    names = [run.name for run in runs_of(plan, tmp_path)]
    assert len(names) == 15 and len(set(names)) == 15
    for parts in (1, 2, 4, 15, 20):
        split = [[run.name for run in runs_of(plan, tmp_path, (), (part, parts))] for part in range(1, parts + 1)]
        assert sorted(itertools.chain(*split)) == sorted(names)
        assert max(map(len, split)) - min(map(len, split)) <= 1


def test_a_sweep_runs_where_the_file_system_has_no_locks(
    ablation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    plan = load_plan(str(ablation), (), (0,), "val")
    write_plan(plan, tmp_path)
    write_plan(plan, tmp_path)
    assert (read_plan(tmp_path).seeds, [p.name for p in tmp_path.iterdir()]) == ((0,), ["sweep.json"])
    monkeypatch.setattr(worker, "read_scores", lambda *_: {})  # the run has ended
    assert worker.run(tmp_path / "narrow-0", "val") == worker.FINISHED
    said = "has no locks (No locks available): take care that no other sweep or shard runs in this folder"
    assert caplog.text.count(said) == 2, "once for each folder"


@pytest.mark.parametrize("name", ["table.md", "timing.csv", "results.jsonl", "plot.png", "gradients.png"])
def test_a_report_replaces_no_file_of_someone_else(ablation: Path, tmp_path: Path, name: str) -> None:
    plan = load_plan(str(ablation), (), (0,), "val")
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        ConfigError, match=rf"{name} would replace a file that jaxseg did not write; give another --work"
    ):
        write_plan(plan, tmp_path)
    (tmp_path / name).unlink()
    write_plan(plan, tmp_path)
    (tmp_path / name).write_text("| variant |")
    if name.endswith(".png"):
        (tmp_path / "wide" / "seed-0").mkdir(parents=True)
        (tmp_path / "wide" / "seed-0" / "gradients.jsonl").touch()
        with pytest.raises(ConfigError, match=rf"{name} would replace a file"):
            report.write_report(tmp_path)
    else:
        write_plan(plan, tmp_path)  # the sweep's own


@pytest.mark.parametrize("name", ["gradients.csv", "gradients.png"])
def test_a_file_of_someone_else_that_the_report_does_not_write_may_stay(
    ablation: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    plan = load_plan(str(ablation), ["--config.log.gradients=false"], (0,), "val")
    write_plan(plan, tmp_path)
    report.write_report(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_wrong_shards(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "x", "--shard", text])
    assert "must be I/N with I from 1 to N" in capsys.readouterr().err


def test_overrides_hold_for_all_variants_and_come_last(ablation: Path, tmp_path: Path) -> None:
    plan = load_plan(str(ablation), ["--config.optimizer.learning_rate=0.5", "--config.steps=7"], (3,), "val")
    configs = {run.variant: run.config for run in runs_of(plan, tmp_path)}
    assert {config.optimizer.learning_rate for config in configs.values()} == {0.5}
    assert {(config.steps, config.seed) for config in configs.values()} == {(7, 3)}
    assert configs["broken"].optimizer.name == "sgd" and configs["wide"].model.args.hidden == 12
    expected = f"python -m jaxseg.sweep --config {ablation} --workdir {tmp_path} --seeds=3 " + " ".join(plan.overrides)
    assert plan.command(tmp_path) == expected
    assert " --workdir runs/x " in plan.command(Path.cwd() / "runs" / "x")


def test_epochs_are_steps_of_each_variant(ablation: Path, tmp_path: Path) -> None:
    file = tmp_path / "length.py"
    file.write_text(ablation.read_text().replace('"model__args__hidden": 12', '"data__shapes_train": 40'))
    plan = load_plan(str(file), ["--config.epochs=2"], (0, 1), "val")
    steps = {(run.variant, run.seed): run.config.steps for run in runs_of(plan, tmp_path)}
    assert {name: steps[name, 0] for name in plan.variants} == {"narrow": 6, "wide": 10, "broken": 6}
    assert all(steps[name, 0] == steps[name, 1] for name in plan.variants)
    with pytest.raises(ConfigError, match=r"'narrow' and 'wide' of .* are the same configuration"):
        load_plan(str(file), ["--config.epochs=2", "--config.data.shapes_train=24"], None, "val")
    # The steps of a variant replace the epochs of the ablation.
    file.write_text(
        ablation.read_text().replace("steps=4", "epochs=2").replace('"model__args__hidden": 12', '"steps": 5')
    )
    assert [run.config.steps for run in runs_of(load_plan(str(file), [], (0,), "val"), tmp_path)] == [6, 5, 6]


def test_a_sweep_whose_data_grew_keeps_the_steps_of_its_runs(
    ablation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--config.epochs=2"]
    plan = load_plan(str(ablation), [*words, "--config.data.shapes_train=16"], (0,), "val")
    (run, *_) = runs_of(plan, tmp_path)
    prepare_workdir(run.workdir, run.config)
    (run.workdir / "checkpoints" / "2").mkdir(parents=True)
    # As if its data had been as many as those of the ablation are now.
    now = load_plan(str(ablation), words, (0, 1), "val")
    stored = json.loads((run.workdir / "config.json").read_text())
    stored["data"]["shapes_train"] = 24
    (run.workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="The keys that differ: steps: 4 -> 6"):
        write_plan(now, tmp_path)
    kept = with_stored_steps(now, tmp_path)
    write_plan(kept, tmp_path)
    steps = {planned.name: planned.config.steps for planned in runs_of(kept, tmp_path)}
    assert (steps["narrow seed 0"], steps["narrow seed 1"], steps["wide seed 0"]) == (4, 4, 6)
    assert "The runs of 'narrow' in" in caplog.text and "keep the 4 steps that they were started with" in caplog.text


def test_a_sweep_from_before_the_key_keeps_the_division_of_its_runs(ablation: Path, tmp_path: Path) -> None:
    folder = "--config.data.source=folder"
    plan = load_plan(str(ablation), [folder], (0,), "val")
    (run, *_) = runs_of(plan, tmp_path)
    prepare_workdir(run.workdir, run.config)
    write_plan(plan, tmp_path)
    assert stored_division(tmp_path, ["--config.steps=4"]) == ("--config.steps=4",)
    stored = json.loads((run.workdir / "config.json").read_text()) | {"format": 2}
    del stored["data"]["division"]
    (run.workdir / "config.json").write_text(json.dumps(stored))
    (run.workdir / "checkpoints" / "2").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"The keys that differ: data\.division: former -> stable"):
        write_plan(load_plan(str(ablation), [folder], (0,), "val"), tmp_path)
    words = stored_division(tmp_path, [folder])
    assert words == (folder, "--config.data.division=former")
    write_plan(load_plan(str(ablation), words, (0,), "val"), tmp_path)
    assert stored_division(tmp_path, ["--config.data.division=stable"]) == ("--config.data.division=stable",)
    kept = json.loads((tmp_path / "sweep.json").read_text())
    kept["variants"]["wide"]["data.division"] = "former"  # an ablation of the key itself
    (tmp_path / "sweep.json").write_text(json.dumps(kept))
    assert stored_division(tmp_path, [folder]) == (folder,)


def test_the_digest_is_of_what_matters(ablation: Path) -> None:
    def of(*overrides: str, seed: int = 0) -> str:
        return digest(load_plan(str(ablation), overrides, None, "val").config("narrow", seed))

    assert of() == of(seed=1) == of("--config.log.every=9", "--config.data.dir=x")
    assert of() != of("--config.steps=5")


def test_a_sweep_may_take_the_argument_of_the_experiment(tmp_path: Path) -> None:
    text = ABLATION.replace("def sweep():", "def sweep(arg=None):\n    assert arg in (None, 'other')", 1)
    assert text != ABLATION
    (tmp_path / "of.py").write_text(text)
    assert list(load_plan(f"{tmp_path / 'of.py'}:other", (), None, "val").variants) == ["narrow", "wide", "broken"]
    with pytest.raises(ConfigError, match="AssertionError"):
        load_plan(f"{tmp_path / 'of.py'}:third", (), None, "val")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def sweep", "def swep", "defines no sweep() and no search()"),
        ("return Sweep(", "return dict(a=", "must return a jaxseg.sweep.Sweep, got dict"),
        ('baseline="narrow"', 'baseline="narow"', "The baseline 'narow' is no variant. Did you mean 'narrow'?"),
        (
            'baseline="narrow"',
            'baseline={"wide": "narow"}',
            "The baseline 'narow' is no variant. Did you mean 'narrow'",
        ),
        ('baseline="narrow"', 'baseline={"wid": "narrow"}', "no variant 'wid' to compare. Did you mean 'wide'?"),
        ('baseline="narrow"', 'baseline={"wide": "wide"}', "The variant 'wide' is compared with itself."),
        ('baseline="narrow"', "baseline={}", "the name of a variant, or {variant: name of its baseline}, got {}"),
        ("model__args__hidden", "modle__args__hidden", "Variant 'wide' of"),
        ('{"model__args__hidden": 12}', '{"model__args__hidden": 8}', "'narrow' and 'wide' of"),
        ('"wide"', '"../wide"', "The name of a variant must be of letters, digits"),
        ('"wide"', '"table.md"', "cannot have the name 'table.md'"),
        ('{"model__args__hidden": 12}', '{"seed": 12}', "sets the seed"),
        ("seeds=(0, 1)", "seeds=(0, 0)", "whole numbers, each given once"),
        ("12}", "12 / 0}", "line 18 (broken"),
        ("12}", '"x"}', "hidden must be a whole number"),
    ],
)
def test_wrong_ablations_are_one_sentence_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: list[str], old: str, new: str, message: str
) -> None:
    text = ABLATION.replace(old, new)
    if "12 / 0" in new:  # the line that is named
        text, message = (
            text.replace("    broken =", "    broken = 1 / 0\n    broken ="),
            "(broken = 1 / 0): ZeroDivisionError",
        )
    (tmp_path / "wrong.py").write_text(text)
    assert sweep(tmp_path / "wrong.py", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert in_process == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config FILE is needed"),
        (["--report"], "--report takes --workdir"),
        (["--report", "--workdir", "OUT"], "holds no sweep"),
        (["--report", "--workdir", "OUT", "--split", "test"], "and nothing else"),
        (["--config", "ABLATION", "--workdir", "OUT", "--config.seed=7"], "give --seeds in place of --config.seed"),
        (["ABLATION", "--workdir", "OUT", "--config.seed", "7"], "give --seeds in place of --config.seed"),
        (["ABLATION", "--workdir", "OUT", "--report"], "and nothing else"),
        (["--config", "ABLATION", "--workdir", "OUT", "--split=vall"], "has no split 'vall'"),
    ],
)
def test_wrong_calls(
    arguments: list[str], message: str, ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"ABLATION": str(ablation), "OUT": str(tmp_path / "out")}
    assert main([places[word] if word in places else word for word in arguments]) == 1
    assert "--report" not in arguments or not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seeds=a", "must be whole numbers, each given once, got 'a'"),
        ("--seeds=1,1", "whole numbers, each given once"),
        ("--only=", "one or more names, with commas between them"),
        ("--shard=3/2", "I/N with I from 1 to N"),
        ("--jobs=x", "a whole number of at least 1"),
    ],
)
def test_wrong_values_of_options(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "x", argument])
    assert message in capsys.readouterr().err


def test_unknown_variant(ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(ablation, tmp_path, "--only=naro") == 1
    assert "There is no variant 'naro' in" in capsys.readouterr().err


def test_a_tpu_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_devices", lambda: ("tpu", 4))
    assert pool.places(None) == [{}]
    with pytest.raises(ConfigError, match="A process takes all TPUs"):
        pool.places(2)


def test_one_run_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_devices", lambda: ("cuda", 2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pool.places(None) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert pool.places(1) == [{"CUDA_VISIBLE_DEVICES": "0"}]
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in pool.places(3)] == ["0", "1", "0"]
    assert all(place.items() >= shared.items() for place in pool.places(3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert pool.places(2) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    monkeypatch.setattr(pool, "_devices", lambda: ("cpu", 8))
    assert pool.places(None) == [{}] and pool.places(2) == [{}, {}]


def test_spread_and_interval_by_hand() -> None:
    assert spread([2.0, 4.0, 9.0]) == pytest.approx((5.0, math.sqrt(13.0), 3))
    assert spread([3.0])[0] == 3.0 and math.isnan(spread([3.0]).deviation) and math.isnan(spread([]).mean)
    a, b = {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1}, {0: 0.4, 1: 0.55, 2: 0.5, 9: 0.9}
    # Differences .1, .05, .2: mean .35 / 3, deviation √.0058333, and t_2(.975) = 4.302653.
    reach = 4.302653 * math.sqrt(0.0058333333) / math.sqrt(3)
    found = paired_difference(a, b)
    assert found == pytest.approx((0.35 / 3, 0.35 / 3 - reach, 0.35 / 3 + reach, 3), rel=1e-6)
    expected = scipy.stats.ttest_rel([0.5, 0.6, 0.7], [0.4, 0.55, 0.5]).confidence_interval(0.95)
    assert found[1:3] == pytest.approx((expected.low, expected.high))
    one = paired_difference({0: 0.5}, {0: 0.25})
    assert one.mean == 0.25 and math.isnan(one.low) and one.n == 1
    assert paired_difference({0: 0.5}, {1: 0.5}).n == 0


def test_table_marks_a_variant_of_another_size() -> None:
    plan = Plan("a/b.py", (), {"base": {}, "same": {"steps": 3}, "large": {}}, "base", (0, 1), (0, 1), "val")

    def row(name: str, parameters: int, difference: Difference | None) -> Row:
        larger = parameters / 1000 - 1
        return Row(name, [], {}, Spread(0.5, 0.0123, 2), difference, Cost("0123456789", "", parameters, 10**6), larger)

    rows = [
        row("base", 1000, None)._replace(larger=math.nan),
        row("same", 1100, Difference(0.01, -0.005, 0.025, 2)),
        row("large", 899, Difference(-0.1, math.nan, math.nan, 1)),  # of its two seeds the baseline has one
    ]
    table = report.table(plan, rows, Path("runs"))
    assert "| `base` (baseline) | 2 | 50.00 ± 1.23 |  | 1,000 | 1.0 | 01234567 |" in table
    assert "| `same` | 2 | 50.00 ± 1.23 | +1.00 [-0.50, +2.50] | 1,100 (+10.0%) | 1.0 | 01234567 |" in table
    assert "| `large` | 2 | 50.00 ± 1.23 | -10.00 over 1 seed | 899 (-10.1%) † | 1.0 | 01234567 |" in table
    assert table.count("†") == 2 and "`same`: `steps=3`" in table and "Partial" not in table
    assert "†" not in report.table(plan, rows[:2], Path("runs"))


def test_each_variant_can_have_its_own_baseline() -> None:
    names = ("a2", "b2", "a8", "b8", "alone")
    sweep = Sweep({name: {"steps": i} for i, name in enumerate(names, 1)}, {"b2": "a2", "b8": "a8"}, (0, 1))
    plan = Plan("a/b.py", (), dict(sweep.variants), dict(sweep.baseline), (0, 1), (0, 1), "val")
    scores = ((0.1, 0.2), (0.2, 0.3), (0.5, 0.6), (0.4, 0.5), (0.9, 0.9))
    rows = [
        Row(
            name,
            [Result(seed, {"mean_iou": value}, [], [], []) for seed, value in enumerate(own)],
            {},
            spread(own),
            None,
            Cost("01234567", "", size, 0),
            math.nan,
        )
        for name, own, size in zip(names, scores, (100, 110, 200, 300, 9))
    ]
    rows = results.compare(plan, rows)
    assert [row.difference and round(100 * row.difference.mean, 6) for row in rows] == [None, 10.0, None, -10.0, None]
    assert [row.resized for row in rows] == [False, False, False, True, False]
    table = report.table(plan, rows, Path("runs"))
    assert "| `b2` | 2 | 25.00 ± 7.07 | +10.00 [+10.00, +10.00] to `a2` | 110 (+10.0%) |" in table
    assert "| `b8` | 2 | 45.00 ± 7.07 | -10.00 [-10.00, -10.00] to `a8` | 300 (+50.0%) † |" in table
    assert [line.split("`")[1] for line in table.splitlines() if "(baseline)" in line] == ["a2", "a8"]
    assert "Difference to the variant named after it" in table and "than its baseline" in table
    styles = draw._styles(names, plan.baselines)
    assert styles["a2"][0] == styles["a8"][0] != styles["b2"][0] == styles["b8"][0]
    assert len({*styles.values()}) == len(names)


def test_seeds_that_are_no_numbers() -> None:
    with pytest.raises(ArgumentError, match="seeds must be whole numbers, each given once, got"):
        Sweep({"a": {}}, "a", seeds=(0.5,))


def test_progress_on_a_terminal_and_in_lines(ablation: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("jaxseg.sweep.progress._EVERY", 0.0)
    ended, failed = runs_of(load_plan(str(ablation), (), (0,), "val"), whole, ("narrow", "broken"))
    for stream in (Terminal(), io.StringIO()):
        with Progress("hidden", "val", 5, 3, 1, stream) as progress:
            progress.begin(0, ended)
            progress.look()
            progress.look()
            progress.end(0, ended, "")
            progress.begin(0, failed)
            progress.end(0, failed, "It broke.")
        said = stream.getvalue()
        mean = 100 * read_scores(ended.workdir, "val")["mean_iou"]
        assert f"[4/5] narrow seed 0: mIoU {mean:.2f} %" in said and "[5/5] broken seed 0: FAILED: It broke." in said
        assert ("hidden: " in said and "narrow seed 0: 100%" in said and "failed=1" in said) == stream.isatty()
        assert said.count("narrow seed 0 step 4/4  loss") == (not stream.isatty()), (
            "a line that says the same is left out"
        )
        assert f"  mIoU {mean:.2f} %" in said, "a number as in the tables"


@pytest.mark.parametrize(("runs", "expected"), [(1, "one run of each"), (2, "mean ± standard deviation")])
def test_the_plot_names_the_spread_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, expected: str
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(draw, "save_figure", lambda figure, path: figures.append(figure))
    log = [{"step": 1, "split": "train", "loss": 1.0}, {"step": 1, "split": "val", "mean_iou": 0.5}]
    difference = paired_difference({i: 0.5 + i for i in range(runs)}, dict.fromkeys(range(runs), 0.5))
    draw.curves({"a": [log] * runs, "b": [log] * runs}, {"b": difference}, {"b": "a"}, "val", tmp_path / "plot.png")
    titles = [axis.get_title() for axis in figures[0].axes]
    assert expected in titles[0] and expected in titles[1]
    assert ("95 % interval" in titles[2]) == (runs > 1) and ("no interval" in titles[2]) == (runs == 1)
    assert max(len(line) for title in titles for line in title.split("\n")) < 50, "titles do not touch"

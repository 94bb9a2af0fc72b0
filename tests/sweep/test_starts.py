"""Variants of a sweep that start from the weights of another: order, what they learn from, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.figures import blank_figures

from jaxseg.config import default_config
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.run.load import load_run
from jaxseg.sweep import Sweep, pool, worker
from jaxseg.sweep.__main__ import main
from jaxseg.sweep.plan import PlannedRun, load_plan, read_plan, runs_of
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.records import read_failure, read_scores

ABLATION = """
from jaxseg.config import default_config, update
from jaxseg.sweep import Sweep


def get_config(arg=None):
    config = default_config()
    update(
        config, model__name="cnn", model__args={"widths": (4,), "hidden": 8, "hidden_kernel": 3, "dropout": 0.0},
        data__size=(16, 16), data__shapes_train=8, data__shapes_val=8, steps=2, batch_size=8, eval__every=2,
        eval__batch_size=8, checkpoint__every=1, log__images=0, log__tensorboard=False, optimizer__name="sgd",
        schedule__warmup=0, optimizer__momentum=0.0, optimizer__weight_decay=0.0,
    )
    return config


def sweep():
    still = {"optimizer__learning_rate": 1e-30}
    return Sweep(
        {"alone": still, "first": {"optimizer__learning_rate": 0.1}, "still": still},
        baseline="alone", seeds=(3, 4), starts={"still": "first"},
    )
"""


class Ended:
    """Stands for a process that has ended."""

    def __init__(self, status: int):
        self.returncode = status

    def poll(self) -> int:
        return self.returncode


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ablation") / "from_weights.py"
    path.write_text(ABLATION)
    return path


@pytest.fixture(scope="module")
def finished(ablation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one seed of the variant `still` and what it starts from."""
    workdir = tmp_path_factory.mktemp("sweep")
    assert sweep_here(ablation, workdir) == 0
    return workdir


def sweep_here(ablation: Path, workdir: Path) -> int:
    """Runs the sweep of `finished` in this process; returns its exit status."""

    def start(run: PlannedRun, split: str, *_: Any) -> Ended:
        return Ended(worker.run(run.workdir, split))

    with pytest.MonkeyPatch.context() as patch, blank_figures():
        patch.setattr(pool, "_start", start)
        patch.setattr(pool, "_PAUSE", 0.0)
        return main(["--config", str(ablation), "--workdir", str(workdir), "--only=still,first", "--seeds=3"])


def test_a_variant_has_learned_what_another_had_with_the_same_seed(ablation: Path, finished: Path) -> None:
    first, still = (load_run(finished / name / "seed-3", "last") for name in ("first", "still"))
    leaves = [jax.tree.leaves(run.variables["params"]) for run in (first, still)]
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    assert still.config.model.weights == str(finished / "first" / "seed-3")
    assert (
        "optimizer.learning_rate=1e-30`; from the last weights of `first`, of the same seed\n"
        in (finished / "table.md").read_text()
    )
    [start] = json.loads((finished / "still" / "seed-3" / "run.json").read_text())["starts"]
    assert start["weights"][0]["file"].endswith("seed-3, last checkpoint, step 2")
    assert main(["--workdir", str(finished), "--report"]) == 0
    rows = [line.split(",") for line in (finished / "table.csv").read_text().splitlines()]
    assert {row[0]: row[2] for row in rows[1:]} == {"alone": "0", "first": "1", "still": "1"}


def test_a_sweep_that_was_moved_is_not_repeated(ablation: Path, finished: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "moved"))
    keys = {row[-1] for row in (line.split(",") for line in (finished / "table.csv").read_text().splitlines())}
    assert main(["--config", str(ablation), "--workdir", str(moved), "--only=still,first", "--seeds=3"]) == 0
    assert {line.split(",")[-1] for line in (moved / "table.csv").read_text().splitlines()} == keys
    starts = json.loads((moved / "still" / "seed-3" / "run.json").read_text())["starts"]
    assert len(starts) == 1 and read_scores(moved / "still" / "seed-3", "val") is not None


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_has_not_ended_goes_on_after_a_move(
    begun: bool, ablation: Path, finished: Path, tmp_path: Path
) -> None:
    """With a checkpoint it needs its start no longer, and keeps that path; without one it takes the path of now."""
    moved = Path(shutil.copytree(finished, tmp_path / "moved"))
    still = moved / "still" / "seed-3"
    shutil.rmtree(still / "checkpoints" / "2")
    if not begun:
        shutil.rmtree(still / "checkpoints")
    (still / "sweep-val.json").unlink()
    away = finished.rename(tmp_path / "away")  # where the runs were, there is nothing
    try:
        assert sweep_here(ablation, moved) == 0
    finally:
        away.rename(finished)
    first, run = load_run(moved / "first" / "seed-3", "last"), load_run(still, "last")
    leaves = [jax.tree.leaves(each.variables["params"]) for each in (first, run)]
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    assert run.config.model.weights == str((finished if begun else moved) / "first" / "seed-3")
    assert json.loads((still / "run.json").read_text())["starts"][-1]["step"] == int(begun)
    scores = [read_scores(each / "still" / "seed-3", "val") for each in (moved, finished)]
    assert scores[0] is not None and scores[1] is not None
    assert scores[0]["mean_iou"] == scores[1]["mean_iou"]


def test_the_plan_names_the_variant_and_the_run_the_folder(ablation: Path, tmp_path: Path) -> None:
    plan = load_plan(str(ablation), (), None, "val")
    assert plan.configs is not None and plan.configs["still"]["model"]["weights"] == "first"
    runs = {run.name: run for run in runs_of(plan, tmp_path)}
    assert runs["still seed 4"].config.model.weights == str(tmp_path / "first" / "seed-4")
    assert (runs["still seed 4"].start, runs["alone seed 4"].start) == ("first seed 4", "")
    assert plan.configs["still"]["model"]["weights_checkpoint"] == "last"  # which is scored
    assert plan.config("alone", 0).model.weights == ""  # the same keys, yet not the same configuration


def test_runs_that_start_from_one_another_are_in_one_shard(ablation: Path, tmp_path: Path) -> None:
    plan = load_plan(str(ablation), (), None, "val")
    parts = [[run.name for run in runs_of(plan, tmp_path, shard=(part, 3))] for part in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(run.name for run in runs_of(plan, tmp_path))
    for part in parts:
        assert all(f"first seed {name[-1]}" in part for name in part if name.startswith("still"))


def test_only_what_has_its_start_can_run(ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ablation), "--workdir", str(tmp_path / "out"), "--only=still"]) == 1
    said = capsys.readouterr().err
    assert "still seed 3 starts from the weights of first seed 3, which has not ended; give --only=first too." in said
    assert not (tmp_path / "out").exists()


def test_a_start_that_was_trained_can_be_scored_on_another_split(
    ablation: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "moved"))
    shutil.rmtree(moved / "still")
    started: list[str] = []
    monkeypatch.setattr(
        "jaxseg.sweep.__main__.run_all", lambda runs, *_: started.extend(run.name for run in runs) or []
    )
    call = ["--config", str(ablation), "--workdir", str(moved), "--seeds=3", "--only=still", "--split=train"]
    assert main(call) == 0 and started == ["still seed 3"]
    shutil.rmtree(moved / "first" / "seed-3" / "checkpoints")
    assert main(call) == 1 and "which has not ended" in capsys.readouterr().err


def test_a_start_that_does_not_fit_is_refused_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wider.py").write_text(
        ABLATION.replace('"first": {"optimizer__learning_rate": 0.1}', '"first": {"model__args__widths": (6,)}')
    )
    assert main(["--config", str(tmp_path / "wider.py"), "--workdir", str(tmp_path / "out"), "--seeds=3"]) == 1
    said = capsys.readouterr().err
    assert "Variant 'still' starts from 'first': widths is (6,) there and (4,) here. The weights do not fit" in said
    assert not (tmp_path / "out").exists()


def test_a_start_has_an_encoder_of_its_own(ablation: Path) -> None:
    plan = load_plan(str(ablation), ("--config.model.encoder_weights=imagenet",), None, "val")
    assert plan.configs is not None
    assert {name: config["model"]["encoder_weights"] for name, config in plan.configs.items()} == {
        "alone": "imagenet",
        "first": "imagenet",
        "still": "",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": {"b": "c"}}, "no variant 'c'"),
        ({"starts": {"c": "a"}}, "no variant 'c'"),
        ({"starts": {"a": "b"}}, "'a' starts from 'b', which must be listed before it"),
        ({"starts": {"a": "a"}}, "'a' starts from 'a', which must be listed before it"),
        ({"starts": {"b": "a"}, "variants": {"a": {}, "b": {"model__weights": "x"}}}, "so it cannot set model.weights"),
        (
            {"starts": {"b": "a"}, "variants": {"a": {}, "b": {"model__encoder_weights": "x"}}},
            "so it cannot set model.encoder_weights",
        ),
    ],
)
def test_starts_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    good = Sweep({"a": {}, "b": {"steps": 3}}, "a", starts={"b": "a"})
    with pytest.raises(ArgumentError, match=message):
        dataclasses.replace(good, **changes)


def test_weights_beside_a_start_are_refused(ablation: Path) -> None:
    with pytest.raises(ConfigError, match=r"Variant 'still'.*starts from 'first', so model\.weights=x cannot be given"):
        load_plan(str(ablation), ("--config.model.weights=x",), None, "val")


def test_the_file_of_a_plan_of_an_earlier_version_is_read(finished: Path, tmp_path: Path) -> None:
    values = json.loads((finished / "sweep.json").read_text())
    assert read_plan(finished).start_of("still") == "first"
    del values["starts"]
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    assert read_plan(tmp_path).start_of("still") == ""


@pytest.mark.parametrize("broken", [False, True])
def test_runs_wait_for_those_they_start_from(broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time: b and c wait for a, and d goes before them; if a fails, so do the others, without a start."""
    starts = {"a": "", "b": "a", "c": "b", "d": ""}
    runs = [
        PlannedRun(name, 0, tmp_path / name, default_config(), start and f"{start} seed 0")
        for name, start in starts.items()
    ]
    order: list[str] = []
    looks = {"a": 3, "b": 1, "c": 1, "d": 1}  # how often each is looked at before it has ended

    class Running(Ended):
        def __init__(self, name: str):
            super().__init__(worker.FAILED if broken and name == "a" else worker.FINISHED)
            self.name = name

        def poll(self) -> int | None:
            looks[self.name] -= 1
            if looks[self.name] < 0:
                order.append(f"-{self.name}")
                return self.returncode
            return None

        def terminate(self) -> None: ...

        def wait(self) -> None: ...

    def start(run: PlannedRun, *_: Any) -> Running:
        order.append(run.variant)
        return Running(run.variant)

    for run in runs:
        run.workdir.mkdir()
    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(pool, "_PAUSE", 0.0)
    monkeypatch.setattr(pool, "read_scores", lambda workdir, split: None if broken and workdir.name == "a" else {})

    class Quiet(Progress):
        def __init__(self) -> None: ...
        def begin(self, *_: Any) -> None: ...
        def look(self) -> None: ...
        def end(self, *_: Any) -> None: ...

    class Going:
        requested = False

    failed = pool.run_all(runs, "val", [], [{}, {}], Quiet(), Going())  # type: ignore[arg-type]
    if broken:
        assert order == ["a", "d", "-d", "-a"] and [run.variant for run in failed] == ["a", "b", "c"]
        assert read_failure(tmp_path / "c") == "It starts from the weights of b seed 0, which failed."
    else:
        assert order == ["a", "d", "-d", "-a", "b", "-b", "c", "-c"] and failed == []

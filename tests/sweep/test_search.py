"""Searches: the same trials in any order and after any stop, pruning by hand and as Optuna, refusals in a sentence."""

import contextlib
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import command, flatten, from_dict, to_dict
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.sweep import Choice, Integer, LogUniform, Search, Uniform, pool
from jaxseg.sweep.__main__ import main
from jaxseg.sweep.plan import load_plan
from jaxseg.sweep.search import command as search_command
from jaxseg.sweep.search.draw import best_so_far
from jaxseg.sweep.search.importance import explained, ranked, thirds
from jaxseg.sweep.search.plan import Study, check_parts, load_study, read_study
from jaxseg.sweep.search.proposing import importances, proposed
from jaxseg.sweep.search.pruning import Verdict, bracket_of, by_halving, by_median, rungs_of_brackets
from jaxseg.sweep.search.running import numbers_of, runs_of, verdict_of
from jaxseg.sweep.search.spaces import as_json, drawn, from_json, place_of, to_try, value_at
from jaxseg.sweep.search.trials import Trial, Trials

SEARCH = """
from jaxseg.config import default_config, update
from jaxseg.sweep import Choice, Integer, LogUniform, Search, Uniform


def get_config(arg=None):
    config = default_config()
    update(
        config, model__name="cnn", model__args={"widths": (4,), "hidden": 8, "hidden_kernel": 3, "dropout": 0.0},
        data__size=(16, 16), data__shapes_train=24, data__shapes_val=8, steps=4, batch_size=8, eval__every=1,
        eval__batch_size=8, checkpoint__every=4, log__every=4, log__images=0, log__tensorboard=False,
    )
    return config


def search():
    spaces = {
        "optimizer__learning_rate": LogUniform(1e-4, 1e-1), "loss__terms": Choice(("cross_entropy", "dice")),
        "model__args__hidden": Integer(8, 10),
    }
    return Search(spaces, trials=6, sampler="random", pruner="none", startup=2)
"""
# A training that writes what a run of 4 steps writes, and learns nothing: the score is the closer to .8 the closer the
# learning rate is to .01. It stops at a signal, as a run does.
TRAINING = """
import json, math, pathlib, signal, sys, time
work, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
config = json.loads((work / "config.json").read_text())
rate = config["optimizer"]["learning_rate"]
best = 0.8 - 0.1 * abs(math.log10(rate / 0.01))
if rate > 0.05:
    (work / "failure.json").write_text(json.dumps({"error": "jaxseg.errors.NotFiniteError: The training diverged."}))
    sys.exit(1)
(work / "log.jsonl").write_text("")
for step in range(1, config["steps"] + 1):
    with (work / "log.jsonl").open("a") as log:
        print(json.dumps({"step": step, "split": "train", "mean_iou": 0.1}), file=log)
        print(json.dumps({"step": step, "split": "val", "mean_iou": best * step / config["steps"]}), file=log)
    for _ in range(500 if stopped == [] and pause and step == 2 and best < pause else 1):
        time.sleep(0.01)
        if stopped:
            sys.exit(3)
scores = {"split": "val", "which": "last", "step": config["steps"], "config": config, "mean_iou": best}
(work / "sweep-val.json").write_text(json.dumps(scores))
"""


def training(workdir: Path, waits_below: float = 0.0) -> subprocess.Popen[bytes]:
    """Starts a training of `TRAINING`, which waits for a signal after its second step if its score is too low."""
    return subprocess.Popen([sys.executable, "-S", "-E", "-c", TRAINING, str(workdir), str(waits_below)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "rate.py"
    path.write_text(SEARCH)
    return path


@pytest.fixture(autouse=True)
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces each training by one that learns nothing, and the check of the parts; has the names of those started."""
    started: list[str] = []

    def start(run: Any, *_: Any) -> subprocess.Popen[bytes]:
        started.append(run.name)
        return training(run.workdir)

    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    monkeypatch.setattr(search_command, "check_parts", lambda study: None)
    return started


def search(file: Path, workdir: Path, *more: str) -> int:
    return main(["--config", str(file), "--workdir", str(workdir), *more])


def trials_in(workdir: Path) -> list[dict[str, Any]]:
    return json.loads((workdir / "trials.json").read_text())["trials"]


def a_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = SEARCH
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "rate.py").write_text(text)
    return folder / "rate.py"


@pytest.fixture(scope="module")
def study(file: Path) -> Study:
    return load_study(str(file), (), None, "val")


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_share_of_a_space_by_hand() -> None:
    assert [value_at(Uniform(1, 3), share) for share in (0.0, 0.25, 0.5)] == [1.0, 1.5, 2.0]
    assert value_at(LogUniform(1e-4, 1e-2), 0.5) == pytest.approx(1e-3)
    assert [value_at(Integer(2, 4), share) for share in (0.0, 0.33, 0.34, 0.66, 0.67, 0.99)] == [2, 2, 3, 3, 4, 4]
    # 1 to 3 by factors: [1, 2) has log 2 / log 4, a half.
    assert [value_at(Integer(1, 3, log=True), share) for share in (0.0, 0.49, 0.51, 0.99)] == [1, 1, 2, 3]
    assert [value_at(Choice(("a", (1, 2))), share) for share in (0.4, 0.5)] == ["a", (1, 2)]
    nearly = np.nextafter(1.0, 0.0)
    assert value_at(LogUniform(0.1, 0.3), nearly) <= 0.3 and value_at(Uniform(0.1, 0.3), nearly) <= 0.3


def test_places_and_values_to_try() -> None:
    assert place_of(LogUniform(1e-4, 1e-1), 1e-3) == pytest.approx(-3) and place_of(LogUniform(1e-4, 1e-1), 1.0) is None
    assert place_of(Choice(("a", (1, 2))), (1, 2)) == 1.0 and place_of(Choice(("a", "b")), "c") is None
    assert place_of(Uniform(0, 1), None) is None and place_of(Uniform(0, 1), True) is None
    assert to_try(Integer(1, 4)) == [1, 2, 3, 4] and {0.0, 1.0} < set(to_try(Uniform(0, 1)))
    for space in (Uniform(0, 1), LogUniform(1, 2), Integer(1, 5, log=True), Choice((1, (2, 3), None))):
        assert from_json(json.loads(json.dumps(as_json(space)))) == space


def test_a_drawn_trial_depends_on_its_number_alone() -> None:
    spaces = {"b": Uniform(0, 1), "a": LogUniform(1, 10)}
    forwards = [drawn(spaces, 3, number) for number in range(1, 9)]
    backwards = [drawn(dict(reversed(spaces.items())), 3, number) for number in reversed(range(1, 9))]
    assert forwards == backwards[::-1] and len({values["a"] for values in forwards}) == 8
    first, second = np.random.default_rng([3, 5]).random(2)  # keys in the order of their names
    assert forwards[4] == pytest.approx({"a": 10**first, "b": second})
    assert drawn(spaces, 4, 1) != forwards[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1, 1), r"Uniform\(low=1\.0, high=1\.0\): low must be less than high"),
        (lambda: LogUniform(0, 1), "low of LogUniform must be a number above 0, got 0"),
        (lambda: Integer(1, 2.5), "high of Integer must be a whole number, got 2.5"),
        (lambda: Integer(0, 2, log=True), "low must be at least 1 for a logarithm"),
        (lambda: Choice(("a",)), "two or more different values, got"),
        (lambda: Choice(([1, 2], (1, 2))), "two or more different values, got"),
        (lambda: Search({}), "spaces must be {key: space of its values}"),
        (lambda: Search({"steps": (1, 2)}), "The space of steps must be one of Uniform, LogUniform, Integer, Choice"),
        (lambda: Search({"steps": Integer(1, 2)}, sampler="tpa"), "sampler must be .* Did you mean 'tpe'"),
        (lambda: Search({"steps": Integer(1, 2)}, pruner="medain"), "Did you mean 'median'"),
        (lambda: Search({"steps": Integer(1, 2)}, trials=0), "trials must be a whole number of at least 1"),
    ],
)
def test_wrong_spaces_and_searches(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


# --- pruning ----------------------------------------------------------------------------------------------------------


def test_the_median_rule_by_hand() -> None:
    others = [[(10, 0.2), (20, 0.5)], [(10, 0.4), (20, 0.6)], [(10, 0.3), (20, 0.9)]]
    assert by_median([(10, 0.3)], others, startup=3) is None  # the median itself goes on
    assert by_median([(10, 0.29)], others, startup=3) == Verdict(10, 0.29, 0.3)
    assert by_median([(10, 0.29)], others, startup=4) is None
    assert by_median([(10, 0.35), (20, 0.3)], others, startup=3) == Verdict(20, 0.35, 0.6)  # the best so far counts
    assert by_median([(10, 0.7), (20, 0.1)], others, startup=3) is None
    assert by_median([(15, 0.0)], others, startup=3) is None  # no other has this step
    assert by_median([], others, startup=0) is None
    assert by_median([(10, 0.1), (20, 0.2)], others, startup=3, first=20) == Verdict(20, 0.2, 0.6)


def test_rungs_of_hyperband_are_those_of_the_paper() -> None:
    # Table 1 of Li et al. 2018: R = 81, η = 3; r_i of s = 4, 3, 2, 1, 0, without the last, which is the whole run.
    rungs = ((1, 3, 9, 27), (3, 9, 27), (9, 27), (27,), ())
    assert rungs_of_brackets(81, 1) == rungs
    assert rungs_of_brackets(200, 50) == ((50, 150), (150,)) and rungs_of_brackets(40, 50) == ()


def test_halving_by_hand() -> None:
    others = [[(50, score)] for score in (0.5, 0.4, 0.3, 0.2)]
    assert by_halving([(50, 0.45)], others, (50,)) == Verdict(50, 0.45, 0.5)  # of 5 the best alone goes on
    assert by_halving([(50, 0.5)], others, (50,)) is None
    assert by_halving([(50, 0.45)], [*others, [(60, 0.1)]], (50,)) is None  # of 6 the two best
    assert by_halving([(49, 0.0)], others, (50,)) is None and by_halving([(50, 0.0)], [], (50,)) is None
    assert by_halving([(50, 0.9), (150, 0.1)], [[(50, 0.2), (150, 0.2)]], (50, 150)) == Verdict(150, 0.1, 0.2)


@pytest.mark.parametrize("rule", ["median", "hyperband"])
def test_the_rules_are_those_of_optuna(rule: str) -> None:
    """Forty trials of ten evaluations, one after the other: each is stopped where Optuna stops it."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng, brackets = np.random.default_rng(0), rungs_of_brackets(10, 1)
    pruner = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=3),
    }[rule]()
    theirs = optuna.create_study(direction="maximize", pruner=pruner, study_name="search-0")
    before: list[tuple[int, list[tuple[int, float]], bool]] = []
    stops = []
    for number in range(40):
        scores = rng.random() * np.arange(1, 11) / 10 + 0.3 * rng.random(10)
        trial, own, stopped = theirs.ask(), [], None
        for step, score in enumerate(map(float, scores), 1):
            own.append((step, score))
            trial.report(score, step)
            if rule == "median":
                stopped = by_median(own, [curve for _, curve, ended in before if ended], 4)
            else:
                mine = bracket_of(number, "search-0", len(brackets))
                rivals = [c for n, c, _ in before if bracket_of(n, "search-0", len(brackets)) == mine]
                stopped = by_halving(own, rivals, brackets[mine])
            # At the last step there is nothing left to stop.
            assert step == 10 or (stopped is not None) == trial.should_prune(), (number, step)
            if stopped:
                break
        states = optuna.trial.TrialState
        whole = stopped is None or len(own) == 10
        theirs.tell(trial, own[-1][1] if whole else None, state=states.COMPLETE if whole else states.PRUNED)
        before.append((number, own, whole))
        stops.append(len(own))
    assert 5 < stops.count(10) < 35


def test_what_a_trial_is_compared_with(study: Study) -> None:
    config = study.config({})

    def trial(number: int, state: Any, *scores: float) -> Trial:
        return Trial(number, {}, state, None, tuple(enumerate(scores, 1)), len(scores), "")

    own = trial(2, "unfinished", 0.1)
    before = [trial(0, "complete", 0.5, 0.6), trial(1, "pruned", 0.9), trial(3, "complete", 0.3, 0.4)]
    median = study._replace(pruner="median", startup=2)
    assert verdict_of(median, own, before, config) == Verdict(1, 0.1, 0.4)  # those that are complete
    assert verdict_of(median._replace(startup=3), own, before, config) is None
    assert verdict_of(median._replace(prune_from=2), own, before, config) is None
    assert verdict_of(study._replace(pruner="hyperband", prune_from=5), own, before, config) is None
    hyperband = study._replace(pruner="hyperband")
    mine = bracket_of(2, "search-0", 2)
    rivals = [each for each in before if bracket_of(each.number, "search-0", 2) == mine]
    expected = max(each.curve[0][1] for each in rivals) if rivals and mine == 0 else None
    found = verdict_of(hyperband, own, before, config)
    assert (found.needed if found else None) == expected


# --- a search ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole random search, made by one process."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_start", lambda run, *_: training(run.workdir))
        patch.setattr(pool, "_PAUSE", 0.01)
        patch.setattr(search_command, "check_parts", lambda study: None)
        assert search(file, workdir) == 0
    return workdir


def test_shards_in_any_order_and_a_stopped_search_give_the_trials_of_one_process(
    file: Path, whole: Path, tmp_path: Path, trainings: list[str], study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = trials_in(whole)
    assert trials[0]["values"] == {
        "optimizer.learning_rate": 1e-3,
        "loss.terms": "cross_entropy",
        "model.args.hidden": 8,
    }
    for trial in trials:
        assert trial["number"] == 0 or trial["values"] == drawn(study.spaces, 0, trial["number"])
        rate = trial["values"]["optimizer.learning_rate"]
        assert (
            trial["state"] == "diverged"
            if rate > 0.05
            else trial["mean_iou"] == pytest.approx(0.8 - 0.1 * abs(math.log10(rate / 0.01)))
        )
    for part in (2, 1):
        assert search(file, tmp_path / "shards", f"--shard={part}/2") == 0
    assert sorted(trainings) == [f"trial-{number:04d}" for number in range(6)] and trainings[0] == "trial-0001"
    assert trials_in(tmp_path / "shards") == trials
    # Killed in the midst of the fourth trial: it has no scores, and a lock file of nobody is left.
    shutil.copytree(whole, tmp_path / "killed")
    for number in (4, 5):
        shutil.rmtree(tmp_path / "killed" / f"trial-{number:04d}")
    (tmp_path / "killed" / "trial-0003" / "sweep-val.json").unlink()
    (tmp_path / "killed" / "trial-0003" / ".claim").touch()
    trainings.clear()
    assert search(file, tmp_path / "killed") == 0
    assert trainings == ["trial-0003", "trial-0004", "trial-0005"] and trials_in(tmp_path / "killed") == trials
    folders = (whole, tmp_path / "shards", tmp_path / "killed")
    texts = [(folder / "trials.md").read_text() for folder in folders]
    here = [text.replace(str(folder), "DIR") for text, folder in zip(texts, folders)]
    assert here[0] == here[1] == here[2] and here[0].count("\n| ") == 6 + 3 + 2
    # What has ended is not made again, and the report is written again.
    trainings.clear()
    (whole / "trials.md").unlink()
    assert search(file, whole) == 0 and main(["--workdir", str(whole), "--report"]) == 0 and trainings == []
    assert (whole / "trials.md").read_text() == texts[0] and texts[0] in capsys.readouterr().out


def test_processes_at_once_share_the_trials(file: Path, study: Study, tmp_path: Path) -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        a, b = (runs_of(Trials(study, tmp_path), (1, 1), claims) for claims in (first, second))
        taken = [next(a).name, next(b).name, next(b).name, next(a).name, next(b).name, next(b).name]
        assert taken == [f"trial-{number:04d}" for number in range(6)]
        assert next(a, None) is None and next(b, None) is None
    with contextlib.ExitStack() as claims:  # as after a kill: nothing has ended, nobody holds a trial
        assert len(list(runs_of(Trials(study, tmp_path), (1, 1), claims))) == 6
    parts = [number for part in (1, 2, 3, 4) for number in numbers_of(study, (part, 4))]
    assert sorted(parts) == list(range(6))


def test_trials_that_fall_behind_are_stopped_by_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the trial goes on; its folder stays, with the record of why."""
    file = a_file(tmp_path / "a", ('pruner="none"', 'pruner="median"'), ("trials=6", "trials=9"))
    study = load_study(str(file), (), None, "val")

    def slow(run: Any, *more: Any) -> subprocess.Popen[bytes]:
        return training(run.workdir, 0.72 if run.name >= "trial-0003" else 0.0)

    monkeypatch.setattr(pool, "_start", slow)
    assert search(file, tmp_path / "out") == 0
    trials = trials_in(tmp_path / "out")
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned and all(trial["mean_iou"] is None and trial["step"] < 4 for trial in pruned)
    for trial in pruned:
        before = [t for t in trials[: trial["number"]] if t["state"] == "complete"]
        record = json.loads((tmp_path / "out" / f"trial-{trial['number']:04d}" / "pruned.json").read_text())
        at = record["step"]
        assert record["needed"] == statistics.median(dict(map(tuple, t["curve"]))[at] for t in before) > record["score"]
        assert f"stopped at step {at} with mIoU" in trial["error"]
    assert f"{len(pruned)} pruned" in (tmp_path / "out" / "trials.md").read_text()
    assert search(file, tmp_path / "out") == 0 and trials_in(tmp_path / "out") == trials
    assert read_study(tmp_path / "out").spaces == study.spaces


def test_tpe_proposes_after_a_stop_what_it_would_have_proposed(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")
    file = a_file(tmp_path / "a", ('sampler="random"', 'sampler="tpe"'), ("trials=6", "trials=8"))
    for number in (5, 8):
        assert search(file, tmp_path / "once", f"--trials={number}") == 0
    once, study = trials_in(tmp_path / "once"), load_study(str(file), (), None, "val")
    trials = Trials(study, tmp_path / "once").all()
    assert len(trainings) == 8 == len(trials)
    assert [proposed(study, n, trials[:n]) for n in range(1, 8)] == [trial["values"] for trial in once[1:]]
    assert once[1]["values"] == drawn(study.spaces, 0, 1)
    assert all(trial["values"] != drawn(study.spaces, 0, trial["number"]) for trial in once[2:])
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "once" / "study.journal"))
    )
    [kept] = optuna.get_all_study_summaries(storage)
    best = max(trial["mean_iou"] or 0.0 for trial in once)
    assert kept.n_trials == 8 and kept.best_trial.value == best
    anova = importances(study, trials)
    assert anova is not None and sum(anova.values()) == pytest.approx(1.0)
    assert importances(study, trials[:7]) is None
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert importances(study, trials) is None and main(["--workdir", str(tmp_path / "once"), "--report"]) == 0
    with pytest.raises(ConfigError, match=r"The sampler tpe needs Optuna, which pip install -e '\.\[search\]'"):
        proposed(study, 8, trials)


def test_tpe_needs_optuna_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    file = a_file(tmp_path / "a", ('sampler="random"', 'sampler="tpe"'))
    assert search(file, tmp_path / "out") == 1
    assert "pip install -e '.[search]'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_trial_that_fails_is_told_and_tried_again_and_one_that_diverges_is_a_result(
    tmp_path: Path, trainings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # A rate above .05 diverges; a choice that is valid for itself, and not together with what TPE may propose, fails.
    file = a_file(tmp_path / "a", ("LogUniform(1e-4, 1e-1)", "LogUniform(6e-2, 1e-1)"), ("trials=6", "trials=3"))
    assert search(file, tmp_path / "out") == 0
    table = (tmp_path / "out" / "trials.md").read_text()
    assert "3 trials: 1 complete, 0 pruned, 2 diverged." in table and "| 1 | diverged |" in table
    trainings.clear()
    assert search(file, tmp_path / "out") == 0 and trainings == []
    failure = tmp_path / "out" / "trial-0002" / "failure.json"
    failure.write_text(json.dumps({"error": "MemoryError: too small"}))
    assert main(["--workdir", str(tmp_path / "out"), "--report"]) == 0
    assert "1 failed" in (tmp_path / "out" / "trials.md").read_text()
    assert "- `trial-0002`: MemoryError: too small" in (tmp_path / "out" / "trials.md").read_text()
    assert search(file, tmp_path / "out") == 0 and trainings == ["trial-0002"]


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_best_is_a_file_that_trains_and_compares(
    whole: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_in(whole)
    best = max((trial for trial in trials if trial["mean_iou"] is not None), key=lambda trial: trial["mean_iou"])
    assert json.loads((whole / "trials.json").read_text())["best"] == best["number"] != 0
    expected = study.config({key: value for key, value in best["values"].items()})
    assert to_dict(command.load_experiment(str(whole / "best.py"))) == to_dict(expected)
    plan = load_plan(str(whole / "best.py"), (), None, "test")
    assert plan.seeds == (1, 2, 3) and plan.baseline == "start"
    compared = {name: flatten(plan.config(name, 1)) for name in ("start", "best")}
    assert compared["best"] == flatten(expected) | {"seed": 1}
    assert compared["start"] == flatten(from_dict(study.start)) | {"seed": 1}


def test_a_start_that_is_the_best_has_nothing_to_compare(file: Path, tmp_path: Path, study: Study) -> None:
    assert search(file, tmp_path, "--trials=1") == 0
    assert "sweep" not in (tmp_path / "best.py").read_text()
    assert to_dict(command.load_experiment(str(tmp_path / "best.py"))) == study.start


def test_a_best_file_that_was_edited_is_kept(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = Path(shutil.copytree(whole, tmp_path / "copy"))
    best, report = workdir / "best.py", ["--workdir", str(workdir), "--report"]
    written = best.read_text()
    assert "The best of 6 trials" in written
    for edited in (written.replace("VALUES = {", "VALUES = {  # mine"), f"{written}\n# mine\n", "mine", ""):
        best.write_text(edited)
        with pytest.warns(
            UserWarning, match=r"best\.py is kept as it is, since it was edited or .*: trial \d is the best of 6"
        ):
            assert main(report) == 0
        assert best.read_text() == edited
    best.unlink()
    assert main(report) == 0 and best.read_text() == written
    # What an earlier report wrote is written anew, without a word.
    shutil.rmtree(workdir / f"trial-{json.loads((workdir / 'trials.json').read_text())['best']:04d}")
    assert main(report) == 0 and "The best of 5 trials" in best.read_text()


def test_what_a_key_explains_by_hand(study: Study) -> None:
    # Ranks 1 to 6 in three groups of two: H = 12 / (6 · 7) · (3² + 7² + 11²) / 2 - 3 · 7 = 32 / 7; η² = (H - 2) / 3.
    assert explained([1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2]) == pytest.approx((32 / 7 - 2) / 3)
    # Best in the middle: a correlation of 0, and the same share.
    assert explained([1, 2, 5, 6, 3, 4], [0, 0, 1, 1, 2, 2]) == pytest.approx((32 / 7 - 2) / 3)
    assert explained([1, 4, 2, 5, 3, 6], [0, 0, 1, 1, 2, 2]) == 0.0 and math.isnan(explained([1, 2], [0, 1]))
    assert explained([1, 1, 1, 1, 1], [0, 0, 1, 1, 1]) == 0.0
    assert thirds(Uniform(0, 9), [5.0, 1.0, 9.0, 2.0, 6.0, 8.0]) == [1, 0, 2, 0, 1, 2]
    assert thirds(Choice(("a", "b")), [1.0, 0.0, 1.0]) == [1, 0, 1]
    trials = [Trial(n, {"optimizer.learning_rate": 10.0**-n}, "complete", n / 10, (), 4, "") for n in range(1, 5)] + [
        Trial(9, {"optimizer.learning_rate": 0.09}, "diverged", None, (), 1, "")
    ]
    # Ranks 5, 4, 3, 1, 2 at .0001, .001, .01, .09, .1 in thirds of 2, 1, 2: H = 12 / 30 · (81 / 2 + 9 + 9 / 2) - 18.
    found = ranked(study, trials)
    assert found["optimizer.learning_rate"] == pytest.approx((12 / 30 * 54 - 18 - 2) / 2)
    assert math.isnan(found["loss.terms"])


def test_the_best_so_far_skips_what_has_no_score() -> None:
    scores = [None, 0.3, None, 0.2, 0.5]
    trials = [Trial(n, {}, "complete" if s else "pruned", s, (), 4, "") for n, s in enumerate(scores)]
    assert best_so_far(trials) == [(1, 0.3), (2, 0.3), (3, 0.3), (4, 0.5)]


def test_the_picture_is_drawn(whole: Path, drawn: None) -> None:
    assert main(["--workdir", str(whole), "--report"]) == 0
    with Image.open(whole / "search.png") as picture:
        assert picture.width > 1000 and picture.info["Software"] == "jaxseg"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("LogUniform(1e-4, 1e-1)", "Uniform(-1, 1)", "can give -1.0: optimizer.learning_rate must be a number above 0"),
        ("LogUniform(1e-4, 1e-1)", "Uniform(0.1, 0.1)", "low must be less than high"),
        ("optimizer__learning_rate", "optimizer__lr", "There is no config key 'optimizer.lr'. Did you mean"),
        ("optimizer__learning_rate", "seed", "a seed is not searched"),
        ("optimizer__learning_rate", "eval__overlap", "the key changes no number of a run"),
        ("optimizer__learning_rate", "optimizer__momentum", "can give"),
        ('"dice")', '"dicee")', "can give 'dicee': "),
        ('"model__args__hidden": Integer(8', '"schedule__warmup": Integer(1', "can give 4: schedule.warmup"),
        ("return Search(spaces, trials=6", "return dict(a=spaces, b=6", "must return a jaxseg.sweep.Search, got dict"),
        ("def search", "def serch", "defines no sweep()"),
    ],
)
def test_a_wrong_search_is_one_sentence_before_anything_runs(
    tmp_path: Path,
    trainings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    if "momentum" in new:
        old, new = 'optimizer__learning_rate": LogUniform(1e-4, 1e-1)', 'optimizer__momentum": Uniform(0, 1.5)'
    if "dicee" in new:  # known to the parts alone
        monkeypatch.setattr(search_command, "check_parts", check_parts)
    assert search(a_file(tmp_path / "a", (old, new)), tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert trainings == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only=a"], "--only and --seeds are of a sweep"),
        (["--seeds=1"], "--only and --seeds are of a sweep"),
        (["--config.optimizer.learning_rate=0.1"], "--config.optimizer.learning_rate sets the key that is searched"),
        (["--split=vall"], "vall"),
        (["--config.steps=no"], "steps"),
    ],
)
def test_wrong_words(
    file: Path, tmp_path: Path, trainings: list[str], capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert search(file, tmp_path / "out", *more) == 1
    assert message in capsys.readouterr().err and trainings == [] and not (tmp_path / "out").exists()


def test_a_folder_is_of_one_search(
    file: Path, whole: Path, tmp_path: Path, trainings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "search.json").read_text()
    other = a_file(tmp_path / "a", ("1e-4", "1e-3"))
    sweep = "\n\ndef sweep():\n    from jaxseg.sweep import Sweep\n    return Sweep({'a': {}}, baseline='a')\n"
    both = a_file(tmp_path / "b", ("def search", f"{sweep.strip()}\n\n\ndef search"))
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "trials.md").write_text("mine")
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").write_text("{}")
    for path, workdir, more, message in (
        (
            file,
            whole,
            ["--config.steps=6"],
            "holds another search; give another --workdir. What differs: steps: 4 -> 6",
        ),
        (
            other,
            whole,
            [],
            "space of optimizer.learning_rate: LogUniform(low=0.0001, high=0.1) -> LogUniform(low=0.001",
        ),
        (file, whole, ["--split=test"], "split: val -> test"),
        (file, tmp_path / "else", [], "trials.md would replace a file that jaxseg did not write"),
        (file, tmp_path / "swept", [], "holds a sweep; give another --workdir for the search"),
        (both, whole, [], "holds a search; give another --workdir for the sweep"),
        (both, tmp_path / "new", ["--trials=3"], "--trials is of a search, and this is a sweep; --search makes"),
    ):
        assert search(path, workdir, *more) == 1
        assert message in capsys.readouterr().err
    assert main(["--workdir", str(tmp_path / "swept"), "--report", "--search"]) == 1
    assert trainings == [] and (whole / "search.json").read_text() == before
    assert search(both, tmp_path / "new", "--search", "--trials=1") == 0 and trainings == ["trial-0000"]
    ablation = tmp_path / "ablation.py"
    ablation.write_text(SEARCH[: SEARCH.index("def search")] + sweep)
    assert search(ablation, tmp_path / "new2", "--search") == 1
    assert "defines no search(); a search has one beside get_config(arg)" in capsys.readouterr().err

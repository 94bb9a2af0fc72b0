"""Does a search of 20 short runs beat the default? `python benchmarks/search.py --work DIR --out NAME`

The search of experiments/search.py, then its best configuration and the experiment as it is, each trained with seeds
that the search has not used and scored on the test split, which it has not seen. A call that was cut off goes on.
"""

import argparse
import json
import math
import resource
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.timing import at_least, environment, make_parser, result_file, save, table

from jaxseg.arguments import expanded
from jaxseg.config.command import run_command
from jaxseg.sweep.__main__ import main as sweep_command
from jaxseg.sweep.statistics import paired_difference, spread

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("configuration", "mIoU on val, by which it was chosen", "seeds", "mIoU on test", "difference to the start")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/search"), metavar="DIR", help="the runs (runs/search)")
    parser.add_argument("--trials", type=at_least(2), default=20, metavar="N", help="of the search (default 20)")
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="runs at a time (default 1)")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(options, list(sys.argv[1:] if argv is None else argv)))


def _measure(options: argparse.Namespace, words: Sequence[str]) -> int:
    work, before = expanded(options.work).absolute(), _cpu_of_runs()
    shorter = ["--config.steps=2", "--config.schedule.warmup=0", "--config.data.size=16,16"] if options.smallest else []
    shorter += ["--config.data.shapes_val=8", "--config.eval.every=1"] if options.smallest else []
    search = ["--config", str(ROOT / "experiments" / "search.py"), "--workdir", str(work / "trials")]
    jobs = [f"--jobs={options.jobs}"]
    status = sweep_command([*search, f"--trials={options.trials}", *jobs, *shorter])
    check = ["--config", str(work / "trials" / "best.py"), "--workdir", str(work / "check"), "--split=test", *jobs]
    status = status or sweep_command(check)
    if status:
        return status
    found = json.loads((work / "trials" / "trials.json").read_text(encoding="utf-8"))
    lines = (work / "check" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [{key: run[key] for key in ("variant", "seed", "mean_iou")} for run in map(json.loads, lines)]
    record = {
        "command": f"python benchmarks/search.py {shlex.join(words)}",
        "environment": environment(),
        "search": {**found, "experiment": "experiments/search.py"},
        "check": runs,
        "cpu_minutes": (_cpu_of_runs() - before) / 60,  # of the runs of this call
    }
    save(options.out, record, _table(record))
    if options.out is not None:
        shutil.copyfile(work / "trials" / "search.png", result_file(options.out, ".png"))
    return 0


def _cpu_of_runs() -> float:
    """Returns the seconds of all cores that the processes of the runs have taken since this one began."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table(record: Mapping[str, Any]) -> str:
    trials, check = record["search"]["trials"], record["check"]
    by_seed = {name: {r["seed"]: r["mean_iou"] for r in check if r["variant"] == name} for name in ("start", "best")}
    numbers = {"start": 0, "best": record["search"]["best"]}
    rows = []
    for name, scores in by_seed.items():
        test, chosen = spread(list(scores.values())), trials[numbers[name]]["mean_iou"]
        difference = ""
        if name == "best":
            against = paired_difference(scores, by_seed["start"])
            difference = f"{100 * against.mean:+.2f} [{100 * against.low:+.2f}, {100 * against.high:+.2f}]"
        deviation = "" if math.isnan(test.deviation) else f" ± {100 * test.deviation:.2f}"
        seeds = ", ".join(map(str, sorted(scores)))
        row = (f"{name}: trial {numbers[name]}", f"{100 * chosen:.2f}", seeds, f"{100 * test.mean:.2f}{deviation}")
        rows.append((*row, difference))
    states = [trial["state"] for trial in trials]
    steps, whole = sum(trial["step"] for trial in trials), max(trial["step"] for trial in trials) * len(trials)
    best = ", ".join(f"`{key}={value}`" for key, value in trials[numbers["best"]]["values"].items())
    note = (
        f"The search of experiments/search.py: {len(trials)} trials of a small U-Net on shapes of 32x32 pixels, "
        f"{states.count('complete')} complete, {states.count('pruned')} pruned, {states.count('diverged')} diverged, "
        f"{steps:,} of {whole:,} steps made. Best: {best}. Then both again with seeds that the search has not used, on "
        "the test split: mIoU in per cent, mean ± standard deviation, difference paired by seed with its 95 % t "
        "interval."
    )
    return table(COLUMNS, rows, record, note)


if __name__ == "__main__":
    sys.exit(main())

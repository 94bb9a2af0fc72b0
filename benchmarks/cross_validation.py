"""Joins the scores of a cross-validation, of its ensemble and of one run on all images into one file and one table.

    python benchmarks/cross_validation.py --folds runs/five --single runs/single --out benchmarks/results/NAME

Before it `jaxseg train --folds` and `jaxseg train` make the two workdirs, and `jaxseg evaluate` scores both on val;
docs/cross-validation.md has the commands.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lib.timing import environment

KEPT = ("split", "step", "which", "images", "parameters", "mean_iou", "classes", "intervals", "versions", "device")


def evaluation(file: Path) -> dict[str, Any]:
    """Returns what is kept of a file of `jaxseg evaluate`, and of each run of an ensemble its name and scores."""
    found = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: found[name] for name in KEPT}
    if "alone" in found:
        kept["alone"] = [{**each, "workdir": Path(each["workdir"]).name} for each in found["alone"]]
    return kept


def table(folds: dict[str, Any], single: dict[str, Any], ensemble: dict[str, Any]) -> str:
    """Returns the mean IoU of each as a Markdown table, with that of the last class."""
    name = folds["classes"][-1]
    over, last = folds["over_folds"]["mean_iou"], folds["over_folds"]["iou"][name]
    alone = [each["mean_iou"] for each in ensemble["alone"]]
    n, all_ = len(folds["folds"]), folds["images"]
    lines = [
        f"| what | images | mIoU % | 95 % interval | IoU of {name} % |",
        "|---|---|---|---|---|",
        f"| {n} runs, each on its fold: mean ± sd | {all_} | {_spread(over)} | | {_spread(last)} |",
        f"| out of fold | {all_} | {_row(folds['out_of_fold']['mean_iou'], folds)} | "
        f"{_percent(folds['out_of_fold']['iou'][name])} |",
        f"| one run on all of them, on `val` | {single['images']} | {_row(single['mean_iou'], single)} | "
        f"{_percent(single['classes'][-1]['iou'])} |",
        f"| the {n} runs, each alone, on `val` | {ensemble['images']} | {_percent(min(alone))} to "
        f"{_percent(max(alone))} | | |",
        f"| their average, on `val` | {ensemble['images']} | {_row(ensemble['mean_iou'], ensemble)} | "
        f"{_percent(ensemble['classes'][-1]['iou'])} |",
    ]
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _spread(values: dict[str, float]) -> str:
    return f"{_percent(values['mean'])} ± {_percent(values['sd'])}"


def _row(score: float, scored: dict[str, Any]) -> str:
    low, high = scored["intervals"]["mean_iou"]
    return f"{_percent(score)} | {_percent(low)} to {_percent(high)}"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folds", type=Path, required=True, help="folder of jaxseg train --folds")
    parser.add_argument("--single", type=Path, required=True, help="workdir of a run on all images")
    parser.add_argument("--out", type=Path, required=True, help="the files, without .json and .md")
    options = parser.parse_args()
    folds = json.loads((options.folds / "scores.json").read_text(encoding="utf-8"))
    del folds["command"]  # has the paths of the machine
    single = evaluation(options.single / "evaluate-val.json")
    ensemble = evaluation(options.folds / "fold-1" / "evaluate-val-runs.json")
    content = {"environment": environment(), "out_of_fold": folds, "single_on_val": single, "ensemble_on_val": ensemble}
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    text = table(folds, single, ensemble)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

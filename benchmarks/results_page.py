"""Writes docs/measured.md, every result with its command, commit and machine: `python benchmarks/results_page.py`.

The page is made of the files in benchmarks/results alone: each JSON file, and of each sweep its table.csv with the
commits of results.jsonl and the command and machine that the sweep wrote into table.md. What a file does not record is
"not recorded". Nothing is measured. A test compares the page with the files, so this is run after each change of them.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.records import ABSENT, Origin, Table, in_line, origin_of, origin_of_run, settings_of, tables_of, text

from jaxseg.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "measured.md"
HEAD = """# Every measurement

Made by `python benchmarks/results_page.py` from the files in `benchmarks/results/`; not to be edited. What the numbers
mean, and the steps before a command, such as the training of a run, are on the page [](results.md).

Each row has its command, commit and machine; where all rows of a file have the same, these stand above its tables.
"With changes" means that tracked files differed from the commit. "Not recorded" means that the file was written before
its program recorded this; a command written by hand is then in
[the list of files](results.md#the-command-behind-each-file). Names of columns are those of the files. Scores are
shares, but for `mIoU`, `mean F1` and the classes in rows of the multilabel files and for texts with a per cent sign. A
row over seeds is mean ± standard deviation with the 95 % t interval of the mean. Where rows of a list have the same
name, their number in the list stands behind it. Lists of more than six numbers and the tables of classes are in the
files.
"""
RUN = ("run", "model", "parameters", "image size", "steps", "batch", "split", "images", "mIoU", "pixel accuracy")
RUN += ("minutes", "commit", "date", "machine", "command")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="the page (default docs/measured.md)")
    options = parser.parse_args(argv)
    write_text(options.out, page(RESULTS))
    return 0


def page(results: Path) -> str:
    """Returns the page of a folder of results."""
    parts = [HEAD]
    for path in sorted(results.rglob("*.json")):
        name = path.relative_to(results)
        parts.append(f"## `{name}`\n\n" + section(json.loads(path.read_text(encoding="utf-8"))))
    for path in sorted(results.rglob("table.csv")):
        parts.append(f"## `{path.parent.relative_to(results)}/`\n\n" + sweep_section(path.parent))
    return "\n".join(parts)


def section(record: Mapping[str, Any]) -> str:
    """Returns what the page says of one JSON file, below its heading."""
    runs = record["runs"] if "runs" in record else []
    parts = [plain(record["note"])] if record.get("note") else []
    if runs and "command" in runs[0]:
        # A file of collect.py: each run has its own command, commit and machine.
        return "\n\n".join([*parts, markdown(Table("runs", RUN, [run_cells(run) for run in runs]))]) + "\n"
    tables, origin = tables_of(record), origin_of(record)
    if origin.commit == ABSENT and any("commit" in table.columns for table in tables):
        origin = origin._replace(commit="that of each row")
    parts.append(said(origin))
    if "timed" in record:
        parts[-1] += "\n- Of the times: " + when(origin_of({"environment": record["timed"]})).replace("\n- ", "; ")
    if settings := settings_of(record):
        parts.append(f"{plain(settings)}.")
    for table in tables:
        if len(table.rows) > 1:
            parts += [f"*{plain(table.title)}*", markdown(table)]
        else:
            parts.append(
                f"*{plain(table.title)}*: {plain(in_line(dict(zip(table.columns, table.rows[0], strict=True))))}."
            )
    return "\n\n".join(parts) + "\n"


def run_cells(run: Mapping[str, Any]) -> list[str]:
    """Returns the cells of one run in a file of `collect.py`; the mIoU has its interval over images if there is one."""
    where = origin_of_run(run)
    numbers = [run[key] for key in ("run", "model", "parameters")]
    numbers += ["x".join(map(str, run["size"])), run["steps"], run["batch"], run["split"], run["images"]]
    score = f"{run['mean_iou']:.4f}"
    if run.get("interval"):
        low, high = run["interval"]
        score += f" [{low:.4f}, {high:.4f}]"
    minutes = "resumed" if run["seconds"] is None else f"{run['seconds'] / 60:.1f}"
    cells = [*map(text, numbers), score, f"{run['pixel_accuracy']:.4f}", minutes]
    return [*cells, where.commit, where.date, where.machine, f"`{where.command}`"]


def sweep_section(folder: Path) -> str:
    """Returns what the page says of one sweep: a row a variant, over its seeds."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    written = (folder / "table.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (python -m jaxseg\S* .+)$", written, re.MULTILINE)
    machines = re.findall(r"^- ([^;`]+; Python [^;]+?, flax [^,;]+)", written, re.MULTILINE)
    commits = sorted({_commit(row) for row in rows})
    origin = Origin(commands[0] if commands else ABSENT, ", ".join(commits), "", " / ".join(machines) or ABSENT)
    images = sorted({(row["split"], row["step"], row["images"]) for row in rows})
    about = "; ".join(f"split {split}, step {step}, {count} images" for split, step, count in images)
    seeds: dict[str, list[int]] = {}
    for row in rows:
        seeds.setdefault(row["variant"], []).append(row["seed"])
    columns = ("variant", "seeds", "mIoU", "difference to the baseline [95 % interval]", "parameters", "FLOPs")
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = [variant_cells(row, seeds) for row in csv.DictReader(file)]
    return "\n\n".join([said(origin), f"{about}.", markdown(Table("", columns, lines))]) + "\n"


def variant_cells(row: Mapping[str, str], seeds: Mapping[str, Sequence[int]]) -> list[str]:
    """Returns the cells of one variant of a sweep."""
    score = f"{float(row['mean_iou']):.4f}" if row["mean_iou"] else ""
    score += f" ± {float(row['deviation']):.4f}" if row["deviation"] else ""
    difference = "the baseline" if row["variant"] == row["baseline"] else ""
    if row["difference"]:
        difference = f"{float(row['difference']):+.4f}"
        if row["low"]:  # one seed has no interval
            difference += f" [{float(row['low']):+.4f}, {float(row['high']):+.4f}]"
    used = text(sorted(seeds[row["variant"]])) if row["variant"] in seeds else row["runs"]
    counts = [text(int(row[key])) if row[key] else "" for key in ("parameters", "flops")]
    return [row["variant"], used, score, difference, *counts]


def _commit(row: Mapping[str, Any]) -> str:
    git = row["git"] if "git" in row else None
    return git["commit"][:12] + (" with changes" if git["changed"] else "") if git else ABSENT


def said(origin: Origin) -> str:
    """Returns the origin as a list."""
    command = origin.command if origin.command == ABSENT else f"`{origin.command}`"
    return f"- Command: {command}\n- {when(origin)}"


def when(origin: Origin) -> str:
    """Returns commit, date and machine."""
    date = f"; {origin.date}" if origin.date and origin.date != ABSENT else ""
    return f"Commit: {origin.commit}{date}\n- Machine: {plain(origin.machine)}"


def markdown(table: Table) -> str:
    """Returns a table in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(plain, line))} |" for line in lines)


def plain(words: str) -> str:
    """Returns text without what Markdown and its tables read as markup; code stays code."""
    pieces = re.split(r"(`[^`]*`)", words.replace("\n", " "))
    for number in range(0, len(pieces), 2):
        for sign in "*<[$~":
            pieces[number] = pieces[number].replace(sign, "\\" + sign)
    return "".join(pieces).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())

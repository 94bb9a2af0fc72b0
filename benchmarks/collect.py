"""Gathers finished runs into one table: `python benchmarks/collect.py WORKDIR... --out benchmarks/results/NAME`.

`jaxseg.train` made each WORKDIR, and `jaxseg.evaluate` scored it on the split given here. Writes NAME.json (with
command, versions, device, commit and the scores of each class) and NAME.md.
"""

import argparse
import ast
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from lib.commands import DATA, shortened, this_command
from lib.timing import result_file

COLUMNS = ("run", "model", "parameters", "steps", "batch", "size", "mIoU", "pixel accuracy", "minutes", "device")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--split", default="test", help="the split whose evaluate-SPLIT.json is read")
    parser.add_argument("--out", type=Path, required=True, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON of an earlier table, whose other runs stay")
    parser.add_argument("--note", default="", help="a sentence for the head of the table")
    options = parser.parse_args(argv)
    rows = []
    for workdir in options.workdirs:
        if not workdir.is_dir():
            print(f"error: there is no folder {workdir}.", file=sys.stderr)
            return 1
        try:
            rows.append(describe(workdir, options.split))
        except (FileNotFoundError, KeyError) as error:
            hint = f"train it to the end, then python -m jaxseg.evaluate --workdir {workdir} --split {options.split}"
            print(f"error: {workdir} lacks {error}; {hint}.", file=sys.stderr)
            return 1
    if options.keep:
        names = {row["run"] for row in rows}
        rows += [row for row in json.loads(options.keep.read_text())["runs"] if row["run"] not in names]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    command = this_command().replace(shlex.quote(options.note), "NOTE") if options.note else this_command()
    record = {"command": command, "note": options.note, "runs": rows}
    result_file(options.out, ".json").write_text(json.dumps(record, indent=1) + "\n")
    result_file(options.out, ".md").write_text(markdown(rows, options.split, options.note))
    print(markdown(rows, options.split, options.note), end="")
    return 0


def describe(workdir: Path, split: str) -> dict[str, Any]:
    """Returns what one run was and scored.

    Raises:
        FileNotFoundError: if it was not evaluated on the split.
        KeyError: if it has not ended.
    """
    starts = json.loads((workdir / "run.json").read_text())["starts"]
    scores = json.loads((workdir / f"evaluate-{split}.json").read_text())
    ends = [start["end"] for start in starts if "end" in start]
    if not ends:
        raise KeyError("the end of training in run.json")
    last = starts[-1]
    config = last["config"]
    return {
        "run": workdir.name,
        "model": config["model"]["name"],
        "parameters": scores["parameters"],
        "steps": ends[-1]["step"],
        "checkpoint_step": scores["step"],
        "batch": config["batch_size"],
        "size": config["data"]["size"],
        "split": split,
        "images": scores["images"],
        "mean_iou": scores["mean_iou"],
        "interval": scores["intervals"]["mean_iou"] if "intervals" in scores else None,
        "pixel_accuracy": scores["pixel_accuracy"],
        "classes": scores["classes"],
        "validation_mean_iou": ends[-1]["mean_iou"],
        "seconds": ends[-1]["seconds"] if len(starts) == 1 else None,
        "starts": len(starts),
        "date": last["time"],
        "command": public_command(last["command"]),
        "device": last["device"],
        "python": last["python"],
        "packages": last["packages"],
        "commit": last["git"]["commit"] if last["git"] else None,
    }


def public_command(command: str | list[str]) -> str:
    """Returns the command, or call of `jaxseg.train`, of a run's record with the folders of this machine left out."""
    if isinstance(command, str) and command.startswith("jaxseg.train("):
        return public_call(command)
    # Earlier versions wrote a list, which began with the file's name.
    words = ["python", "-m", "jaxseg.train", *command[1:]] if isinstance(command, list) else shlex.split(command)
    program = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return shlex.join([*map(shortened, words[:program]), *public(words[program:])])


def public_call(call: str) -> str:
    """Returns a call of `jaxseg.train` as `run.json` holds it, with the folders of this machine left out."""
    tree: Any = ast.parse(call, mode="eval").body

    def cleaned(key: str, node: ast.expr) -> ast.expr:
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        return ast.Constant(public_value(key, node.value)) if text else node

    tree.args = [cleaned("config", node) for node in tree.args]
    tree.keywords = [word for word in tree.keywords if word.arg != "data__cache"]
    for word in tree.keywords:
        if word.arg is not None:
            word.value = cleaned(word.arg.replace("__", "."), word.value)
        else:  # **{"data.dir": ...}
            pairs = [(k, v) for k, v in zip(word.value.keys, word.value.values) if k.value != "data.cache"]
            word.value = ast.Dict([k for k, _ in pairs], [cleaned(k.value, v) for k, v in pairs])
    return ast.unparse(tree)


def public_value(key: str, value: str) -> str:
    """Returns the value of an option or key with the folders of this machine left out."""
    return "PATH" if f"--config.{key}" in DATA else shortened(value)


def public(arguments: list[str]) -> list[str]:
    """Returns the arguments of a training with the folders of this machine left out."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    kept = []
    for argument in joined:
        key, _, value = argument.partition("=")
        if key == "--config.data.cache":
            continue
        value = public_value(key.removeprefix("--").removeprefix("config."), value)
        kept += [key, value] if key in ("--config", "--workdir") else [f"{key}={value}"]
    return kept


def markdown(rows: list[dict[str, Any]], split: str, note: str) -> str:
    """Returns the table, best first, with the commands below it."""
    rows = sorted(rows, key=lambda row: -row["mean_iou"])
    lines = [note, ""] if note else []
    lines += [f"| {' | '.join(COLUMNS)} |".replace("mIoU", f"{split} mIoU"), "|---" * len(COLUMNS) + "|"]
    for row in rows:
        size = "x".join(map(str, row["size"]))
        minutes = "resumed" if row["seconds"] is None else f"{row['seconds'] / 60:.1f}"
        device = f"{row['device']['kind']} ({row['device']['cpus']} cores)"
        if row["device"]["platform"] != "cpu":
            device = f"{row['device']['count']} x {row['device']['kind']}"
        cells = (
            row["run"],
            row["model"],
            f"{row['parameters']:,}",
            row["steps"],
            row["batch"],
            size,
            f"{100 * row['mean_iou']:.1f}",
            f"{100 * row['pixel_accuracy']:.1f}",
            minutes,
            device,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", *(f"    {row['command']}" for row in rows)]
    versions = {f"Python {r['python']}, jax {r['packages']['jax']}, flax {r['packages']['flax']}" for r in rows}
    lines += ["", f"Measured {min(r['date'] for r in rows)[:10]} with {'; '.join(sorted(versions))}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

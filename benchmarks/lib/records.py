"""What a result file says: where it is from, and its numbers as rows, whatever the benchmark that wrote it.

A file has any form. Its dictionaries become rows with the path to them as the label, their numbers and short texts the
cells; the elements of a list are rows with what they nest beside it. Runs that differ in their seed and scores alone
become one row: mean ± standard deviation with the 95 % t interval of the mean, of nested scores too. Longer lists (the
rounds of a timing, thresholds) and the tables of classes stay in the file.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxseg.sweep.statistics import paired_difference, spread

ABSENT = "not recorded"
# What the origin tells, at the top of a file, and what is left to the file wherever it stands.
_ORIGIN = ("environment", "timed", "command", "commands", "note", "git", "date", "packages", "versions", "device")
_ORIGIN += ("jax", "torch", "compiler_options", "convolutions", "xla_flags", "platform", "devices", "cpus")
_ORIGIN += ("cpu", "machine", "python", "xla_python_client_preallocate")
_LEFT_OUT = ("environment", "packages", "versions", "device", "rounds")
_VERSIONS = ("jaxseg", "jax", "flax", "torch")
# What a run has from its seed, of its own or with all that it nests; other values are settings.
SCORES = {"mean_iou", "iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice", "dice", "loss"}
SCORES |= {"before", "after", "bytes", "gzip_bytes", "sparsity", "seconds", "minutes", "mean_drop", "drop", "clean"}
SCORES |= {"scores", "corruptions", "intervals"}
LONGEST = 6  # elements of a list in a cell
SHORT = {"commit": 12, "date": 10}  # characters that are shown
WIDEST = 14  # columns of a table


class Origin(NamedTuple):
    """What made some numbers, or "not recorded": the command, the commit, the day, and the machine with versions."""

    command: str
    commit: str
    date: str
    machine: str


class Table(NamedTuple):
    """Rows of text below the names of their columns."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]


def origin_of(record: Mapping[str, Any]) -> Origin:
    """Returns where a result file is from."""
    where = record["environment"] if "environment" in record else record
    command = record["command"] if "command" in record else where["command"] if "command" in where else ABSENT
    if "commands" in record:
        command = "; ".join(record["commands"])
    return Origin(command, _commit(where), where["date"][:10] if "date" in where else ABSENT, _machine(where))


def origin_of_run(run: Mapping[str, Any]) -> Origin:
    """Returns where a run in a file of `collect.py` is from."""
    return Origin(run["command"], (run["commit"] or ABSENT)[:12], run["date"][:10], _machine(run))


def _commit(where: Mapping[str, Any]) -> str:
    if "git" not in where or not where["git"]:
        return ABSENT
    return where["git"]["commit"][:12] + (" with changes" if where["git"]["changed"] else "")


def _machine(where: Mapping[str, Any]) -> str:
    """Returns the device, with its cores where it is a CPU, and the versions that matter most."""
    device = where["device"] if "device" in where and isinstance(where["device"], Mapping) else where
    place = ABSENT
    if "count" in device or "devices" in device:
        count = device["count"] if "count" in device else device["devices"]
        kind = device["kind"] if "kind" in device else device["device"]
        place = f"{count} x {kind}"
        if device["platform"] == "cpu":
            cores = device["threads"] if "threads" in device else device["cpus"]
            processor = next((device[key] for key in ("cpu", "machine") if key in device), "")
            place = f"{cores} CPU core{'s' if cores != 1 else ''}" + (f" of {processor}" if processor else "")
    packages = where["packages"] if "packages" in where else where
    versions = [f"{name} {packages[name]}" for name in _VERSIONS if packages.get(name)]
    versions = [f"Python {where['python']}", *versions] if "python" in where else versions
    flags = [where["xla_flags"]] if where.get("xla_flags") else []
    return "; ".join([place, *([", ".join(versions)] if versions else []), *flags])


def settings_of(record: Mapping[str, Any]) -> str:
    """Returns the numbers and short texts at the top of a file: what its rows have in common."""
    return in_line(_cells(_body(record)))


def _body(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _ORIGIN}


def _left_out(key: str, value: Any) -> bool:
    return key in _LEFT_OUT or (key in ("classes", "columns") and isinstance(value, list))


def in_line(cells: Mapping[str, str]) -> str:
    """Returns names and texts as one line."""
    return "; ".join(f"{key} {value}" for key, value in cells.items() if value)


def tables_of(record: Mapping[str, Any]) -> list[Table]:
    """Returns the rows of a file as tables, one for each group of rows with the same columns."""
    groups: list[tuple[str, dict[str, None], list[tuple[str, dict[str, str]]]]] = []
    for path, cells in _rows(_body(record), ()):
        group = next((each for each in groups if each[0] == path[0] and _alike(each[1], cells)), None)
        if group is None:
            group = (path[0], {}, [])
            groups.append(group)
        group[1].update(dict.fromkeys(cells))
        group[2].append((" / ".join(path[1:]), cells))
    tables = []
    for title, columns, rows in groups:
        labelled = any(label for label, _ in rows)
        lines = [
            [*([label] if labelled else []), *(row[c] if c in row else "" for c in columns)] for label, row in rows
        ]
        tables.append(Table(title, (*(["of"] if labelled else []), *columns), lines))
    return tables


def _alike(columns: Mapping[str, Any], cells: Mapping[str, Any]) -> bool:
    """Whether a row belongs into a table: half of its columns, or of the table's, are in both."""
    shared = len(columns.keys() & cells.keys())
    return columns.keys() == cells.keys() or (
        2 * shared >= min(len(columns), len(cells)) and len(columns) + len(cells) - shared <= WIDEST
    )


def _rows(node: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], dict[str, str]]]:
    """Yields (path, {column: text}) of all rows within a dictionary or a list."""
    if isinstance(node, Mapping):
        cells = _cells(node)
        if path and cells:
            yield path, cells
        for key, value in node.items():
            if not _left_out(key, value) and not (key == "intervals" and value.keys() & cells.keys()):
                named = "columns" in node and key == "rows" and not any(isinstance(row, Mapping) for row in value)
                yield from _named(node["columns"], value) if named else _rows(value, (*path, str(key)))
    elif isinstance(node, list) and node and all(isinstance(each, Mapping) for each in node):
        if all("seed" in each for each in node):
            node = over_seeds(node)
        unnamed = len({json.dumps(_settings(each), sort_keys=True) for each in node}) < len(node)
        for each, name in zip(node, _names(node), strict=True):
            cells, deeper = _flat(each)
            yield (*path, name) if unnamed else path, {key: text(value) for key, value in cells.items()}
            for key, value in deeper.items():
                yield from _rows(value, (*path, name, key))


def _named(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterable[tuple[tuple[str, ...], dict[str, str]]]:
    """Yields the rows of a file that is a table already."""
    for row in rows:
        yield ("rows",), {column: text(value) for column, value in zip(columns, row, strict=True)}


def _leaves(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is a number, a text or a short list of these, but for what the origin tells."""
    return {str(k): v for k, v in node.items() if not _left_out(k, v) and _is_leaf(v)}


def _cells(node: Mapping[str, Any]) -> dict[str, str]:
    """Returns the leaves as text; a score has its interval if there is one."""
    intervals = node["intervals"] if "intervals" in node else {}
    ends = {key: intervals[key] for key in intervals if _is_leaf(intervals[key])}
    cells = {key: text(value) for key, value in _leaves(node).items()}
    for key in ends.keys() & cells.keys():
        cells[key] += f" [{text(ends[key][0])}, {text(ends[key][1])}]"
    return cells | {key: node[key][:length] for key, length in SHORT.items() if key in cells and node[key]}


def _is_leaf(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= LONGEST and not any(isinstance(each, (list, Mapping)) for each in value)
    return not isinstance(value, Mapping)


def _flat(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the cells of an element of a list, and what is too large for its row.

    Small dictionaries in it are cells too, as `train.ours`. The commit and the date of a row are cells.
    """
    cells: dict[str, Any] = {}
    deeper: dict[str, Any] = {}
    for key, value in node.items():
        small = isinstance(value, Mapping) and all(map(_is_leaf, value.values())) and len(value) <= LONGEST
        if _left_out(key, value):
            continue
        if small:
            cells |= {f"{key}.{inner}": each for inner, each in _leaves(value).items()}
        elif _is_leaf(value):
            cells[key] = value[: SHORT[key]] if key in SHORT and value else value
        elif isinstance(value, Mapping) or (value and isinstance(value[0], Mapping)):
            deeper[key] = value
    return cells, deeper


def _names(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what the elements of a list are called: by their first text, by two, or with their number."""
    texts = [[v for k, v in node.items() if isinstance(v, str) and k not in SCORES] for node in nodes]
    firsts, pairs = [each[0] if each else "" for each in texts], [" ".join(each[:2]) for each in texts]
    numbers = [str(number) for number in range(1, len(nodes) + 1)]
    numbered = [" ".join(filter(None, pair)) for pair in zip(firsts, numbers, strict=True)]
    return next(names for names in (firsts, pairs, numbered, numbers) if len({*names}) == len(names) and all(names))


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns an element for the runs that differ in seed and SCORES alone: which seeds, each score over them.

    If runs have all else and a seed in common, none are joined.
    """
    groups: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_settings(run), sort_keys=True), {})[run["seed"]] = run
    if sum(map(len, groups.values())) < len(runs):
        return list(runs)
    rows = []
    for seeds in groups.values():
        joined = _joined({seed: {k: v for k, v in run.items() if k != "seed"} for seed, run in seeds.items()})
        first = {key: value for key, value in joined.items() if isinstance(value, str) and key not in SCORES}
        rows.append({**first, "seeds": sorted(seeds) if len(seeds) <= LONGEST else len(seeds), **joined})
    return rows


def _settings(node: Any) -> Any:
    """Returns what is neither a seed nor a score."""
    if isinstance(node, Mapping):
        inner = {key: _settings(value) for key, value in node.items() if key != "seed" and key not in SCORES}
        return {key: value for key, value in inner.items() if value != {}}
    return node


def _joined(of_seed: Mapping[int, Any]) -> Any:
    """Returns what seeds have in one place, {seed: it}: their intervals, within dictionaries and lists too.

    A number that some seeds lack is listed, with "none" for these. What cannot be joined has an entry for each seed.
    """
    values = list(of_seed.values())
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return {k: _joined({seed: v[k] if k in v else None for seed, v in of_seed.items()}) for k in keys}
    if all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        columns = [{seed: value[i] for seed, value in of_seed.items()} for i in range(len(values[0]))]
        return [_joined(column) for column in columns]
    if all(isinstance(value, (int, float)) for value in values):
        return interval_text(of_seed)
    if all(value is None or isinstance(value, (int, float)) for value in values):
        return ", ".join(text(value) or "none" for value in values)
    return {f"seed {seed}": value for seed, value in of_seed.items() if value is not None}


def interval_text(values: Mapping[int, float]) -> str:
    """Returns "mean ± deviation [low, high]" over seeds, with the 95 % t interval; the value where all are equal."""
    if len(set(values.values())) == 1:
        return text(next(iter(values.values())))
    mean, deviation, _ = spread(list(values.values()))
    _, low, high, _ = paired_difference(values, dict.fromkeys(values, 0.0))
    return f"{text(mean)} ± {text(deviation)} [{text(low)}, {text(high)}]"


def text(value: Any) -> str:
    """Returns a value for a cell: numbers with four digits that count, or whole."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        shown = [str(each) if isinstance(each, int) else text(each) for each in value]
        return ("; " if any("," in each for each in shown) else ", ").join(shown)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isfinite(value) and (abs(value) >= 1000 or value == int(value)):
            return f"{value:,.0f}"
        return f"{value:.4g}"
    return str(value)

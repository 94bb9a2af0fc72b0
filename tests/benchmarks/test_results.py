"""What is written of the files in benchmarks/results: the page of every measurement, the table of the networks, and the
tables beside the files."""

import fnmatch
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import results_page
import zoo
from lib import commands, records, timing
from lib.records import ABSENT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
RENEW = "python benchmarks/results_page.py"
RECORDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.rglob("*.json"))}


def test_the_page_is_what_the_files_make():
    written = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert written == results_page.page(RESULTS), f"docs/measured.md is older than benchmarks/results: {RENEW}"


def test_every_file_is_on_the_page():
    headings = re.findall(r"^## `(.+)`$", (ROOT / "docs" / "measured.md").read_text(encoding="utf-8"), re.MULTILINE)
    files = [str(path.relative_to(RESULTS)) for path in sorted(RESULTS.rglob("*.json"))]
    sweeps = [f"{path.parent.relative_to(RESULTS)}/" for path in sorted(RESULTS.rglob("table.csv"))]
    assert headings == files + sweeps and len(sweeps) >= 10


ENVIRONMENT = {
    "date": "2026-11-28T15:17:14+00:00",
    "command": "python benchmarks/x.py --out benchmarks/results/x",
    "git": {"commit": "0123456789abcdef", "changed": True},
    "platform": "cpu",
    "device": "cpu",
    "devices": 1,
    "cpus": 2,
    "cpu": "AMD EPYC",
    "python": "3.11.7",
    "packages": {"jaxseg": "0.1.0", "jax": "0.10.2", "torch": None, "numpy": "2"},
}


def test_a_file_has_its_origin_once_and_runs_that_differ_in_the_seed_are_one_row():
    runs = [{"variant": "a", "seed": seed, "mean_iou": score, "bytes": 10} for seed, score in enumerate((0.5, 0.7))]
    runs += [{"variant": "b", "seed": 0, "mean_iou": 0.25, "bytes": 12345}]
    written = results_page.section({"environment": ENVIRONMENT, "steps": 500, "runs": runs})
    # Deviation .2 / √2; t of one degree of freedom is 12.706, so that the interval is .6 ± 12.706 * .1.
    assert written == "\n".join(
        (
            "- Command: `python benchmarks/x.py --out benchmarks/results/x`",
            "- Commit: 0123456789ab with changes; 2026-11-28",
            "- Machine: 2 CPU cores of AMD EPYC; Python 3.11.7, jaxseg 0.1.0, jax 0.10.2",
            "",
            "steps 500.",
            "",
            "*runs*",
            "",
            "| variant | seeds | mean_iou | bytes |",
            "| --- | --- | --- | --- |",
            r"| a | 0, 1 | 0.6 ± 0.1414 \[-0.6706, 1.871] | 10 |",
            "| b | 0 | 0.25 | 12,345 |",
            "",
        )
    )


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    runs = [{"variant": "a", "labels": labels, "seed": 0, "mean_iou": labels / 64} for labels in (16, 32)]
    runs.append({"variant": "a", "labels": 64, "seed": 1, "mean_iou": 1.0})
    [table] = records.tables_of({"runs": runs})
    assert table.columns == ("variant", "seeds", "labels", "mean_iou")
    assert table.rows == [["a", "0", "16", "0.25"], ["a", "0", "32", "0.5"], ["a", "1", "64", "1"]]
    [table] = records.tables_of({"runs": [*runs, runs[0]]})
    assert [row[:4] for row in table.rows[::3]] == [["a 1", "a", "16", "0"], ["a 4", "a", "16", "0"]], "a seed twice"
    [table] = records.tables_of({"runs": [{"seed": 0, "mean_iou": None}, {"seed": 1, "mean_iou": 0.5, "loss": 9}]})
    assert table == ("runs", ("seeds", "mean_iou", "loss"), [["0, 1", "none, 0.5", "none, 9"]]), "no mean of some seeds"


def test_nested_scores_of_seeds_are_joined_too():
    def run(variant, seed, clean, drops):
        corruptions = {"fog": {"iou": [0.5, 0.25], "drop": drops}}
        scores = {"clean": {"mean_iou": clean}, "strengths": [1, 5], "corruptions": corruptions}
        return {"network": "unet", "variant": variant, "seed": seed, **scores}

    runs = [run("none", 0, 0.5, [0.25, 0.5]), run("none", 1, 0.7, [0.25, 0.7]), run("more", 0, 0.5, [0.1, 0.2])]
    whole, nested = records.tables_of({"runs": runs})
    over = "0.6 ± 0.1414 [-0.6706, 1.871]"
    assert whole.columns == ("network", "variant", "seeds", "clean.mean_iou", "strengths")
    assert whole.rows == [["unet", "none", "0, 1", over, "1, 5"], ["unet", "more", "0", "0.5", "1, 5"]]
    assert nested.columns == ("of", "iou", "drop")
    assert nested.rows == [
        ["unet none / corruptions / fog", "0.5, 0.25", f"0.25; {over}"],
        ["unet more / corruptions / fog", "0.5, 0.25", "0.1, 0.2"],
    ]


def test_each_row_of_a_table_has_a_name_of_its_own():
    """Its label, texts and whole numbers; other numbers are what was measured."""
    fraction = re.compile(r"-?[\d,]*(\.\d+|\d(\.\d+)?e-\d+)( [±\[].*)?")
    for name, record in RECORDS.items():
        collected = record["runs"][0] if record.get("runs") else {}
        for table in records.tables_of(record) if "command" not in collected else ():
            label = int(table.columns[0] == "of")
            names = [(*row[:label], *(c for c in row[label:] if not fraction.fullmatch(c))) for row in table.rows]
            assert len({*names}) == len(names), (name, table.title)


def test_only_the_scores_that_the_page_names_are_per_cent():
    shares = re.compile(r"mean_iou|iou|pixel_accuracy|mean_accuracy|mean_f1|f1|mean_dice")

    def check(node, key):
        for inner, value in node.items() if isinstance(node, dict) else ():
            check(value, inner)
        for value in node if isinstance(node, list) else ():
            check(value, key)
        assert not (isinstance(node, (int, float)) and shares.fullmatch(key)) or node <= 1, key

    for name, record in RECORDS.items():
        check(record, name)
        if name.startswith("multilabel-"):
            assert all(float(row["mIoU"]) > 1 for row in record["rows"])


def test_nested_numbers_are_rows_with_their_path_and_scores_have_their_intervals():
    record = {
        "networks": {"unet": {"train": {"ours": 0.5, "torch": 1.5}, "infer": {"ours": 1234.5}, "rounds": {"x": [1.0]}}},
        "whole": {"mean_iou": 0.5, "classes": [{"iou": 1.0}], "intervals": {"level": 0.95, "mean_iou": [0.25, 0.75]}},
        "list": [{"way": "a | b", "time": {"low": 1, "high": None}, "passes": True}, {"way": "c", "passes": False}],
    }
    networks, whole, ways = records.tables_of(record)
    assert networks == (
        "networks",
        ("of", "ours", "torch"),
        [["unet / train", "0.5", "1.5"], ["unet / infer", "1,234", ""]],
    )
    assert whole == ("whole", ("mean_iou",), [["0.5 [0.25, 0.75]"]])
    assert ways == (
        "list",
        ("way", "time.low", "time.high", "passes"),
        [["a | b", "1", "", "yes"], ["c", "", "", "no"]],
    )
    assert r"| a \| b | 1 |  | yes |" in results_page.markdown(ways)
    assert "- Command: not recorded\n- Commit: not recorded\n- Machine: not recorded" in results_page.section(record)


def test_a_run_of_collect_has_its_own_command_commit_and_machine():
    [run] = RECORDS["shapes-cpu-test"]["runs"]
    cells = dict(zip(results_page.RUN, results_page.run_cells({**run, "interval": [0.5, 0.75]}), strict=True))
    assert cells["run"] == "resunet" and cells["parameters"] == f"{run['parameters']:,}" and cells["split"] == "test"
    assert cells["mIoU"] == f"{run['mean_iou']:.4f} [0.5000, 0.7500]" and cells["commit"] == run["commit"][:12]
    assert cells["command"] == f"`{run['command']}`" and cells["machine"].startswith("2 CPU cores; Python 3.11")
    assert [*results_page.run_cells({**run, "seconds": None, "commit": None})][10:12] == ["resumed", ABSENT]


def test_a_sweep_has_the_command_commit_and_machine_that_it_wrote():
    written = results_page.sweep_section(RESULTS / "ablations" / "residual")
    assert "- Command: `python -m jaxseg.sweep --config experiments/ablations/residual.py`\n" in written
    assert "- Commit: d36c6798aaf5\n- Machine: AMD EPYC, 1 of 2 threads; Python 3.11.7, jaxseg 0.1.0" in written
    assert r"| preact | 0, 1, 2, 3, 4 | 0.7612 ± 0.0384 | +0.2648 \[+0.0447, +0.4849] | 183,462 |" in written
    assert "| identity | 0, 1, 2, 3, 4 | 0.4964 ± 0.1456 | the baseline | 183,110 |" in written


def test_the_command_that_a_page_has_by_hand_is_the_recorded_one():
    """Where the file records it; else the hand-written one is all there is."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    unquoted = {re.sub(r"[\"']", "", command) for command in re.findall(r"`(python [^`]+)`", page)}
    missing = {
        name: record["command"]
        for name, record in RECORDS.items()
        if "command" in record and re.sub(r"[\"']", "", record["command"]) not in unquoted and name != "zoo"
    }
    assert not missing


def test_a_benchmark_records_its_command_and_commit_without_the_folders_of_the_machine(monkeypatch):
    out = str(RESULTS / "cpu-crf")
    words = ["--out", out, "--data-dir", "/home/me/d", "--workdir=/home/me/runs/a", "--config.data.dir=/d", "--n", "3"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "crf.py"), *words, "--variants", "8 bits"])
    expected = "python benchmarks/crf.py --out benchmarks/results/cpu-crf --data-dir PATH --workdir=runs/a "
    expected += "--config.data.dir=PATH --n 3 --variants '8 bits'"
    assert commands.this_command() == expected
    words = ["--source=camvid", "--data-dir", "/somewhere", "--cache=/else where", "--networks", "/home/me/runs/a"]
    expected_of = "python benchmarks/classical.py --source=camvid --data-dir PATH --cache=PATH --networks runs/a"
    assert commands.command_of(str(ROOT / "benchmarks" / "classical.py"), words) == expected_of
    monkeypatch.setenv("HOME", "/home/me")
    words = ["--config.data.dir=/home/me/a=b/c", "--images", "../" * 30 + "home/me", "--out=~/out/x", "a", "/home/me/s"]
    expected_of = "python benchmarks/crf.py --config.data.dir=PATH --images PATH --out=out/x a s"
    assert commands.command_of(str(ROOT / "benchmarks" / "crf.py"), words) == expected_of
    found = timing.environment()
    assert found["command"] == expected and found["git"]["commit"] and found["cpu"]
    origin = records.origin_of({"environment": found})
    assert origin.command == expected and origin.commit[:12] == found["git"]["commit"][:12]
    assert origin.machine.startswith(f"{found['cpus']} CPU core")


def test_the_table_of_networks_says_of_which_network_each_number_is():
    runs = RECORDS["shapes-cpu"]["runs"]
    written = (RESULTS / "zoo.md").read_text(encoding="utf-8")
    assert written == zoo.markdown(RECORDS["zoo"], runs), "see the first lines of benchmarks/zoo.py"
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.splitlines()]
    assert [name.startswith("full network: ") for name in head[1:]] == [True, True] + 6 * [False]
    assert head[3] == "network of the score: parameters" and all(name.startswith("its ") for name in head[4:7])
    full = {row["experiment"]: row for row in RECORDS["zoo"]["networks"]}
    small = {run["run"]: run for run in runs}
    cells = {row[0].strip("`"): row[1:] for row in rows}
    assert cells.keys() == full.keys() | small.keys()
    for name, run in small.items():
        shown = cells[name][2:]
        assert int(shown[0].replace(",", "")) == run["parameters"] and shown[1] == "x".join(map(str, run["size"]))
        assert shown[2] == f"{run['steps']} x {run['batch']}" and abs(float(shown[3]) - run["mean_iou"]) <= 5e-4
        assert shown[4] == run["date"][:10] and run["commit"].startswith(shown[5])
    assert all(cells[name][2:] == ["", "", "", "not measured", "", ""] for name in cells.keys() - small.keys())


def test_the_smallest_and_the_largest_ratio_of_sizes_are_those_of_the_files():
    small = {run["run"]: run["parameters"] for run in RECORDS["shapes-cpu"]["runs"]}
    full = {row["experiment"]: row["parameters"] for row in RECORDS["zoo"]["networks"]}
    ratios = {name: full[name] / small[name] for name in full.keys() & small.keys()}
    ordered = sorted(ratios, key=lambda name: ratios[name])
    least, most = (f"{ratios[name]:.0f} (`{name}`)" for name in (ordered[0], ordered[-1]))
    assert f"divided by {least} to {most};" in " ".join(zoo.__doc__.split())


def test_new_networks_are_counted_and_the_others_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        zoo, "describe", lambda name, size: {"experiment": name, "model": name, "parameters": 5, "gflops": 1.5}
    )
    kept = {"size": 512, "networks": [row for row in RECORDS["zoo"]["networks"] if row["experiment"] != "unet"]}
    kept["networks"][0] |= {"jax": "0.1", "date": "2026-01-01", "commit": "abc"}
    (tmp_path / "old.json").write_text(json.dumps(kept))
    words = ["--keep", str(tmp_path / "old.json"), "--results", str(RESULTS / "shapes-cpu.json")]
    assert zoo.main([*words, "--out", str(tmp_path / "zoo")]) == 0
    found = {row["experiment"]: row for row in json.loads((tmp_path / "zoo.json").read_text())["networks"]}
    assert list(found) == sorted(RECORDS["zoo"]["networks"][i]["experiment"] for i in range(len(found)))
    assert found["unet"]["parameters"] == 5 and found["unet"]["date"] > "2026" and found["unet"]["jax"]
    first = kept["networks"][0]
    assert found[first["experiment"]] == {key: first[key] for key in zoo.COUNTED}
    assert "| `unet` | 0.00 M | 1.5 | 482,822 | 64x64 | 1500 x 8 | .916 |" in (tmp_path / "zoo.md").read_text()
    with pytest.raises(SystemExit):
        zoo.main([*words, "--size", "256"])
    assert "has counts at size 512, this call makes them at 256" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        zoo.main([*words[:2], "--out", str(tmp_path / "without")])
    assert "--out needs --results" in capsys.readouterr().err and not list(tmp_path.glob("without*"))


@pytest.mark.parametrize("run", RECORDS["shapes-cpu"]["runs"], ids=lambda run: run["run"])
def test_an_experiment_says_what_its_run_scored(run):
    path = ROOT / "experiments" / f"{run['run']}.py"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for score, minutes in re.findall(r"^Shapes validation mIoU: (\.\d+)(?: \(([\d.]+) minutes)?", text, re.MULTILINE):
        assert score == f"{run['mean_iou']:.3f}".lstrip("0")
        assert minutes == "" or minutes == f"{run['seconds'] / 60:.1f}"  # a run that was resumed has no seconds


def completed(record):
    """A record of `compare_torch.py` with what its first version did not record; see EARLIER."""
    networks = {name: {"flops": 0.0} | result for name, result in record["networks"].items()}
    return {"widths": (32, 64, 128, 256), "ceilings": {"matmul_flops": 1.0}} | record | {"networks": networks}


# Files whose table of milliseconds had a column less: only the first table, that of the ratios, is compared.
EARLIER = ("cpu-compare_torch", "cpu-jax-0.12-onednn-compare_torch")
# The tables beside the files, by the program that writes them: {files: (module, what it makes of the record)}.
TABLES = {
    "active_learning-*": ("active_learning", lambda m, r: m.describe(r)),
    "audit-*": ("audit", lambda m, r: m.describe(r)),
    "camvid-cpu": ("collect", lambda m, r: m.markdown(r["runs"], "test", r["note"])),
    "class_imbalance-*": ("class_imbalance", lambda m, r: m.to_table(r)),
    "classical-*": ("classical", lambda m, r: m.describe(r)),
    "*compare_torch": ("compare_torch", lambda m, r: m.describe(completed(r))),
    "*-compilation": ("compilation", lambda m, r: m.describe(r)),
    "corruptions-*": ("corruptions", lambda m, r: m.to_table(r)),
    "cpu-crf": ("crf", lambda m, r: m.describe(r)),
    "crf-*": ("crf_effect", lambda m, r: m.describe(r)),
    "cross_validation-*": (
        "cross_validation",
        lambda m, r: m.table(r["out_of_fold"], r["single_on_val"], r["ensemble_on_val"]),
    ),
    "effects-*": ("collect", lambda m, r: m.markdown(r["runs"], "val", r["note"])),
    "ensembles-*": ("ensembles", lambda m, r: m.describe(r)),
    "exported": ("exported", lambda m, r: m.markdown(r["networks"])),
    "exported-unet": ("exported_run", lambda m, r: m.markdown(r["programs"])),
    "from-imagenet": ("collect", lambda m, r: m.markdown(r["runs"], "val", r["note"])),
    "gradient_flow": ("gradient_flow", lambda m, r: m.describe(r)),
    "*-growth": ("growth", lambda m, r: m.describe(r)),
    "*-input_pipeline": ("input_pipeline", lambda m, r: m.describe(r)),
    "many_classes": ("many_classes", lambda m, r: m.to_table(r)),
    "*-memory": ("memory", lambda m, r: m.describe(r)),
    "multilabel-*": ("multilabel", lambda m, r: m.to_table(r["rows"], "")),
    "nuclei-objects": ("objects", lambda m, r: m.describe(r)),
    "nuclei-tiles": ("tiles", lambda m, r: m.describe(r)),
    "*-operations": ("operations", lambda m, r: m.describe(r)),
    "plan-nuclei": ("plan_groups", lambda m, r: m.to_table(r)),
    "plan-shapes": ("collect", lambda m, r: m.markdown(r["runs"], "val", r["note"])),
    "*-predict_folder": ("predict_folder", lambda m, r: m.describe(r)),
    "*-primitives": ("primitives", lambda m, r: m.describe(r)[0]),
    "quantised-times": ("quantised", lambda m, r: m._time_table(r)),
    "quantised-*": ("quantised", lambda m, r: m._table(r)),
    "realtime": ("realtime", lambda m, r: m.describe(r)),
    "scaling": ("scaling", lambda m, r: m.describe(r)),
    "search-*": ("search", lambda m, r: m._table(r)),
    "semi-*": ("semi", lambda m, r: m._table(r)),
    "shapes-cpu": ("collect", lambda m, r: m.markdown(r["runs"], "val", r["note"])),
    "shapes-cpu-test": ("collect", lambda m, r: m.markdown(r["runs"], "test", r["note"])),
    "smaller-*": ("smaller", lambda m, r: m._table(r)),
    "*-startup": ("startup", lambda m, r: m.describe({"overrides": []} | r)),
    "*-throughput": ("throughput", lambda m, r: m.describe(r)),
    "cpu-remat": ("throughput", lambda m, r: m.describe(r)),
    "uncertainty-*": ("uncertainty", lambda m, r: m.describe(r)),
    "*-whole_run": ("whole_run", lambda m, r: m.describe(r)),
    "weak_labels": ("weak_labels", lambda m, r: m._table(r)),
}
# Files without a table beside them: docs/faults.md has that of the faults, as tests/faults compares.
NO_TABLE = {"cpu-check", "faults"}
COMPARED = [name for name in RECORDS if any(fnmatch.fnmatch(name, each) for each in TABLES)]


def test_every_file_is_compared_with_its_table():
    """That of `zoo.json` and its runs is compared above."""
    assert set(RECORDS) == {*COMPARED, "zoo", *NO_TABLE} and not NO_TABLE & {
        path.stem for path in RESULTS.rglob("*.md")
    }
    assert all(any(fnmatch.fnmatch(name, each) for name in COMPARED) for each in TABLES)


@pytest.mark.parametrize("name", COMPARED)
def test_the_rows_beside_a_file_are_those_of_the_file(name):
    module, make = next(TABLES[each] for each in TABLES if fnmatch.fnmatch(name, each))
    made = make(importlib.import_module(module), RECORDS[name])
    written = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    if name in EARLIER:
        made, written = (text.partition("| network | parameters")[0] for text in (made, written))
    rows, expected = ([line for line in text.splitlines() if "|" in line] for text in (written, made))
    assert rows == expected and len(rows) > 2

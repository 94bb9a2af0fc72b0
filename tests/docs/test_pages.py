"""The pages of docs/: their links, files, commands, keys and code are right, and each result has its command."""

import re
import runpy
import shlex
from pathlib import Path

import jax
import pytest
from helpers.floors import ROWS

from jaxseg import state
from jaxseg.config import KEYS, RENAMED, command
from jaxseg.train import _add_options

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items() if "_build" not in name}


def each_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", TEXTS)


@each_page()
def test_every_relative_link_leads_to_a_file(name):
    text = re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (PAGES[name].parent / target).is_file() or target.startswith("https://"), f"{name} links to {target}"


@each_page()
def test_every_file_that_a_page_names_is_there(name):
    for file in re.findall(
        r"(?<![\w/])(?:experiments|benchmarks|jaxseg|tests)/[\w/-]+\.(?:py|md|json|png)", TEXTS[name]
    ):
        assert (ROOT / file).is_file() or file.endswith("experiments/NAME.py"), f"{name} names {file}"


@each_page()
def test_every_training_command_is_valid(name, monkeypatch):
    """Experiment, options, keys and values; the parts are built by the tests of the experiments."""
    monkeypatch.chdir(ROOT)
    text = TEXTS[name].replace("\\\n", " ").replace("--processes N --process I", "--processes 2 --process 0")
    for line in re.findall(r"^    (?:pip install -e \. && )?python -m jaxseg\.train (.+)$", text, re.MULTILINE):
        command.parse_command_line(shlex.split(line), "train", "", _add_options)


def test_the_last_example_of_the_python_page_runs_as_written(tmp_path, monkeypatch):
    """But for the first state, which is made by one program in place of many."""
    made = state.init_state

    def init_state(model, tx, key, shape):
        return jax.jit(lambda key: made(model, tx, key, shape))(key)

    monkeypatch.setattr(state, "init_state", init_state)
    code = re.findall(r"```python\n(.*?)```", TEXTS["docs/python.md"], re.DOTALL)[-1]
    (tmp_path / "example.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert int(names["train_state"].step) == 1 and float(names["metrics"]["loss"]) > 0


def test_the_snippets_of_the_python_page_are_those_of_the_readme():
    """Those run in test_readme.py."""
    of_readme = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    assert re.findall(r"```python\n(.*?)```", TEXTS["docs/python.md"], re.DOTALL)[:3] == of_readme


def test_the_results_page_names_every_file_of_results():
    page = TEXTS["docs/results.md"]
    for path in sorted(p for p in RESULTS.rglob("*") if p.is_file()):
        inner = path.relative_to(RESULTS)
        if inner.parts[0] == "ablations":
            assert f"| `ablations/{inner.parts[1]}` |" in page and f"`{inner.name}`" in page, inner
        else:
            [row] = [
                line for line in page.splitlines() if line.startswith("| `") and f"`{inner}`" in line.split("|")[1]
            ]
            assert "`python benchmarks/" in row, inner


def test_the_results_page_has_the_command_of_each_ablation():
    for table in sorted((RESULTS / "ablations").glob("*/table.md")):
        [line] = re.findall(r"^    (python -m jaxseg\.sweep .+)$", table.read_text(encoding="utf-8"), re.MULTILINE)
        assert f"| `ablations/{table.parent.name}` | `{line}` |" in TEXTS["docs/results.md"]


def test_the_architecture_page_shows_every_part_on_its_floor():
    drawing = re.search(r"```text\n(.*?)```", TEXTS["docs/architecture.md"], re.DOTALL)[1]
    floors = [row for row in drawing.splitlines() if re.match(r" *\d+ \|", row)]
    heights = {}
    for row in floors:
        number, _, content = row.partition("|")
        heights |= {word: int(number) for word in re.findall(r"[\w.]+", content[:64])}
    commands = ("", "presets", "__main__", "models.__main__")
    known = [(part, row) for row, parts in enumerate(ROWS) for part in parts if part not in commands]
    for part, row in known:
        assert part in heights, f"docs/architecture.md does not show {part}"
        for other, other_row in known:
            if other_row < row:
                assert heights[other] <= heights[part], f"{other} lies below {part}"


def test_the_upgrade_page_lists_the_renamed_keys():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", TEXTS["docs/upgrading.md"], re.MULTILINE))
    assert rows == RENAMED


@each_page()
def test_every_configuration_key_that_a_page_names_exists(name):
    groups = {key.split(".")[0] for key in KEYS if "." in key}
    free_form = ("model.args.", "loss.args.", "optimizer.args.", "compile.options.")
    free_form += ("model.module", "model.variables")  # of the object that create_model returns
    names = re.findall(r"`(?:--config\.)?([a-z_]+\.[a-z_.]+)(?:=[^`]*)?`", TEXTS[name])
    files = (".py", ".md", ".json", ".png", ".npz", ".jsonl", ".safetensors", ".stablehlo", ".onnx")
    for key in names:
        if key.split(".")[0] in groups and not key.endswith(files):
            assert key in KEYS or key.startswith(free_form) or key in RENAMED or key in {f[:-1] for f in free_form}, key

"""The documentation builds without a warning, and its generated tables hold what the code and the results hold."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.config import KEYS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "extensions"))


def build(builder, out, *options):
    words = ["-W", "--keep-going", "-q", *options, "-b", builder, str(ROOT / "docs"), str(out)]
    command = [sys.executable, "-m", "sphinx", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="pip install -e '.[docs]'")
def test_the_documentation_has_no_warning(tmp_path):
    # Reads every page and resolves every link, and writes nothing. How defaults look has no warning.
    build("dummy", tmp_path, "-D", "autodoc_preserve_defaults=0")


@pytest.mark.slow  # `test_the_documentation_has_no_warning` does all but writing the pages
@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="pip install -e '.[docs]'")
def test_the_pages_are_written(tmp_path):
    build("html", tmp_path)
    page = (tmp_path / "configure.html").read_text(encoding="utf-8")
    assert all(key in page for key in KEYS)
    assert (tmp_path / "api" / "losses.html").is_file()


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_the_table_of_networks_says_which_network_a_number_is_of():
    from generated_tables import config_keys, network_numbers

    results = ROOT / "benchmarks" / "results"
    full = {row["experiment"]: row for row in json.loads((results / "zoo.json").read_text())["networks"]}
    shapes = {row["run"]: row for row in json.loads((results / "shapes-cpu.json").read_text())["runs"]}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in network_numbers().splitlines()]
    assert rows[0][1].startswith("full size") and rows[0][3].startswith("shapes variant")
    cells = {row[0].strip("`"): row[1:] for row in rows[2:]}
    assert cells.keys() == full.keys() | shapes.keys()
    unet = cells["unet"]
    assert unet[0] == f"{full['unet']['parameters'] / 1e6:.2f} M" and unet[2] == f"{shapes['unet']['parameters']:,}"
    assert abs(float(unet[3]) - shapes["unet"]["mean_iou"]) < 5e-4
    assert all(f"| `{key}` |" in config_keys() for key in KEYS)


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_the_table_of_faults_has_a_row_for_each():
    from generated_tables import faults_table

    rows = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))["faults"]
    lines = faults_table().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [[f"| {name}", str(row["times"])] for name, row in rows.items()]


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_docstrings_become_restructured_text():
    from plain_docstrings import restructured

    given = [
        "Sum of a * b of `x_` in `a | b`s.",
        "",
        "    python -m jaxseg",
        "",
        "image: f32[b,h,w]",
        "    of a batch",
        "",
        "Args:",
        "    x: an `array`.",
    ]
    expected = [
        r"Sum of a \* b of ``x_``\  in ``a | b``\ s.",
        "",
        "::",
        "",
        "    python -m jaxseg",
        "",
        "- image: f32[b,h,w]",
        "  of a batch",
        "",
        "Args:",
        r"    x: an ``array``\ .",
        "",
    ]
    assert [line for line in restructured(given) if line] == [line for line in expected if line]

"""The documentation builds without a warning, and its generated tables hold what the code and the results hold."""

import fnmatch
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.config import KEYS
from jaxseg.pretrained import catalogue
from jaxseg.pretrained.family import Packaged

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "extensions"))


def build(builder, out, *options):
    words = ["-W", "--keep-going", "-q", *options, "-b", builder, str(ROOT / "docs"), str(out)]
    command = [sys.executable, "-m", "sphinx", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="pip install -e '.[docs]'")
def test_the_documentation_has_no_warning(tmp_path):
    # Reads every page and resolves every link, and writes nothing. How defaults and quotes look has no warning.
    build("dummy", tmp_path, "-D", "autodoc_preserve_defaults=0", "-D", "smartquotes=0")


@pytest.mark.slow  # `test_the_documentation_has_no_warning` does all but writing the pages
@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="pip install -e '.[docs]'")
def test_the_pages_are_written(tmp_path):
    build("html", tmp_path)
    page = (tmp_path / "configure.html").read_text(encoding="utf-8")
    assert all(key in page for key in KEYS)
    assert (tmp_path / "api" / "losses.html").is_file()


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_the_tables_of_keys_and_networks_are_those_of_the_code_and_the_results():
    from generated_tables import config_keys, network_numbers

    assert network_numbers() == (ROOT / "benchmarks" / "results" / "zoo.md").read_text(encoding="utf-8")
    assert all(f"| `{key}` |" in config_keys() for key in KEYS)


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_the_table_of_faults_has_a_row_for_each():
    from generated_tables import faults_table

    rows = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))["faults"]
    lines = faults_table().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [[f"| {name}", str(row["times"])] for name, row in rows.items()]


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="pip install -e '.[docs]'")
def test_the_table_of_weights_has_where_each_name_is_and_its_licence():
    from generated_tables import published_weights

    stated = {}
    for line in published_weights().splitlines()[2:]:
        owners, name, places, licence = line.strip("| ").split(" | ")
        for owner in owners.split(", "):
            assert (owner, name) not in stated
            stated[owner, name] = [place.strip("`") for place in places.split(", ")], licence
    families, network = catalogue.families(), "the repository, as `model.weights`"
    rows = [((f"`{row.encoder}`", f"`{row.name}`"), row) for family in families for row in family.encoder_weights]
    rows += [((f"`{row.model}`", network), row) for family in families for row in family.network_weights]
    assert stated.keys() == {key for key, _ in rows}
    for key, row in rows:
        places, licence = stated[key]
        place = row.published.package if isinstance(row.published, Packaged) else row.published.repository
        assert any(fnmatch.fnmatchcase(place, pattern) for pattern in places), row
        assert licence == (f"{row.licence} ({row.stated})" if row.stated else row.licence)
    assert "```{published-weights}\n```" in (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")


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

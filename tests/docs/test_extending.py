"""The diffs of docs/extending.md apply to the package, each on its own, and their checks pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {
    text.partition("\n")[0]: text
    for text in (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("\n## ")[1:]
}
NAMES = ["A loss", "A network", "An encoder", "A data set", "An augmentation", "A metric"]


def block(name: str, language: str) -> str:
    """Returns the one block of a section in a language."""
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[name], re.DOTALL | re.MULTILINE)
    return text


def apply(name: str, checkout: Path) -> None:
    """Applies the diff of a section; an offset is allowed, another context is not."""
    command = ["git", "apply", "-"]
    done = subprocess.run(command, cwd=checkout, input=block(name, "diff"), capture_output=True, text=True)
    assert done.returncode == 0, f"docs/extending.md, {name}: {done.stderr}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package."""
    shutil.copytree(ROOT / "jaxseg", tmp_path / "jaxseg", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_there_is_an_example_of_each_kind():
    assert list(SECTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_diff_applies_alone_and_is_formatted(name, checkout):
    apply(name, checkout)
    changed = re.findall(r"^\+\+\+ b/(.+)$", block(name, "diff"), re.MULTILINE)
    for command in (["check"], ["format", "--check"]):
        words = [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), *changed]
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_checks_pass_with_all_of_them(checkout):
    for name in NAMES:
        apply(name, checkout)
    (checkout / "check.py").write_text("\n".join(block(name, "python") for name in NAMES))
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "check.py"], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

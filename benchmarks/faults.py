"""Plants faults in real trainings and records what each did: the tests in `tests/faults`, with their figures.

    python benchmarks/faults.py --out benchmarks/results/faults [-k EXPRESSION]

It writes OUT.json, from which docs/faults.md has its table; rows of faults that are not planted this time stay. About
40 minutes on two cores. A file system can be mounted by root alone; without it two faults are left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lib.commands import this_command

from jaxseg.files import write_text
from jaxseg.run.provenance import package_versions
from jaxseg.run.revision import git_state

ROOT = Path(__file__).resolve().parents[1]
RECORD = "JAXSEG_RECORD_FAULTS"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="PREFIX", help="the file is PREFIX.json")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="which tests, as for pytest; empty: all")
    options = parser.parse_args(argv)
    out = Path(f"{options.out}.json")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "rows.json"
        words = [sys.executable, "-m", "pytest", "-m", "slow or not slow", "tests/faults", "-k", options.k]
        status = subprocess.run(words, cwd=ROOT, env={**os.environ, RECORD: str(record)}).returncode
        rows = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    add(out, rows)
    return status


def add(out: Path, rows: dict[str, dict]) -> None:
    """Adds rows to the file of results, each with the versions and the commit that it was measured with."""
    state = git_state()
    measured = {"commit": state["commit"] if state else None, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    measured |= {"packages": package_versions()}
    known = json.loads(out.read_text(encoding="utf-8"))["faults"] if out.exists() else {}
    known |= {name: {**row, **measured} for name, row in rows.items()}
    write_text(out, json.dumps({"command": this_command(), "faults": known}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""How long the first step takes: `python benchmarks/startup.py --out NAME [--config experiments/X.py]`.

Seconds from the start of `python -m jaxseg.train` to the end of its first step, without compiled programs
(cold) and with the programs that an earlier run left on disk (warm).
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib.timing import environment, make_parser, save, table

from jaxseg.config.command import run_command
from jaxseg.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
SHORT = {"steps": 2, "schedule.warmup": 0, "log.every": 1, "log.images": 0, "log.tensorboard": False}
SMALLEST = {
    "data.size": "16,16",
    "batch_size": 8,
    "eval.batch_size": 8,
    "data.shapes_train": 8,
    "data.shapes_val": 8,
    "model.args.widths": "(4,8)",
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--config",
        metavar="FILE[:ARG]",
        default="experiments/resunet.py",
        help="the experiment (default experiments/resunet.py)",
    )
    options, overrides = parser.parse_known_args(argv)
    keys = SHORT | (SMALLEST if options.smallest else {})
    command = [
        sys.executable,
        "-m",
        "jaxseg.train",
        "--config",
        options.config,
        *(f"--config.{key}={value}" for key, value in keys.items()),
        *overrides,
    ]
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(1 if options.smallest else options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name in seconds:
                arguments = [f"--workdir={folder}/{name}", f"--config.compile.cache={folder}/programs"]
                seconds[name].append(first_step([*command, *arguments], Path(folder) / name / "log.jsonl"))
                print(name, f"{seconds[name][-1]:.1f} s", file=sys.stderr)
    record = {
        "environment": environment(),
        "config": options.config,
        "overrides": [*(f"--config.{key}={value}" for key, value in keys.items()), *overrides],
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "all_seconds": seconds,
    }
    save(options.out, record, describe(record))
    return 0


def first_step(command: list[str], log: Path) -> float:
    """Returns the seconds from the start of a run to the line of its first step in the log; waits for its end.

    Raises:
        ConfigError: if the run fails.
    """
    variables = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    begin, seconds = time.perf_counter(), None
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=words, stderr=words)
        while process.poll() is None:
            if seconds is None and log.exists() and log.stat().st_size:
                seconds = time.perf_counter() - begin
                assert json.loads(log.read_text().splitlines()[0])["step"] == 1
            time.sleep(0.02)
        if process.returncode or seconds is None:
            words.seek(0)
            lines = words.read().strip().splitlines() or [f"status {process.returncode}"]
            raise ConfigError(f"{shlex.join(command)} failed: {lines[-1].removeprefix('error: ')}")
    return seconds


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    rows = [(name, f"{value:.1f}") for name, value in record["seconds"].items()]
    words = shlex.join(["--config", record["config"], *record["overrides"]])
    note = f"Seconds from the start of `python -m jaxseg.train {words}` to the end of step 1."
    return table(("compiled programs", "seconds"), rows, record, note)


if __name__ == "__main__":
    sys.exit(run_command(main))

"""How long a user waits for a whole training: `python benchmarks/whole_run.py --out NAME [--config experiments/X.py]`.

Wall time from the start of the command to its end, with start-up, compilation, reading, every evaluation and checkpoint
and the pictures: `python -m jaxseg.train` without compiled programs (cold) and with those of an earlier run (warm),
beside a plain PyTorch loop with a DataLoader (`lib/torch_run.py`) that trains the same network on the same images with
batches of the same size and the same loss, optimiser and schedule. The experiment's network, loss and optimiser must be
those of `experiments/resunet.py`. Both mirror images and do nothing else to them, and the learning rate is a cosine:
the experiment's other augmentations and schedule are replaced.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib.timing import at_least, cores, environment, make_parser, save, table

from jaxseg.config import ConfigDict, command, flatten
from jaxseg.errors import ConfigError
from jaxseg.run.data import load_problem, with_steps_of_epochs

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("jaxseg cold", "jaxseg warm", "torch eager")
NEEDED = {"model.name": "resunet", "loss.terms": "cross_entropy + dice", "optimizer.name": "adamw"}  # of `torch_run`
PLAIN = {  # what both programs have
    "schedule.name": "cosine",
    "schedule.end": "0.0",
    "augment.zoom": "(1.0,1.0)",
    "augment.shear": "0.0",
    "augment.rotate": "0.0",
    "augment.crop": "()",
    "augment.brightness": "0.0",
    "augment.contrast": "0.0",
    "augment.saturation": "0.0",
}
SMALLEST = {
    "steps": "2",
    "schedule.warmup": "0",
    "data.size": "16,16",
    "batch_size": "8",
    "eval.batch_size": "8",
    "data.shapes_train": "16",
    "data.shapes_val": "8",
    "model.args.widths": "(4,8)",
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", metavar="FILE[:ARG]", default="experiments/resunet.py", help="the experiment")
    parser.add_argument("--workers", type=at_least(1), default=2, help="of torch's DataLoader (default 2)")
    options, overrides = parser.parse_known_args(argv)
    try:
        import torch  # noqa: F401
    except ImportError:
        print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
        return 1
    keys = PLAIN | (SMALLEST if options.smallest else {})
    words = [*(f"--config.{key}={value}" for key, value in keys.items()), *overrides]
    config = command.load_experiment(options.config)
    command.parse_overrides(config, words)
    for key, value in NEEDED.items():
        if (given := flatten(config)[key]) != value:
            raise ConfigError(f"{key} is {given!r}, but the PyTorch loop has {value!r} alone.")
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    scores: dict[str, float] = {}
    for _ in range(1 if options.smallest else options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name in PROGRAMS:
                workdir = Path(folder) / name.replace(" ", "-")
                workdir.mkdir()
                line = command_of(name, options, words, config, workdir)
                seconds[name].append(wall_time(line, workdir))
                scores[name] = score_of(name, workdir)
                print(f"{name}: {seconds[name][-1]:.1f} s, mIoU {scores[name]:.3f}", file=sys.stderr)
    record = {
        "environment": environment(),
        "config": options.config,
        "overrides": words,
        "workers": options.workers,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "all_seconds": seconds,
        "mean_iou": scores,
    }
    save(options.out, record, describe(record))
    return 0


def command_of(
    name: str, options: argparse.Namespace, words: list[str], config: ConfigDict, workdir: Path
) -> list[str]:
    """Returns the command line of one program."""
    if name == "torch eager":
        file = workdir / "config.json"
        file.write_text(json.dumps(resolved(config).to_dict()))
        return [sys.executable, "-m", "lib.torch_run", str(file), str(workdir), str(options.workers)]
    programs = f"--config.compile.cache={workdir.parent}/programs"
    return [
        *(sys.executable, "-m", "jaxseg.train", "--config", options.config),
        *(f"--workdir={workdir}", programs, *words),
    ]


def resolved(config: ConfigDict) -> ConfigDict:
    """Returns the configuration with the number of steps that its epochs are."""
    return with_steps_of_epochs(config, len(load_problem(config).train))


def wall_time(line: list[str], workdir: Path) -> float:
    """Returns the seconds of a command from its start to its end.

    Raises:
        ConfigError: if it fails.
    """
    variables = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    variables |= {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(cores())}
    begin = time.perf_counter()
    with (workdir.parent / f"{workdir.name}.txt").open("w+") as words:
        done = subprocess.run(line, cwd=ROOT, env=variables, stdout=words, stderr=words)
        seconds = time.perf_counter() - begin
        words.seek(0)
        lines = words.read().strip().splitlines()
    if done.returncode:
        raise ConfigError(f"{' '.join(line[:4])} failed: {(lines or ['no message'])[-1].removeprefix('error: ')}")
    return seconds


def score_of(name: str, workdir: Path) -> float:
    """Returns the mIoU of the validation split at the last step."""
    if name == "torch eager":
        return json.loads((workdir / "result.json").read_text())["mean_iou"]
    log = [json.loads(row) for row in (workdir / "log.jsonl").read_text().splitlines()]
    return [row["mean_iou"] for row in log if row["split"] == "val"][-1]


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    least = {name: min(values) for name, values in record["all_seconds"].items()}
    rows = [
        (
            name,
            f"{record['seconds'][name]:.1f}",
            f"{least[name]:.1f}",
            f"{record['seconds']['torch eager'] / record['seconds'][name]:.2f} x",
            f"{record['mean_iou'][name]:.3f}",
        )
        for name in PROGRAMS
    ]
    words = " ".join(["--config", record["config"], *record["overrides"]])
    note = (
        f"Seconds from the start of a whole training to its end: `python -m jaxseg.train {words}`, and the same in a "
        "plain PyTorch loop with a DataLoader. Cold: nothing is compiled before."
    )
    columns = ("program", "median s", "shortest s", "PyTorch's time over this", "validation mIoU")
    return table(columns, rows, record, note)


if __name__ == "__main__":
    sys.exit(command.run_command(main))

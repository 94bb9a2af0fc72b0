"""Starts a run again elsewhere from its stored configuration, and compares the two curves.

    python -m jaxseg.reproduce WORKDIR [--workdir NEW] [--steps N] [--tolerance .001] [--config.data.dir=PATH]

The keys of `jaxseg.config.FREE_KEYS` can be changed, for data in another place or another machine.

First it says in what this machine differs from what the run recorded in run.json: packages, the build of XLA, the
processor, flags, environment, commit and data. Then it trains in NEW, which resumes where it was stopped, and compares
the loss, the norms and the scores of log.jsonl at the same steps. The exit status is 0 if no number differs by more
than the tolerance: a share of numbers above 1, an absolute difference below.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, command, set_key
from jaxseg.config.parser import CommandParser, split_overrides
from jaxseg.data.fingerprint import fingerprint
from jaxseg.data.reading import Reading
from jaxseg.errors import ConfigError, counted, some
from jaxseg.inference.options import whole_number
from jaxseg.run.check import check
from jaxseg.run.data import load_problem, reading_of
from jaxseg.run.load import forget_places, override_free
from jaxseg.run.provenance import describe_start, read_starts
from jaxseg.run.report import LOG_FILE, read_log
from jaxseg.run.workdir import read_config, read_data
from jaxseg.train import train

_RECORDED = ("git", "diff", "device", "compiler_options", "convolutions", "attention")
_RECORDED += ("python", "packages", "xla", "environment")
_TIMED = "images_per_second"


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.reproduce") -> int:
    """Runs the command line; returns the exit status: 0 if the curve is reproduced, 1 if not or after an error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    words, overrides = split_overrides(argv)
    options = _parser(program).parse_args(words)
    return command.run_command(lambda: _reproduce(options, overrides, f"{program} {shlex.join(argv)}"))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Start a run again elsewhere and compare the curves.",
        epilog="--config.data.dir=PATH and the other keys that change nothing about what was trained can be given too.",
    )
    parser.add_argument("run", metavar="WORKDIR", help="the run, which is only read")
    parser.add_argument("--workdir", metavar="NEW", help="where it is repeated (default WORKDIR-reproduced)")
    parser.add_argument(
        "--steps", metavar="N", type=whole_number(1), help="stop after this step and compare the beginning"
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=_tolerance,
        default=1e-3,
        help="largest difference of a number that counts as reproduced: a share above 1, absolute below (default "
        ".001); 0: bit for bit",
    )
    return parser


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return value


def _reproduce(options: argparse.Namespace, overrides: Sequence[str], again: str) -> int:
    run = expanded(options.run).absolute()
    config = read_config(run)
    forget_places(config, overrides)
    set_key(config, "checkpoint.copy_to", "")  # else its copies come back, and are compared with themselves
    override_free(config, overrides)
    if config.checkpoint.copy_to:
        raise ConfigError("A repetition has no checkpoint.copy_to, since it would go on from the copies of the run.")
    before = curve(run, options.steps)
    if not before:
        logged = [step for _, step in curve(run)] if options.steps else []
        if logged:
            raise ConfigError(
                f"{run / LOG_FILE} has no line up to step {options.steps}, and its first is of step {min(logged)}; "
                f"give --steps {min(logged)} or more."
            )
        raise ConfigError(f"{run / LOG_FILE} has no line: there is nothing to compare with.")
    new = expanded(options.workdir).absolute() if options.workdir else run.with_name(f"{run.name}-reproduced")
    if new.resolve() == run.resolve():
        raise ConfigError(f"--workdir {new} is the run itself; give another directory for its repetition.")
    compiler.keep_programs(config.compile.cache)
    check(config, before_training=True)
    print(_about_here(run, config), flush=True)
    train(config, new, again, until=options.steps)
    result = compare(before, curve(new, options.steps), options.tolerance)
    print(f"\n{result}\n{run} and {new}")
    return 0 if result.reproduced else 1


def _about_here(run: Path, config: ConfigDict) -> str:
    """Returns what differs here from what the run recorded, a line each.

    Raises:
        ConfigError: if the data have other classes than the run.
        DataError: if the data cannot be opened.
    """
    problem = load_problem(config)
    known, classes = read_data(run).classes, problem.train.info.classes
    if known != tuple(classes):
        raise ConfigError(
            f"The run in {run} was trained on the classes {some(known)}, and the data here have {some(classes)}; give "
            "the data of the run."
        )
    starts = read_starts(run)
    if not starts:
        return f"{run} has no run.json: what it was trained with is not known."
    now = describe_start(config, 0, "")
    now["data"] = {
        "train": fingerprint(problem.train, reading=reading_of(config)),
        "val": fingerprint(problem.val, reading=Reading(timeout=config.data.timeout)),
    }
    lines, unknown = differences(starts[0], now)
    several = f" (the first of {counted(len(starts), 'start')})" if len(starts) > 1 else ""
    lines = lines or ["nothing of what it recorded"]
    missing = f"\nnot recorded then: {', '.join(unknown)}" if unknown else ""
    return "\n  ".join([f"What differs here from {run}{several}:", *lines]) + missing


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns a line for each recorded thing that differs between two starts, and the groups that `then` lacks.

    Of the pixels of data those are compared of which both have a digest.
    """
    groups = (*_RECORDED, "data")
    unknown = [group for group in groups if group not in then or (group == "data" and not then[group])]
    lines = []
    for group in (group for group in groups if group not in unknown):
        a, b = (dict(_flat(group, start[group])) for start in (then, now))
        for name in dict.fromkeys((*a, *b)):
            one_side = name not in a or name not in b
            if (one_side and ".pixels." in name) or name == "diff.text":
                continue
            old, new = (values[name] if name in values else None for values in (a, b))
            if old != new:
                lines.append(f"{name}: {_shown(old, new)} then, {_shown(new, old)} now")
    return lines, unknown


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, each in value.items():
        yield from _flat(f"{name}.{key}", each)


def _shown(value: Any, other: Any) -> str:
    """Returns a value; of two long lists of words what the other lacks."""
    text = "nothing" if value in (None, "") else str(value)
    if len(text) <= 60 or not isinstance(other, str):
        return text if len(text) <= 200 else f"{text[:200]}..."
    return some([word for word in text.split() if word not in other.split()], 10)


def curve(workdir: Path, steps: int | None = None) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns {(split, step): {name: number}} of the log of a run, up to a step; {} if there is none."""
    if not (workdir / LOG_FILE).is_file():
        return {}
    lines = [line for line in read_log(workdir / LOG_FILE) if steps is None or line["step"] <= steps]
    return {
        (str(line["split"]), line["step"]): dict(
            (name, value)
            for key, each in line.items()
            if key not in ("split", "step", _TIMED)
            for name, value in _numbers(key, each)
        )
        for line in lines
        if "split" in line
    }


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        yield name, value
        return
    for key, each in entries:
        yield from _numbers(f"{name}/{key}", each)


class Difference(NamedTuple):
    """A number that differs between two curves; `size` as in `compare`."""

    step: int
    split: str
    name: str
    then: Any
    now: Any
    size: float

    def __str__(self) -> str:
        return f"{self.split} {self.name} at step {self.step}: {self.then} then, {self.now} now"


class Comparison(NamedTuple):
    """How two curves compare.

    Attributes:
        lines: the number of lines of the first.
        steps: its first and last step.
        missing: the lines that the second lacks.
        first: what differs first; None: nothing.
        largest: what differs most.
        tolerance: the largest difference that counts as reproduced.
    """

    lines: int
    steps: tuple[int, int]
    missing: tuple[tuple[str, int], ...]
    first: Difference | None
    largest: Difference | None
    tolerance: float

    @property
    def reproduced(self) -> bool:
        return not self.missing and (self.largest is None or self.largest.size <= self.tolerance)

    def __str__(self) -> str:
        what = f"{counted(self.lines, 'line')} of steps {self.steps[0]} to {self.steps[1]}"
        missing = (
            [f"Missing: {some(f'{split} at step {step}' for split, step in self.missing)}."] if self.missing else []
        )
        if self.first is None or self.largest is None:
            return "\n".join(
                [f"{'The others are' if missing else 'The curve is'} equal bit for bit: {what}.", *missing]
            )
        verdict = f"within {self.tolerance:g}" if self.reproduced else f"not within {self.tolerance:g}"
        first = f"The first step that differs: {self.first}."
        largest = f"The largest difference is {self.largest.size:.2g}: {self.largest}."
        return "\n".join([f"The curve is {verdict}: {what}.", first, largest, *missing])


def compare(
    then: Mapping[tuple[str, int], Mapping[str, Any]],
    now: Mapping[tuple[str, int], Mapping[str, Any]],
    tolerance: float = 0.0,
) -> Comparison:
    """Compares two curves at the steps of the first: |a - b| / max(1, |a|, |b|) of each number.

    A number that only one of them has, or that is not finite in one of them, differs infinitely.

    Args:
        then, now: of `curve`; the first has a line.
        tolerance: the largest difference that counts as reproduced.
    """
    found = []
    for split, step in then:
        if (split, step) not in now:
            continue
        a, b = then[split, step], now[split, step]
        for name in dict.fromkeys((*a, *b)):
            old, new = (values[name] if name in values else "none" for values in (a, b))
            if old != new:
                found.append(Difference(step, split, name, old, new, _size(old, new)))
    return Comparison(
        lines=len(then),
        steps=(min(step for _, step in then), max(step for _, step in then)),
        missing=tuple(line for line in then if line not in now),
        first=min(found, key=lambda each: each.step, default=None),
        largest=max(found, key=lambda each: each.size, default=None),
        tolerance=tolerance,
    )


def _size(a: Any, b: Any) -> float:
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return math.inf
    return abs(a - b) / max(1.0, abs(a), abs(b))


if __name__ == "__main__":
    sys.exit(main())

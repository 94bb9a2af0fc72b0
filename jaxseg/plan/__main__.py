"""Reads a folder of images and masks and writes a configuration for it, with the reason of each choice: `jaxseg plan`.

    python -m jaxseg.plan DIR [--out plan.py] [--kind photo|aerial|microscopy|medical|text] [--minutes M]
                          [--config.KEY=VALUE ...]

Every example of the training and validation split is read once. The file is an experiment: `jaxseg train plan.py`. What
was found in the data is beside it, in `plan.json`. The same data and machine give the same file; with --minutes the
number of steps follows a measurement.
"""

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import jax

from jaxseg import compiler
from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, default_config, set_key, update, validate
from jaxseg.config.command import read_overrides, run_command
from jaxseg.config.parser import CommandParser, number_in, split_overrides
from jaxseg.data.base import Source
from jaxseg.data.batching import cores
from jaxseg.data.channels import read_channels
from jaxseg.data.folder import FolderSource
from jaxseg.data.layout import existing
from jaxseg.data.sources import make_source
from jaxseg.errors import ConfigError, DataError, counted, printable
from jaxseg.files import write_text
from jaxseg.plan.fingerprint import Fingerprint, fingerprint
from jaxseg.plan.planning import Plan, make_plan
from jaxseg.plan.rules import Kind, Machine
from jaxseg.plan.writing import text_of
from jaxseg.run.data import reading_of
from jaxseg.run.workdir import write_or_refuse


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.plan") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called, for the usage line."""
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    options = _parser(program).parse_args(words)
    return run_command(lambda: _plan(options, overrides))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=program,
        description="Read a folder of images and masks, and write a configuration for it, with reasons.",
        epilog="--config.KEY=VALUE sets a key whatever the rules say, such as --config.data.palette for masks of "
        "colours; jaxseg train --help lists the keys.",
    )
    parser.add_argument("directory", metavar="DIR", help="the folder, with images/ and masks/, or train/ and val/")
    parser.add_argument("--out", metavar="FILE", default="plan.py", help="the file to write, new (default %(default)s)")
    parser.add_argument("--kind", choices=get_args(Kind), help="what the images are (default: guessed from the data)")
    parser.add_argument(
        "--minutes",
        type=number_in(0, 1e6, "a number of minutes above 0"),
        default=0.0,
        metavar="M",
        help="how long the training may take on this machine (default: by passes over the data)",
    )
    return parser


def _plan(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    directory = str(existing(options.directory).absolute())
    out = free_file(options.out)
    given = dict(read_overrides(overrides))
    config = data_config(directory, given)
    compiler.keep_programs(config.compile.cache)
    with _naming_the_check(options.directory, overrides):
        data = _read(config, given)
    machine = Machine(jax.default_backend(), jax.device_count())
    plan = make_plan(data, machine, directory=directory, given=given, kind=options.kind, minutes=options.minutes)
    content = {"fingerprint": dataclasses.asdict(data), "kind": plan.guess._asdict(), "machine": machine._asdict()}
    _write(out, text_of(plan, out.name), content)
    print(_summary(plan, out))
    return 0


def _write(out: Path, text: str, content: dict[str, Any]) -> None:
    """Writes a plan and its JSON, both or none; raises ConfigError if they cannot be written."""
    try:
        write_text(out, text)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}.") from error
    try:
        write_or_refuse(out.with_suffix(".json"), content)
    except ConfigError:
        out.unlink(missing_ok=True)
        raise


def _read(config: ConfigDict, given: dict[str, Any]) -> Fingerprint:
    """Returns the fingerprint of the data, and sets `data.channels` to what they have unless it is given."""
    splits = open_splits(config)
    channels = (
        given["data.channels"] if "data.channels" in given else channels_of(splits[config.data.train_split], config)
    )
    if channels != config.data.channels:
        update(config, data__channels=channels)
        splits = open_splits(config)
    reading = ", ".join(f"{counted(len(source), 'image')} of {name}" for name, source in splits.items())
    print(f"Reading {reading} ...", flush=True)
    return fingerprint(splits, reading_of(config))


@contextlib.contextmanager
def _naming_the_check(directory: str, overrides: Sequence[str]) -> Iterator[None]:
    """Ends the sentence of a DataError, the first that was met, with the command that finds all of them."""
    try:
        yield
    except DataError as error:
        command = shlex.join(["jaxseg", "check", directory, *overrides])
        raise DataError(f"{error} All that is wrong in the folder: {command}") from error


def free_file(path: str) -> Path:
    """Returns the path of a plan to write; raises ConfigError unless it and its JSON are new and it ends in .py."""
    out = expanded(path)
    if out.suffix != ".py":
        raise ConfigError(f"--out {path} is no Python file; a plan ends in .py, such as plan.py.")
    for file in (out, out.with_suffix(".json")):
        if file.exists():
            raise ConfigError(
                f"{file} exists already, and a person may have changed it: give another file with --out, or remove it."
            )
    return out


def data_config(directory: str, given: dict[str, Any]) -> ConfigDict:
    """Returns a configuration that opens the data of a folder; raises ConfigError for keys that do not fit."""
    config = default_config()
    update(config, data__source="folder", data__dir=directory)
    if "data.channels" in given:  # of any number of channels; the plan has the measured ones
        update(config, data__mean=(0.5,), data__std=(0.25,))
    for key, value in given.items():
        set_key(config, key, value)
    if config.data.multilabel:
        raise ConfigError(
            "jaxseg plan counts pixels of one class, of which data.multilabel allows several or none; "
            "experiments/multilabel.py is a configuration to start from."
        )
    validate(config)
    return config


def open_splits(config: ConfigDict) -> dict[str, Source]:
    """Returns the training and validation splits; raises DataError if one of them cannot be used."""
    return {split: make_source(config, split) for split in (config.data.train_split, config.data.val_split)}


def channels_of(source: Source, config: ConfigDict) -> int:
    """Returns the most channels of the images of a folder, 1 if all are grey; see `read_channels`.

    With data.on_error=skip files that cannot be read do not count.
    """
    if not isinstance(source, FolderSource):
        return source.info.channels

    def of_file(path: Path) -> int:
        try:
            return read_channels(path, exact=bool(config.data.range))
        except DataError:
            if config.data.on_error == "stop":
                raise
            return 0

    with ThreadPoolExecutor(cores()) as pool:
        return max(pool.map(of_file, (pair.image for pair in source.pairs))) or config.data.channels


def _summary(plan: Plan, out: Path) -> str:
    lines = [f"{heading}: {choice.reason}" for heading, choices in plan.choices.items() for choice in choices]
    notes = [f"To look at: {note}" for note in plan.notes]
    end = f"\nWritten: {out}, with the reason of each choice. To train: jaxseg train {out}"
    return "\n".join(map(printable, [*lines, *notes])) + printable(end).replace("\\n", "\n")


if __name__ == "__main__":
    sys.exit(main())

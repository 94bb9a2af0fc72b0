"""Lists the networks, and shows the cost of one: `python -m jaxseg.models [NAME [--encoder NAME] [--size 512x512]]`."""

import argparse
import ast
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from flax.errors import FlaxError

from jaxseg import models
from jaxseg.config.command import run_command
from jaxseg.config.parser import CommandParser
from jaxseg.errors import ConfigError, first_line, nearest
from jaxseg.models import encoders, summary


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxseg.models") -> int:
    """Runs the command line; returns the exit status. `program` is how the command is called."""
    return run_command(lambda: _run(_parser(program).parse_args(argv), program))


def _parser(program: str) -> argparse.ArgumentParser:
    what = (__doc__ or "").partition(":")[0]
    parser = CommandParser(prog=program, description=f"{what}.")
    parser.add_argument("name", nargs="?", help="a network, or an encoder; without it all of them are listed")
    parser.add_argument("--encoder", metavar="NAME", help="the encoder of the network")
    parser.add_argument("--num-classes", type=int, default=21, metavar="K", help="classes (default 21)")
    parser.add_argument(
        "--size", default="512x512", metavar="HxW", help="height x width of the image (default 512x512)"
    )
    parser.add_argument("--channels", type=int, default=3, metavar="C", help="channels of the image (default 3)")
    parser.add_argument(
        "--batch", type=int, default=8, metavar="B", help="images in a batch, for the memory (default 8)"
    )
    parser.add_argument("--depth", type=int, default=2, metavar="D", help="levels of modules shown (default 2)")
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a field of the network, such as widths=(16,32); encoder_args.KEY=VALUE for its encoder's",
    )
    return parser


def _run(options: argparse.Namespace, program: str) -> int:
    if options.name is None:
        if options.encoder is not None or options.arg:
            raise ConfigError("--encoder and --arg need the name of a network.")
        print("networks, with the default encoder of those that take any (--encoder NAME):", *_networks(), sep="\n  ")
        print("encoders:", *encoders.names(), sep="\n  ")
        print(f"\n{program} NAME shows the modules, parameters, operations and memory of one.")
        return 0
    size = _size(options.size)
    for name in ("num_classes", "channels", "batch"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}.")
    try:
        model = _build(options)
        rows = summary.modules(model, size, options.channels)
        totals = summary.totals(model, size, options.channels, options.batch)
    except (ValueError, TypeError, FlaxError) as error:
        first = first_line(error)
        raise ConfigError(first if first.endswith("?") else f"{first}.") from error
    print(table(rows, options.depth))
    print(describe(totals, rows[0].flops, size, options.batch))
    return 0


def _networks() -> list[str]:
    """Returns a line for each network: its name, and its default encoder if it takes others."""
    default = models.with_encoder()
    width = max(map(len, models.names()))
    return [f"{name:{width}}  {default[name] or 'its own'}" if name in default else name for name in models.names()]


def _build(options: argparse.Namespace) -> Any:
    fields: dict[str, Any] = {}
    for text in options.arg:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--arg must be KEY=VALUE, got {text!r}.")
        *parents, leaf = key.split(".")
        node = fields
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _value(value)
    if options.name in encoders.names() and options.name not in models.names():
        if options.encoder is not None:
            raise ConfigError(f"{options.name} is an encoder itself; --encoder is an option of networks.")
        return encoders.build(options.name, **fields)
    if options.name not in models.names():
        known = (*models.names(), *encoders.names())
        raise ConfigError(f"There is no network or encoder {options.name!r}.{nearest(options.name, known)}")
    if options.encoder is not None:
        fields["encoder"] = options.encoder
    return models.build(options.name, num_classes=options.num_classes, **fields)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except Exception:  # text that is no literal; nested deeply enough, it raises other classes than ValueError
        return text


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ConfigError(f"--size must be HEIGHTxWIDTH in pixels, such as 512x512, got {text!r}.")
    return int(match[1]), int(match[2])


def table(rows: Sequence[summary.Row], depth: int) -> str:
    """Returns the modules down to `depth` as text, indented by it; parameters and operations include those inside.

    Args:
        rows: of `summary.modules`.
        depth: 0 for the network without its modules.
    """
    lines = [("module", "class", "output", "parameters", "GFLOPs")]
    for row in rows:
        names = row.path.split("/") if row.path else []
        if len(names) > depth:
            continue
        shape = "" if row.shape is None else " x ".join(map(str, row.shape))
        name = "  " * len(names) + (names[-1] if names else "(all)")
        lines.append((name, row.kind, shape, f"{row.parameters:,}", f"{row.flops / 1e9:.3f}"))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    aligned = ("<", "<", "<", ">", ">")
    return "\n".join(
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(line, aligned, widths)).rstrip() for line in lines
    )


def describe(totals: summary.Totals, products: int, size: tuple[int, ...], batch: int) -> str:
    """Returns the totals as text.

    Args:
        totals: of `summary.totals`.
        products: operations of the network's convolutions and matrix products, from its row of the table.
        size: height and width of the image.
        batch: images in a batch.
    """
    training = f"{totals.training_bytes / 2**30:.2f} GiB in training with Adam (float32; XLA's fusion needs less)"
    if math.isnan(totals.training_bytes):
        training = "no training: a batch norm would have a single value a channel; give a larger --size or --batch"
    return (
        f"parameters: {totals.parameters:,} (and {totals.statistics:,} running statistics)\n"
        f"GFLOPs for an image of {size[0]} x {size[1]}: {products / 1e9:.3f} in the table, which counts convolutions "
        f"and matrix products, padding included; {totals.flops / 1e9:.3f} by XLA, which counts every operation "
        "except those on padding\n"
        f"memory, estimated, with batches of {batch}: {totals.inference_bytes / 2**30:.2f} GiB in evaluation, "
        + training
    )


if __name__ == "__main__":
    sys.exit(main())

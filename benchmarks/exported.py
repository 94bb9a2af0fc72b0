"""Which networks export: `python benchmarks/exported.py --out benchmarks/results/exported`.

Each network of the zoo, and each family of encoders under FPN, with few channels and random parameters, is exported
to StableHLO and to ONNX as a program for images of any batch and size, whose network sees every size too
(data.fit=crop). Both files run, in JAX and in onnxruntime, at a size at which they were not traced; the table has the
largest difference of a probability from JAX's own program, and the pixels of another class that are no ties.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jax import export  # noqa: F401  (jax.export is a module of its own)
from lib.timing import environment, result_file

from jaxseg.config import command
from jaxseg.errors import ConfigError, JaxsegError, first_line, nearest
from jaxseg.export.program import make_program

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from helpers import exported  # noqa: E402
from helpers.tiny_models import ENCODERS, TINY  # noqa: E402

FAMILIES = ("convnext_tiny", "efficientnet_b0", "hrnet_w18", "mit_b0", "mobilenet_v2", "mobilenet_v3_large", "plain")
FAMILIES += ("residual", "resnet18d", "resnet50", "resnext50_32x4d", "seresnet50", "vgg11", "vgg11_bn")
FAMILIES += ("maxvit_tiny", "mscan_tiny", "pvt_v2_b0", "sam2_hiera_tiny", "stdc1", "swin_tiny", "swinv2_tiny")
FAMILIES += ("vit_base_dinov2_reg", "vit_base_dinov3")
FIXED = {"attention_decoder": (32, 32), "pan": (32, 32)}  # networks that choose their layers by the size of the image
SIZE = (2, 33, 75)
BOUND = 1e-4


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where a network does not pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--names", nargs="*", default=[], metavar="NAME", help="networks and encoders (default: all)")
    options = parser.parse_args(argv)
    names = options.names or [*(name for name in TINY if name != "dcgan"), *FAMILIES]
    for name in names:
        if name not in TINY and name not in ENCODERS:
            raise ConfigError(f"There is no network or encoder {name!r}.{nearest(name, (*TINY, *ENCODERS))}")
    rows = []
    for name in names:
        rows.append(check(name))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"environment": environment(), "size": SIZE, "bound": BOUND, "networks": rows}
        result_file(options.out, ".json").write_text(json.dumps(record, indent=1) + "\n")
        result_file(options.out, ".md").write_text(markdown(rows))
    return 0 if all(row[form]["passes"] for row in rows for form in ("stablehlo", "onnx")) else 1


def check(name: str) -> dict[str, Any]:
    """Returns how both files of a network, or of FPN over an encoder, differ from the network."""
    if name in TINY:
        parts = exported.tiny_parts(name, TINY[name], data__fit="crop")
    else:
        args = {"width": 8, "branch_width": 4, "finest": 1, "encoder": name, "encoder_args": ENCODERS[name]}
        parts = exported.tiny_parts("fpn", args, data__fit="crop")
    fixed = FIXED[name] if name in FIXED else None
    program = make_program(parts, parts.model, exported.shaken(parts), probabilities=True, size=fixed)
    expected = exported.computed(program, SIZE)
    row: dict[str, Any] = {"name": name, "kind": "network" if name in TINY else "encoder", "fixed_size": fixed}
    for form, run in (("stablehlo", exported.run_stablehlo), ("onnx", exported.run_onnx)):
        try:
            found = exported.difference(run(program, SIZE), expected)
        except JaxsegError as error:
            row[form] = {"passes": False, "reason": first_line(error)}
            continue
        row[form] = {**found._asdict(), "passes": found.probability <= BOUND and found.classes == 0}
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table."""
    lines = ["| network | sizes | StableHLO | ONNX |", "|---|---|---|---|"]
    for row in rows:
        name = f"`{row['name']}`" + ("" if row["kind"] == "network" else " under `fpn`")
        sizes = "any" if row["fixed_size"] is None else "any, resized to `--size`"
        lines.append(f"| {name} | {sizes} | {_cell(row['stablehlo'])} | {_cell(row['onnx'])} |")
    return "\n".join(lines) + "\n"


def _cell(result: dict[str, Any]) -> str:
    if "reason" in result:
        return f"no: {result['reason']}"
    difference = f"{result['probability']:.0e}" if result["probability"] else "0"
    return f"{'yes' if result['passes'] else 'no'}, {difference}"


if __name__ == "__main__":
    sys.exit(command.run_command(main))

"""What the forms of an exported run cost: `python benchmarks/exported_run.py --workdir DIR --out NAME`.

The run is exported to ONNX in float32, float16 and int8 and to StableHLO in float32 and float16. Each file segments the
images of the validation split, in onnxruntime or JAX, beside `run.predict`: mIoU, size of the file, and the median CPU
time for an image over all threads, with the programs one after another for each image. The first image is not timed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
from jax import export
from lib.timing import at_least, environment, result_file

import jaxseg
from jaxseg.config import command
from jaxseg.data import make_source
from jaxseg.export import export_run
from jaxseg.metrics import scores
from jaxseg.types import IGNORE

FORMS = (
    ("stablehlo", "float32"),
    ("stablehlo", "float16"),
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, metavar="DIR", help="a training run")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    parser.add_argument("--images", type=at_least(2), default=10**9, metavar="N", help="images (default all)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="threads of onnxruntime (default 1)")
    options = parser.parse_args(argv)
    run = jaxseg.load(options.workdir)
    source = make_source(run.config, run.config.data.val_split)
    programs: dict[str, Callable[[np.ndarray], np.ndarray]] = {"`run.predict`": lambda x: run.predict(x).classes}
    sizes: dict[str, int | None] = {"`run.predict`": None}
    with tempfile.TemporaryDirectory() as folder:
        for form, dtype in FORMS:
            name = f"{'StableHLO' if form == 'stablehlo' else 'ONNX'}, {dtype}"
            written = export_run(run, Path(folder) / f"{dtype}.{form}", dtype=dtype)  # type: ignore[arg-type]
            programs[name], sizes[name] = opened(written.path, options.threads), written.bytes
    count = min(options.images, len(source))
    matrices = {name: np.zeros((len(run.classes), len(run.classes)), np.int64) for name in programs}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(count):
        example = source[i]
        for name, program in programs.items():
            start = time.process_time()
            classes = program(example["image"])
            seconds[name].append(time.process_time() - start)
            known = example["label"] != IGNORE
            np.add.at(matrices[name], (example["label"][known], classes[known]), 1)
    rows = [
        {
            "program": name,
            "mean_iou": scores(matrices[name]).mean_iou,
            "bytes": sizes[name],
            "milliseconds": 1e3 * statistics.median(seconds[name][1:]),
        }
        for name in programs
    ]
    table = markdown(rows)
    print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"environment": environment(), "run": repr(run), "onnxruntime": onnxruntime.__version__}
        text = json.dumps(record | {"images": count, "threads": options.threads, "programs": rows}, indent=1)
        result_file(options.out, ".json").write_text(text + "\n")
        result_file(options.out, ".md").write_text(table)
    return 0


def opened(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function u8[h,w,c] -> u8[h,w] of an exported file."""
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda image: np.asarray(session.run(["classes"], {"image": image[None]})[0])[0]
    with zipfile.ZipFile(path) as archive:
        program = jax.jit(export.deserialize(bytearray(archive.read("program"))).call)
    return lambda image: np.asarray(program(image[None])[0])[0]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table."""
    lines = ["| program | mIoU | file | CPU ms an image |", "|---|---|---|---|"]
    for row in rows:
        score = f"{row['mean_iou']:.4f}".lstrip("0")
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f} MB"
        lines.append(f"| {row['program']} | {score} | {size} | {row['milliseconds']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(command.run_command(main))

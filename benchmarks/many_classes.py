"""What many classes take: `python benchmarks/many_classes.py`, memory of a U-Net's compiled steps by XLA's analysis.

A training step with cross-entropy and with sampled classes, an evaluation step, and what prediction copies to the host
for each image: all probabilities, or those of the likeliest classes. Nothing runs, so that the load of the machine has
no effect on the numbers.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from lib.timing import at_least, environment, save, table

from jaxseg import build
from jaxseg.config import ConfigDict, default_config, update
from jaxseg.inference.networks import Scores, make_shares
from jaxseg.types import label_type

CLASSES = [11, 150, 255, 1000, 10000]
SAMPLED = {"loss__terms": "sampled_cross_entropy"}


def configured(side: int, samples: int, head: str) -> ConfigDict:
    """Returns the configuration of a small U-Net on images of side x side, of which a batch has two."""
    config = default_config()
    update(config, model__name="unet", model__args={"widths": (16, 32, 64), "dropout": 0.0}, model__head=head)
    update(config, data__size=(side, side), batch_size=2, eval__batch_size=2)
    if samples:
        update(config, loss__args={"sampled_cross_entropy": {"sampling": "uniform", "samples": samples}}, **SAMPLED)
    return config


def step_memory(config: ConfigDict, classes: int, train: bool) -> float:
    """Returns the bytes of temporary arrays of a compiled training or evaluation step."""
    parts, side = build.build_parts(config, classes), config.data.size[0]
    state = jax.eval_shape(parts.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((2, side, side), label_type(classes))}
    arguments: Any = (state, batch, jax.eval_shape(lambda: jax.random.key(0))) if train else (state, batch)
    strategy = build.make_strategy(config)
    step = strategy.compile_train(parts.train_step()) if train else strategy.compile_eval(parts.eval_step())
    return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def shares_bytes(side: int, classes: int, top_k: int) -> float:
    """Returns the bytes of the probabilities of one image that prediction hands to the host."""
    scores = jax.ShapeDtypeStruct((1, side, side, classes), jnp.float32)
    shapes = jax.eval_shape(lambda values: make_shares(Scores(values, True, ((side, side),)), False, top_k), scores)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=at_least(2), nargs="+", default=CLASSES, help="default 11 150 255 1000 10000")
    parser.add_argument("--side", type=at_least(16), default=128, help="of the images (default 128)")
    parser.add_argument(
        "--samples", type=at_least(2), default=32, help="classes of a step that samples them (default 32)"
    )
    parser.add_argument("--top-k", type=at_least(1), default=5, help="of prediction (default 5)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json and NAME.md are written")
    options = parser.parse_args(argv)
    rows = []
    for classes in options.classes:
        samples, side = min(options.samples, classes), options.side
        rows.append(
            {
                "classes": classes,
                "train": step_memory(configured(side, 0, "linear"), classes, True),
                "train, cosine head": step_memory(configured(side, 0, "cosine"), classes, True),
                f"train, {options.samples} sampled": step_memory(configured(side, samples, "linear"), classes, True),
                "evaluation": step_memory(configured(side, 0, "linear"), classes, False),
                "all probabilities": shares_bytes(side, classes, 0),
                f"top {options.top_k}": shares_bytes(side, classes, min(options.top_k, classes)),
            }
        )
    record = {"side": options.side, "batch": 2, "rows": rows, "environment": environment()}
    save(options.out, record, to_table(record))
    return 0


def to_table(record: dict[str, Any]) -> str:
    """Returns the Markdown table of a record."""
    rows, side = record["rows"], record["side"]
    cells = [
        [row["classes"], *(f"{value / 1e6:.1f}" for name, value in row.items() if name != "classes")] for row in rows
    ]
    note = (
        f"MB: temporary arrays of a step of 2 images of {side}x{side}, and the probabilities of one "
        "image that prediction hands to the host."
    )
    return table(list(rows[0]), cells, record, note)


if __name__ == "__main__":
    sys.exit(main())

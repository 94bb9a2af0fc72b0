"""The gradient that reaches each unit of a deep stack before training, with and without shortcuts.

    python benchmarks/gradient_flow.py --out benchmarks/results/gradient_flow

A 3x3 convolution takes images of the shapes data to `--width` channels, `--units` units of two 3x3 convolutions follow,
and a 1x1 convolution makes logits of the last features. What is measured is the norm of the gradient of the
cross-entropy at the input of each unit, divided by that at the input of the last. All units keep the shape. Batch norm
has the statistics of the batch. The seeds draw the parameters; the images are the same.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from lib.timing import at_least, environment, measured_on, rows_below, save

from jaxseg import losses
from jaxseg import nn as blocks
from jaxseg.config.command import run_command
from jaxseg.data.shapes import CLASSES, ShapesSource

WITH, WITHOUT = blocks.Layers(), blocks.Layers(norm=blocks.make_norm("none"))
STACKS: dict[str, tuple[type[Any], str, blocks.Layers]] = {
    "plain": (blocks.BasicBlock, "none", WITH),
    "plain, no norm": (blocks.BasicBlock, "none", WITHOUT),
    "residual": (blocks.BasicBlock, "identity", WITH),
    "pre-activation, plain": (blocks.PreActBlock, "none", WITH),
    "pre-activation": (blocks.PreActBlock, "identity", WITH),
    "pre-activation, scaled": (blocks.PreActBlock, "scaled", WITH),
}
LINES = {
    "plain": ("#b53a4c", "-"),
    "plain, no norm": ("#8a6d1d", "-"),
    "residual": ("#3566b0", "-"),
    "pre-activation, plain": ("#b53a4c", "--"),
    "pre-activation": ("#3c8a4c", "-"),
    "pre-activation, scaled": ("#3c8a4c", ":"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--units", type=at_least(2), default=32, metavar="N", help="units of two convolutions (32)")
    parser.add_argument("--width", type=at_least(1), default=16, metavar="C", help="channels (16)")
    parser.add_argument("--side", type=at_least(4), default=32, metavar="PIXELS", help="side of the images (32)")
    parser.add_argument("--images", type=at_least(2), default=8, metavar="N", help="images in the batch (8)")
    parser.add_argument("--seeds", type=at_least(1), default=5, metavar="N", help="draws of the parameters (5)")
    parser.add_argument("--out", type=Path, metavar="NAME", help="NAME.json, NAME.md and NAME.png are written")
    options = parser.parse_args(argv)
    return run_command(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    source = ShapesSource("train", options.images, (options.side, options.side))
    images = jnp.asarray(np.stack([source[i]["image"] for i in range(options.images)]) / 127.5 - 1, jnp.float32)
    labels = jnp.asarray(np.stack([source[i]["label"] for i in range(options.images)]), jnp.int32)
    keys = [jax.random.key(seed) for seed in range(options.seeds)]
    shares: dict[str, list[list[float]]] = {}
    for name, stack in STACKS.items():
        norms = jax.jit(gradient_norms(*stack, units=options.units, width=options.width))
        found = np.stack([np.asarray(norms(key, images, labels)) for key in keys])
        shares[name] = (found / found[:, -1:]).tolist()
    settings = {name: getattr(options, name) for name in ("units", "width", "side", "images", "seeds")}
    record = {"environment": environment(), **settings, "shares": shares}
    save(options.out, record, describe(record), lambda figure: draw(record, figure))
    return 0


def gradient_norms(
    block: type[Any], shortcut: str, common: blocks.Layers, *, units: int, width: int
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns (key, image f32[b,h,w,c], label i32[b,h,w]) -> f32[units], norms of dL/dx at the input of each unit."""
    unit = block(width, shortcut=shortcut, common=common)
    stem, head = blocks.ConvNormAct(width, common=common), blocks.classifier(len(CLASSES))
    loss = losses.make_loss(num_classes=len(CLASSES))

    def apply(module: linen.Module, variables: Any, x: jax.Array) -> jax.Array:
        return module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def norms(key: jax.Array, image: jax.Array, label: jax.Array) -> jax.Array:
        first, middle, last = jax.random.split(key, 3)
        x = apply(stem, stem.init(first, image), image)
        variables = jax.vmap(lambda key: unit.init(key, x))(jax.random.split(middle, units))
        of_head = head.init(last, x)

        def value(added: jax.Array) -> jax.Array:
            """The loss when added[i] is added to the input of unit i: its gradient at 0 is that of the input."""

            def step(x: jax.Array, each: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
                return apply(unit, each[0], x + each[1]), None

            y, _ = jax.lax.scan(step, x, (variables, added))
            return loss(head.apply(of_head, y), label)

        gradient = jax.grad(value)(jnp.zeros((units, *x.shape)))
        return jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3, 4)))

    return norms


def describe(record: dict[str, Any]) -> str:
    """Returns the table: how the gradient at the first units compares with that at the last."""
    middle = record["units"] // 2
    rows = []
    for name, shares in record["shares"].items():
        at = np.asarray(shares)
        rows.append((f"`{name}`", *(_spread(at[:, place]) for place in (0, middle))))
    note = (
        "Norm of the gradient at the input of a unit, divided by that at the input of the last, before training: "
        f"median (least to greatest) of {record['seeds']} seeds. {record['units']} units of two 3x3 convolutions, "
        f"{record['width']} channels, {record['images']} images of {record['side']}x{record['side']} shapes."
    )
    columns = ("stack", "at the first unit", f"at unit {middle + 1}")
    return rows_below(columns, rows, note) + "\n" + measured_on(record) + "\n"


def _spread(values: np.ndarray) -> str:
    return f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"


def draw(record: dict[str, Any], figure: Any) -> None:
    """Draws the median of the seeds and the band between the least and the greatest."""
    axes = figure.add_subplot()
    places = np.arange(1, record["units"] + 1)
    for name, shares in record["shares"].items():
        colour, line = LINES[name]
        at = np.asarray(shares)
        axes.plot(places, np.median(at, axis=0), line, color=colour, label=name)
        axes.fill_between(places, at.min(0), at.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set(yscale="log", xlabel="unit, from the image", ylabel="norm of dL/dx, that of the last unit = 1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(main())

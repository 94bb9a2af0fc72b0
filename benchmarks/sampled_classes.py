"""What sampled classes save: `python benchmarks/sampled_classes.py`, a table of memory and FLOPs of one gradient.

The program is a class head (1x1 convolution of c channels), bilinear up-sampling of the logits by `stride`, the loss,
and the gradient of features, kernel and bias. XLA's own analysis of the compiled program gives the numbers; nothing
runs, so they do not depend on the load of the machine.
"""

import argparse
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from lib.timing import environment, table

from jaxseg import losses
from jaxseg.nn import ClassHead, of_classes, resize


class Cost(NamedTuple):
    """Temporary memory in bytes and FLOPs of a compiled program."""

    memory: float
    flops: float


def gradient_cost(side: int, classes: int, samples: int | None, *, channels: int = 64, stride: int = 1) -> Cost:
    """Returns the cost of the gradient for logits f32[1,side,side,classes]; samples=None: `cross_entropy` of all."""
    head = ClassHead(classes, kernel_size=1)
    image = jax.ShapeDtypeStruct((1, side // stride, side // stride, channels), jnp.float32)
    variables = jax.eval_shape(head.init, jax.random.key(0), image)

    def loss(variables: Any, features: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        if samples is None:
            return losses.divide(*losses.cross_entropy(resize(head.apply(variables, features), (side, side)), labels))
        chosen = losses.sample_classes(key, losses.present_classes(labels, classes), samples)
        logits = resize(of_classes(head.apply, chosen.classes)(variables, features), (side, side))
        return losses.divide(*losses.sampled_cross_entropy(logits, labels, chosen, sampling="uniform"))

    labels, key = jax.ShapeDtypeStruct((1, side, side), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, image, labels, key).compile()
    analysis: Any = compiled.cost_analysis()
    return Cost(compiled.memory_analysis().temp_size_in_bytes, analysis["flops"])


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64, help="of the features before the head")
    parser.add_argument("--samples", type=int, default=32, help="classes of a step")
    options = parser.parse_args(argv)
    rows = []
    for side, classes, stride in ((128, 150, 1), (128, 150, 4), (64, 1000, 1), (64, 1000, 4)):
        for samples in (None, options.samples):
            cost = gradient_cost(side, classes, samples, channels=options.channels, stride=stride)
            name = "all" if samples is None else str(samples)
            row = [f"{side}x{side}x{classes}", str(stride), name, f"{cost.memory / 1e6:.1f}", f"{cost.flops / 1e6:.0f}"]
            rows.append(row)
    print(table(["logits", "stride", "classes", "MB", "MFLOP"], rows, {"environment": environment()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

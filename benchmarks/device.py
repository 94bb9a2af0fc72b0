"""Whether a device gives the CPU's numbers: `python benchmarks/device.py --out NAME`.

The functions of `jaxseg.nn`, the losses and the augmentation, each with its gradients, run on the CPU in float32, and
on the device in float32 at the highest precision and in bfloat16. Where a difference is larger than allowed, the exit
status is 1. On a CPU it compares two sets of compiler options.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lib.primitive import batch_norm
from lib.timing import environment, make_parser, save, share_gpu, table

from jaxseg import losses, metrics, nn
from jaxseg.compiler import compiler_options, jit
from jaxseg.data.augment import make_augment

# The largest |a - b| / |b|, in the Euclidean norm, of a result or a gradient. bfloat16 has 8 bits.
ALLOWED = {"float32": 1e-4, "bfloat16": 3e-2}
# Options of XLA for the CPU's programs, which then compile in less time.
REFERENCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SIDE, CHANNELS, CLASSES = 16, 16, 5
TERMS = "cross_entropy + dice + focal + jaccard + tversky + lovasz + boundary + boundary_f1 + ohem + mse"

Case = tuple[Callable[..., jax.Array], tuple[np.ndarray, ...]]


def layers() -> dict[str, Case]:
    """Returns {name: (function of float arrays, the arrays)}."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        # Values of bfloat16, so that every dtype has the same inputs and none has other equal values.
        return np.asarray(jnp.asarray(rng.normal(0, 1, shape), jnp.bfloat16), np.float32)

    c, half = CHANNELS, CHANNELS // 2
    x, odd, tokens = draw(2, SIDE, SIDE, c), draw(2, SIDE - 3, SIDE - 1, c), draw(2, 24, 2, half)
    places, shares = draw(2, 24, 2, 1, 3, 2), draw(2, 24, 2, 1, 3)
    kernel, point = draw(3, 3, c, half) / 12, draw(1, 1, c, half) / 4
    mask = np.arange(24)[None, None, None] <= np.arange(24)[None, None, :, None]

    def unpool(x: jax.Array) -> jax.Array:
        y, indices = nn.max_pool_with_indices(x)
        return nn.max_unpool(y, indices, x.shape[1:3])

    def deform(x: jax.Array, places: jax.Array, shares: jax.Array) -> jax.Array:
        values = x.reshape(2, SIDE, SIDE, 2, half)
        places, shares = places.astype(jnp.float32), shares.astype(jnp.float32)  # as networks of any dtype have them
        return nn.deformable_attention([values], 0.5 + 0.4 * jnp.sin(places), jax.nn.softmax(shares))

    return {
        "conv 1x1": (nn.conv2d, (x, point)),
        "conv 3x3": (partial(nn.conv2d, padding=1), (x, kernel)),
        "conv 3x3, stride 2": (partial(nn.conv2d, padding=1, stride=2), (odd, kernel)),
        "conv 3x3, rate 2": (partial(nn.conv2d, padding=2, dilation=2), (x, kernel)),
        "conv 3x3, rate 12": (partial(nn.conv2d, padding=12, dilation=12), (x, kernel)),
        "conv 3x3, 4 groups": (partial(nn.conv2d, padding=1, groups=4), (x, draw(3, 3, c // 4, half) / 6)),
        "conv 3x3, depthwise": (partial(nn.conv2d, padding=1, groups=c), (x, draw(3, 3, 1, c) / 3)),
        "conv of an image": (partial(nn.conv2d, padding=3, stride=2), (draw(2, SIDE, SIDE, 3), draw(7, 7, 3, c) / 12)),
        "transposed conv 2": (partial(nn.conv_transpose2d, stride=2), (x, draw(2, 2, c, half) / 4)),
        "transposed conv 3": (partial(nn.conv_transpose2d, stride=2), (x, kernel)),
        "transposed conv 4": (partial(nn.conv_transpose2d, stride=2), (x, draw(4, 4, c, half) / 8)),
        "attention": (nn.dot_product_attention, (tokens, draw(2, 24, 2, half), draw(2, 24, 2, half))),
        "masked attention": (partial(nn.dot_product_attention, mask=mask), (tokens, tokens, tokens)),
        "deformable attention": (deform, (x, places, shares)),
        "batch norm": (lambda x, s, b: batch_norm(nn.BatchNorm(), s, b, x), (x, draw(c), draw(c))),
        "group norm": (lambda x, s, b: nn.group_norm(x, s, b, 4), (x, draw(c), draw(c))),
        "max pool 2": (nn.max_pool, (x,)),
        "max pool 3, stride 2": (lambda x: nn.max_pool(x, 3, 2, 1), (odd,)),
        "un-pool": (unpool, (x,)),
        "average pool": (lambda x: nn.avg_pool(x, 3, 2, 1), (x,)),
        "adaptive pool": (lambda x: nn.adaptive_avg_pool(x, (3, 5)), (x,)),
        "bilinear, whole factor": (lambda x: nn.resize(x, (2 * SIDE, 4 * SIDE)), (x,)),
        "bilinear": (lambda x: nn.resize(x, (2 * SIDE - 5, SIDE - 3)), (x,)),
        "nearest": (lambda x: nn.resize(x, (2 * SIDE, SIDE + 3), "nearest"), (x,)),
        "depth to space": (lambda x: nn.depth_to_space(x, 2), (x,)),
    }


def of_logits() -> dict[str, Case]:
    """Returns the cases that are computed in float32 whatever the dtype of the network."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, CLASSES, (2, SIDE, SIDE)).astype(np.uint8)
    label[:, :3] = 255
    logits = rng.normal(size=(2, SIDE, SIDE, CLASSES)).astype(np.float32)
    augment = make_augment(flip_horizontal=0.5, zoom=(0.8, 1.5), rotate=10.0, brightness=0.2, contrast=0.2)

    def objective(terms: str) -> Callable[..., jax.Array]:
        loss = losses.make_loss(terms, num_classes=CLASSES)
        return lambda logits: loss.value(loss.stats(logits, jnp.asarray(label), {}))

    def changed(image: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.key(3), len(label))
        images, labels = jax.vmap(augment)(keys, image, jnp.asarray(label))
        return jnp.concatenate([images, labels[..., None].astype(jnp.float32)], -1)

    def confusion(logits: jax.Array) -> jax.Array:
        predicted = metrics.predict_classes(jax.lax.stop_gradient(logits))
        return metrics.confusion_matrix(predicted, jnp.asarray(label), CLASSES).astype(jnp.float32) * logits.mean()

    image = rng.uniform(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    cases: dict[str, Case] = {f"loss: {terms}": (objective(terms), (logits,)) for terms in TERMS.split(" + ")}
    return cases | {"augmentation": (changed, (image,)), "confusion matrix": (confusion, (logits,))}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    options = parser.parse_args(argv)
    share_gpu()
    record: dict[str, Any] = {"environment": environment(), "allowed": ALLOWED, "differences": {}, "seconds": {}}
    groups = {"layers": layers(), "logits": of_logits()}
    if options.smallest:
        groups = {name: dict(list(cases.items())[:1]) for name, cases in groups.items()}
    for name, cases in groups.items():
        begin = time.monotonic()
        record["differences"] |= compare(cases, ("float32",) if name == "logits" else ("float32", "bfloat16"))
        record["seconds"][name] = time.monotonic() - begin
        save(options.out, record, describe(record), quiet=True)
    print(describe(record), end="")
    wrong = [name for name, found in record["differences"].items() if not within(found)]
    if wrong:
        print(f"error: the device's numbers are not the CPU's: {', '.join(wrong)}.", file=sys.stderr)
    return int(bool(wrong))


def within(found: dict[str, float]) -> bool:
    """Whether the differences of a case are allowed; NaN is not."""
    return all(difference <= ALLOWED[dtype] for dtype, difference in found.items())


def compare(cases: dict[str, Case], dtypes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Returns {case: {dtype: difference}}; one program computes all cases, which takes less time to compile."""

    def everything(arrays: dict[str, tuple[jax.Array, ...]]) -> dict[str, Any]:
        results = {}
        for name, (function, _) in cases.items():
            y, pull_back = jax.vjp(function, *arrays[name])
            # A cotangent that bfloat16 holds exactly, and that no sum over pixels cancels.
            cotangent = (1 + (jnp.arange(y.size) % 7) / 8).reshape(y.shape).astype(y.dtype)
            results[name] = y, *pull_back(cotangent)
        return results

    arrays = {name: arrays for name, (_, arrays) in cases.items()}
    host = jax.devices("cpu")[0]
    with jax.default_device(host), jax.default_matmul_precision("highest"):
        expected = jax.device_get(jit(everything, REFERENCE)(arrays))
    found: dict[str, dict[str, float]] = {name: {} for name in cases}
    for dtype in dtypes:
        given = jax.tree.map(lambda x, dtype=dtype: jnp.asarray(x, dtype), arrays)
        with jax.default_matmul_precision("highest"):
            results = jax.device_get(jit(everything, compiler_options())(given))
        for name in cases:
            found[name][dtype] = max(map(_difference, results[name], expected[name]))
    return found


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Returns |a - b| / |b|."""
    a, b = (np.asarray(array, np.float64) for array in (a, b))
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    rows = [
        (
            name,
            *(f"{found[dtype]:.1e}" if dtype in found else "" for dtype in ALLOWED),
            "" if within(found) else "no",
        )
        for name, found in record["differences"].items()
    ]
    limits = ", ".join(f"{dtype} {limit:.0e}" for dtype, limit in ALLOWED.items())
    note = f"Difference from the CPU's float32, as a share of the result and of its gradients. Allowed: {limits}."
    return table(("case", *ALLOWED, "allowed"), rows, record, note)


if __name__ == "__main__":
    sys.exit(main())

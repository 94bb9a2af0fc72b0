"""Times each primitive of `jaxseg.nn` against a naive implementation, and against torch's where torch is installed.

    python benchmarks/primitives.py --out benchmarks/results/primitives-cpu

The naive implementation is what Flax or jax.lax offers for the same function. The columns are ratios of its time to
jaxseg's, above 1 where jaxseg is quicker: for one call (`forward`), and for one call and its gradients with respect to
the input and the parameters (`step`). On a GPU the attention that is written out stands as naive beside the one that
jaxseg chooses, which in bfloat16 may be cuDNN's; `attention` in the JSON says which.
"""

import functools
import importlib.util
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from lib.primitive import ALLOWED, Primitive, batch_norm, channels_last, measure
from lib.timing import at_least, bars, environment, make_parser, prepare_torch, save, share_gpu, table, torch_device

from jaxseg import nn as ours
from jaxseg.compiler import attention_for
from jaxseg.nn.ops.forms import traced_for


def primitives(batch: int, size: int, channels: int) -> dict[str, Primitive]:
    """The primitives at f[batch,size,size,channels]."""
    rng = np.random.default_rng(0)
    shape = (batch, size, size, channels)
    draw = lambda *s: rng.normal(0, 0.1, s).astype(np.float32)  # noqa: E731
    scale, bias = 1 + draw(channels), draw(channels)
    same = lambda *p: p  # noqa: E731
    oihw = lambda k: (channels_last(k),)  # noqa: E731

    def convolve(kernel: jax.Array, x: jax.Array, **options: Any) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    def unpool_naive(x: jax.Array) -> jax.Array:
        """Pooling by `argmax` over windows, un-pooling by a scatter: the textbook form."""
        b, h, w, c = x.shape
        windows = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
        place = jnp.argmax(windows, axis=-1)
        spread = jax.nn.one_hot(place, 4, dtype=x.dtype) * jnp.max(windows, axis=-1)[..., None]
        return spread.reshape(b, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)

    def unpool_ours(x: jax.Array) -> jax.Array:
        y, indices = ours.max_pool_with_indices(x)
        return ours.max_unpool(y, indices, x.shape[1:3])

    def unpool_torch(torch: Any, x: Any) -> Any:
        y, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        return torch.nn.functional.max_unpool2d(y, indices, 2)

    def attend_ours(q: jax.Array, x: jax.Array) -> jax.Array:
        tokens = (x @ q).reshape(x.shape[0], -1, 4, x.shape[-1] // 4)
        return ours.dot_product_attention(tokens, tokens, tokens)

    def attend_naive(q: jax.Array, x: jax.Array) -> jax.Array:
        tokens = (x @ q).reshape(x.shape[0], -1, 4, x.shape[-1] // 4)
        return nn.dot_product_attention(tokens, tokens, tokens)

    def attend_written_out(q: jax.Array, x: jax.Array) -> jax.Array:
        with traced_for("usual", cudnn=False):
            return attend_ours(q, x)

    def attend_torch(torch: Any, q: Any, x: Any) -> Any:
        b, c, h, w = x.shape
        tokens = (x.permute(0, 2, 3, 1) @ q).reshape(b, h * w, 4, c // 4).transpose(1, 2)
        return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    kernel3, kernel1 = draw(3, 3, channels, channels), draw(1, 1, channels, channels)
    kernel2, depthwise = draw(2, 2, channels, channels // 2), draw(3, 3, 1, channels)
    size2 = (2 * size, 2 * size)
    groups = min(8, channels)
    tokens = ((draw(channels, channels),), same, (batch, max(size // 4, 1), max(size // 4, 1), channels))
    written_out = Primitive(attend_ours, attend_written_out, None, *tokens)
    of_gpus = {"attention beside written out": written_out} if jax.default_backend() == "gpu" else {}
    return {
        "max pool 2x2": Primitive(
            lambda x: ours.max_pool(x, 2),
            lambda x: nn.max_pool(x, (2, 2), (2, 2)),
            lambda torch, x: torch.nn.functional.max_pool2d(x, 2),
            (),
            same,
            shape,
        ),
        "max pool 3x3/2": Primitive(
            lambda x: ours.max_pool(x, 3, 2, 1),
            lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
            lambda torch, x: torch.nn.functional.max_pool2d(x, 3, 2, 1),
            (),
            same,
            shape,
        ),
        "max pool and un-pool": Primitive(unpool_ours, unpool_naive, unpool_torch, (), same, shape),
        "transposed conv 2x2/2": Primitive(
            lambda k, x: ours.conv_transpose2d(x, k, stride=2),
            # Ours is torch's (the gradient of a convolution), Flax's the mirrored kernel: the same work.
            lambda k, x: jax.lax.conv_transpose(
                x, jnp.flip(k, (0, 1)), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            lambda torch, k, x: torch.nn.functional.conv_transpose2d(x, k, stride=2),
            (kernel2,),
            lambda k: (np.ascontiguousarray(k.transpose(2, 3, 0, 1)),),
            shape,
        ),
        "bilinear x2": Primitive(
            lambda x: ours.upsample(x, 2),
            lambda x: jax.image.resize(x, (x.shape[0], *size2, x.shape[3]), "bilinear"),
            lambda torch, x: torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
            (),
            same,
            shape,
        ),
        "group norm": Primitive(
            lambda s, b, x: ours.group_norm(x, s, b, groups),
            lambda s, b, x: nn.GroupNorm(groups, epsilon=1e-5).apply({"params": {"scale": s, "bias": b}}, x),
            lambda torch, s, b, x: torch.nn.functional.group_norm(x, groups, s, b),
            (scale, bias),
            same,
            shape,
        ),
        "batch norm (training)": Primitive(
            functools.partial(batch_norm, ours.BatchNorm()),
            functools.partial(batch_norm, nn.BatchNorm(use_running_average=False, momentum=0.9)),
            lambda torch, s, b, x: torch.nn.functional.batch_norm(x, None, None, s, b, training=True),
            (scale, bias),
            same,
            shape,
        ),
        "conv 1x1": Primitive(
            lambda k, x: ours.conv2d(x, k),
            convolve,
            lambda torch, k, x: torch.nn.functional.conv2d(x, k),
            (kernel1,),
            oihw,
            shape,
        ),
        "conv 3x3": Primitive(
            lambda k, x: ours.conv2d(x, k, padding=1),
            convolve,
            lambda torch, k, x: torch.nn.functional.conv2d(x, k, padding=1),
            (kernel3,),
            oihw,
            shape,
        ),
        "conv 3x3, dilation 4": Primitive(
            lambda k, x: ours.conv2d(x, k, padding=4, dilation=4),
            lambda k, x: convolve(k, x, rhs_dilation=(4, 4)),
            lambda torch, k, x: torch.nn.functional.conv2d(x, k, padding=4, dilation=4),
            (kernel3,),
            oihw,
            shape,
        ),
        "depthwise conv 3x3": Primitive(
            lambda k, x: ours.conv2d(x, k, padding=1, groups=channels),
            lambda k, x: convolve(k, x, feature_group_count=channels),
            lambda torch, k, x: torch.nn.functional.conv2d(x, k, padding=1, groups=channels),
            (depthwise,),
            oihw,
            shape,
        ),
        "attention, 4 heads": Primitive(attend_ours, attend_naive, attend_torch, *tokens),
        **of_gpus,
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--batch", type=at_least(1), default=4, help="images (default 4)")
    parser.add_argument("--size", type=at_least(1), default=64, help="height and width (default 64)")
    parser.add_argument("--channels", type=at_least(1), default=64, help="channels of the input (default 64)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="those whose name holds one of these")
    options = parser.parse_args(argv)
    names = list(primitives(1, 8, 8))
    if unknown := [word for word in options.only if not any(word in name for name in names)]:
        parser.error(f"--only: no primitive's name holds {unknown[0]!r}; they are {', '.join(names)}")
    share_gpu()
    has_torch = importlib.util.find_spec("torch") is not None
    batch, size, channels = (1, 8, 8) if options.smallest else (options.batch, options.size, options.channels)
    repeats = 1 if options.smallest else options.repeats
    record: dict[str, Any] = {
        "environment": environment(),
        "torch": prepare_torch(torch_device()) if has_torch else None,
        "shape": [batch, size, size, channels],
        "dtype": options.dtype,
        "attention": attention_for({}, options.dtype),
        "allowed": ALLOWED[options.dtype],
        "primitives": {},
    }
    for name, primitive in primitives(batch, size, channels).items():
        if options.only and not any(word in name for word in options.only):
            continue
        record["primitives"][name] = measure(primitive, repeats, jnp.dtype(options.dtype).type)
        print(name, record["primitives"][name], file=sys.stderr)
        save(options.out, record, describe(record)[0], quiet=True)
    text, groups = describe(record)
    save(
        options.out, record, text, lambda f: bars(f, list(record["primitives"]), groups, "time, ours = 1", ratios=True)
    )
    wrong = [name for name, times in record["primitives"].items() if not times["difference"] <= record["allowed"]]
    if wrong:
        print(f"error: the two implementations give different numbers: {', '.join(wrong)}.", file=sys.stderr)
    return int(bool(wrong))


def describe(record: dict[str, Any]) -> tuple[str, dict[str, list[float]]]:
    """Returns the table, and the ratios for the picture."""
    columns = ("primitive", "ours, ms", "naive", "torch", "ours, step ms", "naive step", "torch step")
    rows, groups = [], {"naive, forward": [], "naive, step": [], "torch, forward": [], "torch, step": []}
    for name, times in record["primitives"].items():
        row = [name]
        for kind in ("forward", "step"):
            own = times[kind]["ours"]
            row.append(f"{1e3 * own:.2f}")
            for other in ("naive", "torch"):
                ratio = times[kind][other] / own if other in times[kind] else float("nan")
                row.append("" if np.isnan(ratio) else f"{ratio:.2f}")
                groups[f"{other}, {kind}"].append(ratio)
        rows.append(row)
    shape = ",".join(map(str, record["shape"]))
    note = f"Ratios to the time of ours (above 1: ours is quicker), f[{shape}] {record['dtype']}."
    return table(columns, rows, record, note), groups


if __name__ == "__main__":
    sys.exit(main())

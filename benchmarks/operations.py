"""Which layers make a network slow: `python benchmarks/operations.py --networks deeplabv3plus --out NAME`.

Every distinct layer of a network (convolution, norm, pooling, up-sampling, dense layer, attention) is timed by itself,
in jaxseg and in PyTorch, forward and with its gradients. The time is multiplied by how often the network has the layer.
Layers are sorted by the excess, jaxseg's time minus PyTorch's: improve the first ones. The sum is not the time of the
network: neither column has activations, additions and concatenations, and XLA fuses those, and norms, with their
neighbours. All layers have one dtype, no bias, and the gradient of the image too, which training does not need.
"""

import collections
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from lib.networks import NETWORKS, Network
from lib.primitive import Primitive, batch_norm, channels_last, measure
from lib.timing import at_least, bars, environment, make_parser, prepare_torch, save, share_gpu, table, torch_device

from jaxseg import nn as ours


class Layer(NamedTuple):
    """A layer in the terms of torch.

    Attributes:
        kind: the function's name, as in `KINDS`.
        shape: of its input: (b, c, h, w), (b, t, c) or, of attention, (b, n, t, d).
        weight: shape of its weight, of attention that of the keys; () where it has none.
        options: what else the function takes, sorted by name.
    """

    kind: str
    shape: tuple[int, ...]
    weight: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


KINDS = {
    "conv2d": "convolution",
    "conv_transpose2d": "transposed convolution",
    "linear": "dense",
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "max_pool2d": "max pooling",
    "interpolate": "up-sampling",
    "scaled_dot_product_attention": "attention",
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=tuple(NETWORKS),
        default=["unet"],
        metavar="NAME",
        help=f"of {', '.join(NETWORKS)} (default: unet)",
    )
    parser.add_argument("--batch", type=at_least(1), default=4, help="images (default 4)")
    parser.add_argument("--size", type=at_least(1), default=128, help="height and width of the image (default 128)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None, help="default: bfloat16 on a GPU")
    options = parser.parse_args(argv)
    share_gpu()
    try:
        device = torch_device()
    except ImportError:
        print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
        return 1
    dtype = options.dtype or ("bfloat16" if device == "cuda" else "float32")
    if options.smallest:
        options.batch, options.size, options.repeats = 1, 32, 1
    record: dict[str, Any] = {
        "environment": environment(),
        "torch": prepare_torch(device),
        "batch": options.batch,
        "size": options.size,
        "dtype": dtype,
        "networks": {},
    }
    for name in options.networks:
        network = NETWORKS[name].smallest() if options.smallest else NETWORKS[name]
        for rows in break_down(network, options, jnp.dtype(dtype).type):
            record["networks"][name] = rows
            save(options.out, record, describe(record), quiet=True)
        last = name == options.networks[-1]
        save(options.out, record, describe(record), lambda figure: draw(figure, record), quiet=not last)
    return 0


def break_down(network: Network, options: Any, dtype: Any) -> Iterator[list[dict[str, Any]]]:
    """Yields, after each distinct layer, one row for each so far, the one with the largest excess first."""
    rows = []
    for layer, count in layers_of(network, options.batch, options.size).items():
        times = measure(primitive(layer), options.repeats, dtype)
        row = {"kind": kind_of(layer), "layer": text_of(layer), "count": count}
        for kind in ("forward", "step"):
            row[kind] = {form: count * times[kind][form] for form in ("ours", "torch")}
        rows.append(row | {"excess": row["step"]["ours"] - row["step"]["torch"]})
        rows.sort(key=lambda row: -row["excess"])
        print(row, file=sys.stderr)
        yield rows


def layers_of(network: Network, batch: int, size: int) -> dict[Layer, int]:
    """Returns {layer: how often it occurs} in one training pass; nothing is computed."""
    import torch
    from torch.overrides import TorchFunctionMode

    found: collections.Counter[Layer] = collections.Counter()

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if getattr(function, "__name__", "") in KINDS:
                found[layer_of(function.__name__, result, *args, **(kwargs or {}))] += 1
            return result

    with torch.device("meta"):
        module, x = network.torch().train(), torch.empty(batch, 3, size, size)
        with Recorder():
            module(x)
    return dict(found)


def layer_of(kind: str, result: Any, x: Any, *args: Any, **kwargs: Any) -> Layer:
    """Returns the layer that one call of a function of torch is."""
    weight, options = (), {}
    if kind in ("conv2d", "conv_transpose2d"):
        names = ("bias", "stride", "padding", "dilation", "groups")
        if kind == "conv_transpose2d":
            names = ("bias", "stride")
        given = dict(zip(names, args[1:])) | kwargs
        weight, options = tuple(args[0].shape), {name: _one(given[name]) for name in names[1:]}
    elif kind in ("linear", "scaled_dot_product_attention"):
        weight = tuple(args[0].shape)
    elif kind == "max_pool2d":
        given = {"padding": 0, "stride": None} | dict(zip(("kernel_size", "stride", "padding"), args)) | kwargs
        options = {name: _one(given[name]) for name in ("kernel_size", "stride", "padding")}
    elif kind == "interpolate":
        options = {"size": tuple(result.shape[2:]), "mode": kwargs["mode"]}
    return Layer(kind, tuple(x.shape), weight, tuple(sorted(options.items())))


def _one(value: Any) -> Any:
    """(2, 2) -> 2: every layer here is square."""
    if not isinstance(value, tuple):
        return value
    (single,) = set(value)
    return single


def primitive(layer: Layer) -> Primitive:
    """Returns both implementations of a layer, without a bias."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(0, 0.1, shape).astype(np.float32)  # noqa: E731
    same = lambda *p: p  # noqa: E731
    options, weight = dict(layer.options), layer.weight
    last = layer.shape[-1] if len(layer.shape) == 3 else layer.shape[1]
    shape = (layer.shape[0], layer.shape[1], 1, last) if len(layer.shape) == 3 else _nhwc(layer.shape)

    def make(
        mine: Callable[..., Any], theirs: Callable[..., Any], *parameters: np.ndarray, to_torch: Any = same
    ) -> Any:
        return Primitive(mine, None, theirs, parameters, to_torch, shape)

    match layer.kind:
        case "conv2d":
            return make(
                lambda k, x: ours.conv2d(x, k, **options),
                lambda torch, k, x: torch.nn.functional.conv2d(x, k, **options),
                draw(*weight[2:], weight[1], weight[0]),
                to_torch=lambda k: (channels_last(k),),
            )
        case "conv_transpose2d":
            return make(
                lambda k, x: ours.conv_transpose2d(x, k, stride=options["stride"]),
                lambda torch, k, x: torch.nn.functional.conv_transpose2d(x, k, stride=options["stride"]),
                draw(*weight[2:], *weight[:2]),
                to_torch=lambda k: (np.ascontiguousarray(k.transpose(2, 0, 1, 3)).transpose(0, 3, 1, 2),),
            )
        case "linear":
            return make(
                lambda k, x: ours.conv2d(x, k[None, None]),
                lambda torch, k, x: torch.nn.functional.linear(x.permute(0, 2, 3, 1), k),
                draw(*weight[::-1]),
                to_torch=lambda k: (np.ascontiguousarray(k.T),),
            )
        case "batch_norm":
            return make(
                lambda s, b, x: batch_norm(ours.BatchNorm(), s, b, x),
                lambda torch, s, b, x: torch.nn.functional.batch_norm(x, None, None, s, b, training=True),
                1 + draw(last),
                draw(last),
            )
        case "layer_norm":
            return make(
                lambda s, b, x: ours.LayerNorm().apply({"params": {"scale": s, "bias": b}}, x),
                lambda torch, s, b, x: torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), s.shape, s, b),
                1 + draw(last),
                draw(last),
            )
        case "max_pool2d":
            window, stride, padding = (options[name] for name in ("kernel_size", "stride", "padding"))
            return make(
                lambda x: ours.max_pool(x, window, stride, padding),
                lambda torch, x: torch.nn.functional.max_pool2d(x, window, stride, padding),
            )
        case "interpolate":
            return make(
                lambda x: ours.resize(x, options["size"], options["mode"]),
                lambda torch, x: torch.nn.functional.interpolate(x, **options),
            )
        case "scaled_dot_product_attention":
            # x f[b,t,n,d] comes to torch as f[b,d,t,n].
            b, n, t, d = layer.shape
            keys = draw(b, weight[2], n, d)
            return Primitive(
                lambda k, v, x: ours.dot_product_attention(x, k, v),
                None,
                lambda torch, k, v, x: torch.nn.functional.scaled_dot_product_attention(x.permute(0, 3, 2, 1), k, v),
                (keys, draw(*keys.shape)),
                lambda *p: tuple(np.ascontiguousarray(a.transpose(0, 2, 1, 3)) for a in p),
                (b, t, n, d),
            )
    raise ValueError(f"There is no form of {layer.kind!r}.")


def _nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[0], *shape[2:], shape[1]


def kind_of(layer: Layer) -> str:
    """What the sums are made of: the function, with 1x1 and depthwise convolutions apart."""
    if layer.kind == "conv2d":
        options = dict(layer.options)
        if options["groups"] > 1:
            return "depthwise convolution"
        return "1x1 convolution" if layer.weight[2] == 1 else "convolution"
    return KINDS[layer.kind]


def text_of(layer: Layer) -> str:
    """One line: "3x3 64 -> 128, stride 2, at 4x64x128x128"."""
    options = dict(layer.options)
    parts = []
    if layer.kind in ("conv2d", "conv_transpose2d"):
        o = layer.weight[0] if layer.kind == "conv2d" else layer.weight[1]
        parts.append(f"{layer.weight[2]}x{layer.weight[3]} {layer.shape[1]} -> {o}")
        parts += [f"{name} {options[name]}" for name in ("stride", "dilation") if name in options and options[name] > 1]
    elif layer.kind == "linear":
        parts.append(f"{layer.weight[1]} -> {layer.weight[0]}")
    elif layer.kind == "max_pool2d":
        parts.append(f"{options['kernel_size']}x{options['kernel_size']}")
    elif layer.kind == "interpolate":
        parts.append(f"{options['mode']} to {'x'.join(map(str, options['size']))}")
    elif layer.kind == "scaled_dot_product_attention":
        parts.append(f"{layer.weight[2]} keys")
    return ", ".join([*parts, "at " + "x".join(map(str, layer.shape))])


def sums(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns {kind: {"ours": seconds of its steps, "torch": ...}}, the largest excess first."""
    total: dict[str, dict[str, float]] = {}
    for row in rows:
        kind = total.setdefault(row["kind"], {"ours": 0.0, "torch": 0.0})
        for form in kind:
            kind[form] += row["step"][form]
    return dict(sorted(total.items(), key=lambda item: item[1]["torch"] - item[1]["ours"]))


def describe(record: dict[str, Any]) -> str:
    """Returns the table: for each network the sums by kind, then its layers."""
    columns = ("network", "layer", "times", "step: ours, ms", "torch", "excess, ms", "forward: ours, ms", "torch")
    rows = []
    for name, found in record["networks"].items():
        for kind, seconds in sums(found).items():
            numbers = _ms(seconds["ours"], seconds["torch"], seconds["ours"] - seconds["torch"])
            count = sum(row["count"] for row in found if row["kind"] == kind)
            rows.append((name, f"**all: {kind}**", count, *numbers, "", ""))
        for row in found:
            numbers = _ms(row["step"]["ours"], row["step"]["torch"], row["excess"])
            forward = _ms(row["forward"]["ours"], row["forward"]["torch"])
            rows.append((name, f"{row['kind']}, {row['layer']}", row["count"], *numbers, *forward))
    shape = f"batch {record['batch']} of {record['size']}x{record['size']}, {record['dtype']}"
    note = f"Time of a network's layers, each by itself, multiplied by its number, {shape}; step: result and gradients."
    return table(columns, rows, record, note)


def _ms(*seconds: float) -> list[str]:
    return [f"{1e3 * value:.2f}" for value in seconds]


def draw(figure: Any, record: dict[str, Any]) -> None:
    """Bars of the sums by kind."""
    labels, groups = [], {"ours": [], "torch": []}
    for name, found in record["networks"].items():
        for kind, seconds in sums(found).items():
            labels.append(f"{name}: {kind}")
            for form in groups:
                groups[form].append(1e3 * seconds[form])
    bars(figure, labels, groups, "ms of all layers of a kind, with gradients")


if __name__ == "__main__":
    sys.exit(main())

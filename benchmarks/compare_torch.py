"""The same network, batch and optimiser in jaxseg and in PyTorch: `python benchmarks/compare_torch.py --out NAME`.

Both are timed in one process, one after the other in every round: PyTorch eager and `torch.compile`, channels-last,
with bfloat16 autocast on a GPU, against the step that `jaxseg.train` compiles. The networks have the same number of
parameters, which is checked. The ratio is PyTorch's time over ours: above 1, jaxseg is quicker.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import bars, environment, interleave, make_parser, save, table
from torch_networks import NETWORKS, Network

from jaxseg import losses, models, parallel
from jaxseg.state import count_parameters, init_state
from jaxseg.step import make_train_step

LEARNING_RATE, MOMENTUM = 0.01, 0.9


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS), metavar="NAME",
                        help=f"of {', '.join(NETWORKS)} (default: all)")  # fmt: skip
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="height and width (default 128)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=None, help="default: bfloat16 on a GPU")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(argv)
    try:
        import torch
    except ImportError:
        print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
        return 1
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    if options.dtype is None:
        options.dtype = "bfloat16" if on_gpu else "float32"
    if options.smallest:
        options.networks, options.batch, options.size, options.repeats = ["unet"], 1, 16, 1
        options.no_compile = True
    record: dict[str, Any] = {
        "environment": environment() | {"torch_threads": torch.get_num_threads()},
        "batch": options.batch, "size": options.size, "dtype": options.dtype, "networks": {},
    }  # fmt: skip
    for name in options.networks:
        record["networks"][name] = measure(NETWORKS[name], options, "cuda" if on_gpu else "cpu")
        print(name, record["networks"][name], file=sys.stderr)
    save(options.out, record, describe(record), lambda figure: draw(figure, record))
    return 0


def measure(network: Network, options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Returns {"parameters": n, "train": {form: seconds}, "infer": {form: seconds}} of one network."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size)
    image = rng.normal(size=(*shape, 3)).astype(np.float32)
    label = rng.integers(0, network.num_classes, shape).astype(np.uint8)
    train, infer, ours = jax_cases(network, image, label, options.dtype)
    for form in ("eager",) if options.no_compile else ("eager", "compile"):
        try:
            one, two, theirs = torch_cases(network, image, label, options.dtype, device, form == "compile")
            if ours != theirs:
                raise ValueError(f"jaxseg has {ours:,} parameters, PyTorch {theirs:,}: these are different networks.")
            one(), two()  # whatever torch.compile cannot do shows here
        except (ImportError, RuntimeError) as error:
            print(f"torch {form} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        train[f"torch {form}"], infer[f"torch {form}"] = one, two
    return {
        "parameters": ours,
        "train": interleave(train, options.repeats, warmup=2),
        "infer": interleave(infer, options.repeats, warmup=2),
    }


Cases = dict[str, Callable[[], Any]]


def jax_cases(network: Network, image: np.ndarray, label: np.ndarray, dtype: str) -> tuple[Cases, Cases, int]:
    """Our training step and inference, compiled as `jaxseg.train` does it, and the number of parameters."""
    strategy = parallel.make_strategy("jit", {"--batch": len(image)}, jax.devices()[:1])
    model = models.build(network.model, num_classes=network.num_classes, dtype=dtype, **network.fields)
    tx = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    loss = losses.make_loss("cross_entropy", num_classes=network.num_classes)
    program = strategy.compile_train(make_train_step(model, tx, loss))
    init = jax.jit(lambda key: init_state(model, tx, key, image.shape[1:]))
    state, key = strategy.put_state(init(jax.random.key(0))), strategy.put_key(jax.random.key(1))
    batch = strategy.put_batch({"image": image, "label": label})
    variables = jax.device_put(jax.device_get(state.variables))
    forward = jax.jit(
        lambda variables, image: model.apply(variables, image, train=False)[0],
        compiler_options=parallel.compiler_options(),
    )
    x = jnp.asarray(image)

    def train() -> Any:
        nonlocal state
        state, metrics = program(state, batch, key)
        return metrics["loss"]

    return {"jaxseg": train}, {"jaxseg": lambda: forward(variables, x)}, count_parameters(variables["params"])


def torch_cases(
    network: Network, image: np.ndarray, label: np.ndarray, dtype: str, device: str, compiled: bool
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """PyTorch's training step and inference, channels-last, and the number of parameters."""
    import torch

    module = network.torch().to(device).to(memory_format=torch.channels_last)
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).to(device).contiguous(memory_format=torch.channels_last)
    target = torch.from_numpy(label.astype(np.int64)).to(device)
    optimizer = torch.optim.SGD(module.parameters(), LEARNING_RATE, MOMENTUM, foreach=True)
    run = torch.compile(module) if compiled else module
    half = dtype == "bfloat16"

    def train() -> Any:
        module.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = run(x)
        loss = torch.nn.functional.cross_entropy(logits.float(), target, ignore_index=255)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer() -> Any:
        module.eval()
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            return run(x)

    return train, infer, sum(p.numel() for p in module.parameters())


def describe(record: dict[str, Any]) -> str:
    """Returns the table."""
    columns = ("network", "parameters", "train: ours, ms", "torch eager", "torch.compile",
               "inference: ours, ms", "torch eager", "torch.compile")  # fmt: skip
    rows = []
    for name, times in record["networks"].items():
        row = [name, f"{times['parameters']:,}"]
        for kind in ("train", "infer"):
            own = times[kind]["jaxseg"]
            row.append(f"{1e3 * own:.0f}")
            for form in ("torch eager", "torch compile"):
                row.append(f"{times[kind][form] / own:.2f} x" if form in times[kind] else "")
        rows.append(row)
    shape = f"batch {record['batch']} of {record['size']}x{record['size']}, {record['dtype']}"
    return table(columns, rows, record, f"PyTorch's time over ours (above 1: jaxseg is quicker), {shape}.")


def draw(figure: Any, record: dict[str, Any]) -> None:
    """Bars of the ratios."""
    groups: dict[str, list[float]] = {}
    for kind in ("train", "infer"):
        for form in ("torch eager", "torch compile"):
            ratios = [
                times[kind][form] / times[kind]["jaxseg"] if form in times[kind] else float("nan")
                for times in record["networks"].values()
            ]
            groups[f"{kind}, {form}"] = ratios
    bars(figure, list(record["networks"]), groups, "PyTorch's time, jaxseg = 1", 1.0)


if __name__ == "__main__":
    sys.exit(main())

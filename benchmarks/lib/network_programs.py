"""One network as the programs that `compare_torch.py` times: in jaxseg, in plain Flax and in PyTorch.

All train on one batch that lies on the device, with cross-entropy and SGD with momentum.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from lib.networks import Network
from lib.timing import flops_of, peak_bytes, wait

from jaxseg import losses, parallel
from jaxseg.compiler import compiler_options, jit
from jaxseg.nn.folding import find_pairs, fold, folded
from jaxseg.state import count_parameters, init_state
from jaxseg.step import make_train_step

LEARNING_RATE, MOMENTUM = 0.01, 0.9
KINDS = ("train", "infer")


class NetworkPrograms(NamedTuple):
    """The training step and the inference of one network in one framework.

    Attributes:
        calls: {"train": one training step, "infer": one inference}, each returning arrays that may not be ready yet.
        parameters: number of parameters.
        memory: peak device memory in bytes of each call, with its inputs: what XLA plans, or what torch's allocator
            counts; None where it is not known.
        compile_seconds: time to compile each program; for torch, time of its first call.
        flops: operations of a training step, as XLA counts them; NaN for the other frameworks.
    """

    calls: dict[str, Callable[[], Any]]
    parameters: int
    memory: dict[str, int | None]
    compile_seconds: dict[str, float]
    flops: float = math.nan


def jaxseg_programs(network: Network, image: np.ndarray, label: np.ndarray, dtype: str) -> NetworkPrograms:
    """jaxseg's training step and inference, compiled as `jaxseg.train` and `jaxseg.predict` compile them."""
    strategy = parallel.make_strategy("jit", {"--batch": len(image)}, jax.devices()[:1])
    model, tx = network.ours(dtype), optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    loss = losses.make_loss("cross_entropy", num_classes=network.num_classes)
    init = jax.jit(lambda key: init_state(model, tx, key, image.shape[1:]))
    state, key = strategy.put_state(init(jax.random.key(0))), strategy.put_key(jax.random.key(1))
    batch, x = strategy.put_batch({"image": image, "label": label}), jnp.asarray(image)
    pure_step = make_train_step(model, tx, loss)
    step, step_seconds = compiled(strategy.compile_train(pure_step), state, batch, key)
    pairs = find_pairs(lambda variables, image: model.apply(variables, image, train=False), state.variables, x)
    variables = jax.device_put(jax.device_get(fold(state.variables, pairs)))
    apply = folded(model.apply, pairs)
    forward = jit(lambda variables, image: apply(variables, image, train=False)[0], compiler_options())
    forward, forward_seconds = compiled(forward, variables, x)

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, batch, key)
        return metrics["loss"]

    return NetworkPrograms(
        {"train": train, "infer": lambda: forward(variables, x)},
        count_parameters(variables["params"]),
        {"train": peak_bytes(step), "infer": peak_bytes(forward)},
        {"train": step_seconds, "infer": forward_seconds},
        flops_of(pure_step, state, batch, key),
    )


def flax_programs(network: Network, image: np.ndarray, label: np.ndarray, dtype: str) -> NetworkPrograms:
    """A network in plain Flax under `jax.jit` without options."""
    model, tx = network.naive(dtype), optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    variables = jax.jit(model.init)(jax.random.key(0), image[:1])
    x, target = jnp.asarray(image), jnp.asarray(label, jnp.int32)

    def update(params: Any, stats: Any, opt_state: Any, image: jax.Array, label: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            logits, moved = model.apply(variables, image, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), moved["batch_stats"]

        (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), moved, opt_state), value

    state = variables["params"], variables["batch_stats"], tx.init(variables["params"])
    step, step_seconds = compiled(jax.jit(update), *state, x, target)
    forward, forward_seconds = compiled(jax.jit(model.apply), variables, x)

    def train() -> Any:
        nonlocal state
        state, value = step(*state, x, target)
        return value

    return NetworkPrograms(
        {"train": train, "infer": lambda: forward(variables, x)},
        count_parameters(variables["params"]),
        {"train": peak_bytes(step), "infer": peak_bytes(forward)},
        {"train": step_seconds, "infer": forward_seconds},
    )


def compiled(function: Any, *args: Any) -> tuple[Any, float]:
    """Compiles a jitted function for these arguments; returns (the program, seconds)."""
    begin = time.perf_counter()
    program = function.lower(*args).compile()
    return program, time.perf_counter() - begin


def torch_programs(
    network: Network, image: np.ndarray, label: np.ndarray, dtype: str, device: str, mode: str | None
) -> NetworkPrograms:
    """PyTorch's training step and inference; `mode` is the mode of torch.compile, None for eager.

    Autocast keeps layer norms, and so the sums of SegFormer's blocks, in float32; jaxseg has them in bfloat16.
    """
    import torch

    torch.compiler.reset()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    module = network.torch().to(device).to(memory_format=torch.channels_last)
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).to(device).contiguous(memory_format=torch.channels_last)
    target = torch.from_numpy(label.astype(np.int64)).to(device)
    optimizer = torch.optim.SGD(module.parameters(), LEARNING_RATE, MOMENTUM, fused=True)
    half = dtype == "bfloat16"

    def forward(x: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return module(x)

    def objective(x: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(forward(x), target, ignore_index=255)

    forward_, objective_, no_gradients = forward, objective, torch.inference_mode
    if mode is not None:
        forward_, objective_ = torch.compile(forward, mode=mode), torch.compile(objective, mode=mode)
        no_gradients = torch.no_grad  # torch.compile may refuse the tensors of inference mode

    def train() -> Any:
        module.train()
        optimizer.zero_grad(set_to_none=True)
        loss = objective_(x, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer() -> Any:
        module.eval()
        with no_gradients():
            return forward_(x)

    calls, memory, seconds = {"train": train, "infer": infer}, {}, {}
    for kind in reversed(KINDS):  # inference first, because it needs no gradients and moments
        begin = time.perf_counter()
        wait(calls[kind]())
        seconds[kind] = time.perf_counter() - begin
        memory[kind] = None
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            wait(calls[kind]())
            memory[kind] = torch.cuda.max_memory_allocated() - before
    return NetworkPrograms(calls, sum(p.numel() for p in module.parameters()), memory, seconds)

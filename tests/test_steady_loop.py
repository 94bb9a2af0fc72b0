"""The training loop after its first steps: no compilation, and no implicit transfer to or from devices."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from helpers.tiny_run import tiny_config

from jaxseg.config import update
from jaxseg.parallel import JitStrategy, PmapStrategy
from jaxseg.train import train

BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The names of the programs that XLA compiles or takes from the cache on disk."""
    names: list[str] = []

    def listen(event: str, seconds: float, **about: Any) -> None:
        if event == BACKEND_COMPILE:
            names.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("strategy", [JitStrategy, PmapStrategy])
def test_nothing_compiles_twice_or_crosses_over_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[str], strategy: type
) -> None:
    """A run on eight devices, with three evaluations, checkpoints and pictures.

    The training and the evaluation step compile once, ahead of their first call, to be checked against the memory that
    is free. After the first evaluation, when every part of the loop has run once, nothing compiles. Neither step nor
    the placing of a batch transfers anything between host and devices except by an explicit `device_put`.
    """
    inside: dict[str, list[int]] = {"train": [], "eval": []}
    ahead: dict[str, list[int]] = {"train": [], "eval": []}
    before: list[int] = []  # compilations until each training step

    def watched(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def compile_step(self: Any, step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
            made = make(self, step, **options)

            def compile_ahead(*arguments: Any) -> Callable[..., Any]:
                so_far = len(compiled)
                program = made.lower(*arguments).compile()
                ahead[kind].append(len(compiled) - so_far)
                return watch(kind, program)

            watched_step = SimpleNamespace(
                lower=lambda *arguments: SimpleNamespace(compile=lambda: compile_ahead(*arguments))
            )
            if hasattr(made, "eval_shape"):  # what traces the step before it is compiled
                watched_step.eval_shape = made.eval_shape
            return watched_step

        return compile_step

    def watch(kind: str, run: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            before.extend([len(compiled)] if kind == "train" else [])
            so_far = len(compiled)
            with jax.transfer_guard("disallow"):
                result = run(*arguments)
            inside[kind].append(len(compiled) - so_far)
            return result

        call.memory_analysis = run.memory_analysis
        return call

    def explicit(put: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with jax.transfer_guard("disallow"):
                return put(*arguments)

        return call

    monkeypatch.setattr(strategy, "compile_train", watched("train", strategy.compile_train))
    monkeypatch.setattr(strategy, "compile_eval", watched("eval", strategy.compile_eval))
    monkeypatch.setattr(strategy, "put_batch", explicit(strategy.put_batch))
    config = tiny_config(
        strategy="jit" if strategy is JitStrategy else "pmap",
        steps=5,
        batch_size=8,
        eval__every=2,
        checkpoint__every=1,
        log__every=1,
        log__images=1,
        log__tensorboard=False,
        ema__decay=0.9,
        augment__flip_horizontal=0.5,
        data__shapes_val=12,
    )
    update(config, eval__batch_size=8)
    train(config, tmp_path / "run", "x")
    assert ahead == {"train": [1], "eval": [1]}, compiled
    assert inside == {"train": [0, 0, 0, 0, 0], "eval": [0, 0, 0, 0, 0, 0]}, compiled
    assert len(compiled) == before[2], compiled[before[2] :]


def test_the_watch_is_able_to_fail(compiled: list[str]) -> None:
    step = jax.jit(lambda x: 3 * x + 1)
    step(jax.numpy.zeros(3))
    so_far = len(compiled)
    step(jax.numpy.ones(3))
    assert len(compiled) == so_far > 0
    step(jax.numpy.zeros(4, "int8"))
    assert len(compiled) > so_far
    with jax.transfer_guard("disallow"), pytest.raises(RuntimeError, match="Disallowed host-to-device transfer"):
        step(jax.device_get(jax.numpy.zeros(3)))

"""Training by several processes: two with two devices each give the results of one with four.

Run as a program, this file is one of the two processes.
"""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from helpers.tiny_run import make_folder
from helpers.xla_flags import quick_flags

from jaxseg import losses, models
from jaxseg.errors import ConfigError
from jaxseg.mesh import Axes
from jaxseg.parallel import Strategy, make_strategy
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.hosts import join_hosts
from jaxseg.state import TrainState, init_state
from jaxseg.step import make_eval_step, make_train_step

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("jit", "pmap", "mesh")
BATCH = 8
# Each process holds half of the rows of its images on each device, and both hold a part of the state.
MESH = Axes(data=1, fsdp=2, space=2)


def strategy_of(name: str, devices: list | None = None) -> Strategy:
    if name != "mesh":
        return make_strategy(name, {"batch_size": BATCH}, devices)
    strategy = make_strategy("jit", {"batch_size": BATCH}, devices, axes=MESH)
    return dataclasses.replace(strategy, smallest=8)


def global_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    labels = rng.integers(0, 3, (BATCH, 8, 8)).astype(np.uint8)
    labels[: BATCH // 2, :5] = 255  # one process has fewer labelled pixels, so that a mean of means is wrong
    return {"image": rng.normal(size=(BATCH, 8, 8, 3)).astype(np.float32), "label": labels}


def train(strategy: Strategy) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Makes two steps and an evaluation with this process's part of each batch; returns the state and the numbers."""
    part = BATCH // jax.process_count()
    mine = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
    fields = {"num_classes": 3, "widths": (4,), "hidden": 8, "hidden_kernel": 3, "dropout": 0.3, "norm": "batch"}
    tx, loss = optax.sgd(0.1, momentum=0.9), losses.make_loss("cross_entropy + 0.5 * dice", num_classes=3)
    model = models.build("cnn", axis_name=strategy.axis_name, **fields)
    step = strategy.compile_train(make_train_step(model, tx, loss, ema_decay=0.9, axis_name=strategy.axis_name))
    evaluate = strategy.compile_eval(make_eval_step(model, loss, axis_name=strategy.axis_name))
    place = lambda i: strategy.put_batch({name: x[mine] for name, x in global_batch(i).items()})  # noqa: E731
    init = jax.jit(lambda key: init_state(models.build("cnn", **fields), tx, key, (8, 8, 3), ema=True))
    state, key = strategy.put_state(init(jax.random.key(0))), strategy.put_key(jax.random.key(1))
    for i in range(2):
        state, metrics = step(state, place(i), key)
    numbers = jax.device_get(strategy.first({"train": metrics, "eval": evaluate(state, place(2))}))
    one = strategy.get_state(state)
    compiled: list[str] = []
    listen = lambda event, _, **about: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    strategy.get_state(state)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "compile" in event]  # as at every save after the first
    # A single process may work with its copy alone: the pictures of predictions are drawn by the first.
    logits, _ = jax.jit(model.clone(common=model.common.replace(axis_name=None)).apply)(
        one.variables, global_batch(2)["image"][:1]
    )
    named = {"state": one, "numbers": numbers, "logits": logits}
    return one, {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(named)}


def main(process: int, port: int, out: Path) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 2, 4)
    for name in STRATEGIES:
        state, arrays = train(strategy_of(name))
        np.savez(out / f"{name}-{process}.npz", **arrays)
        with Checkpoints(out / name, config={"strategy": name}) as checkpoints:
            checkpoints.save(2, state, {"process": process}, {"mean_iou": 0.5})
            checkpoints.save(3, state, {"process": process}, wait=True)
            restored = checkpoints.restore(state)
            assert (restored.step, restored.iterator_state) == (3, {"process": process})
            np.testing.assert_equal(jax.tree.leaves(restored.state), list(map(np.asarray, jax.tree.leaves(state))))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run_together(commands: list[list[str]]) -> list[str]:
    """Runs Python commands at the same time, with two devices each, and returns the output of each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": quick_flags(devices=2)}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in commands
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)
    return said


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, port = tmp_path_factory.mktemp("two"), free_port()
    run_together([[__file__, str(process), str(port), str(out)] for process in range(2)])
    return out


@pytest.mark.slow  # the command does the same below
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_processes_end_where_one_does(two_processes: Path, name: str) -> None:
    state, one = train(strategy_of(name, jax.devices()[:4]))
    for process in range(2):
        with np.load(two_processes / f"{name}-{process}.npz") as two:
            assert set(two) == set(one)
            for key in one:
                np.testing.assert_allclose(two[key], one[key], rtol=1e-5, atol=1e-5, err_msg=f"{process} {key}")
    with Checkpoints(two_processes / name) as checkpoints:
        assert checkpoints.steps() == [2, 3] and checkpoints.best_step() == 2
        restored = checkpoints.restore(jax.eval_shape(lambda: state))
    assert restored.iterator_states == ({"process": 0}, {"process": 1}) and restored.config == {"strategy": name}
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def training(strategy: str) -> list[str]:
    """The command of a short training without its workdir."""
    values = {
        "strategy": strategy,
        "steps": 4,
        "batch_size": 4,
        "eval.batch_size": 4,
        "eval.every": 2,
        "checkpoint.every": 2,
        "log.every": 1,
        "log.images": 0,
        "log.tensorboard": False,
        "data.shapes_train": 16,
        "data.shapes_val": 5,
        "data.size": "16,16",
        "model.args.widths": "(4,8)",
        "model.args.hidden": 8,
        "schedule.warmup": 0,
    }
    options = [f"--config.{key}={value}" for key, value in values.items()]
    return ["-m", "jaxseg.train", "--config", "experiments/cnn.py", *options]


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The workdir and the output of the training by one process."""
    workdir = tmp_path_factory.mktemp("one")
    (said,) = run_together([[*training("jit"), "--workdir", str(workdir)]])
    return workdir, said


@pytest.mark.parametrize(
    ("strategy", "starts"),
    # Each is two processes; of `pmap`, tests of one process compare the step with that of `jit`.
    [("jit", 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("pmap", 1), ("jit", 2), ("pmap", 2)))],
)
def test_the_command_trains_on_two_hosts_as_on_one(
    one_host: tuple[Path, str], tmp_path: Path, strategy: str, starts: int
) -> None:
    """`jaxseg.train --coordinator` with two processes of two devices against one process with two, which has `jit`."""
    for _ in range(starts):  # a second start finds a finished run, whose checkpoint both processes read
        hosts = ["--coordinator", f"localhost:{free_port()}", "--processes", "2", "--workdir", str(tmp_path)]
        first, second = run_together([[*training(strategy), *hosts, "--process", str(i)] for i in range(2)])
    workdir, said = one_host
    assert "4 cpu devices," in first and "2 cpu devices," in said
    # Process 0 reports for both. The words of Gloo's lines, which several threads write, may be mixed.
    gloo = r"\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks is : "
    assert not re.sub(gloo, "", second).strip(), second
    texts = [(path / "log.jsonl").read_text() for path in (workdir, tmp_path)]
    logs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert len(logs[0]) == len(logs[1]) >= 6
    for one, two in zip(*logs):
        assert (one["step"], one["split"]) == (two["step"], two["split"])
        np.testing.assert_allclose([two["loss"], two["mean_iou"]], [one["loss"], one["mean_iou"]], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_hosts_score_images_of_several_sizes_in_tiles(tmp_path: Path) -> None:
    """Each process scores other images, and so meets other sizes, of which it checks the memory for itself."""
    make_folder(tmp_path / "data", [(16, 16)] * 4, split="train")
    make_folder(tmp_path / "data", [(16, 16), (24, 40), (16, 16), (33, 20), (16, 16)])
    values = {
        "steps": 2,
        "batch_size": 4,
        "eval.every": 1,
        "eval.tiles": "16x16",
        "log.tensorboard": False,
        "data.source": "folder",
        "data.dir": tmp_path / "data",
        "data.fit": "crop",
        "data.size": "16,16",
        "model.args.widths": "(4,8)",
        "model.args.hidden": 8,
        "schedule.warmup": 0,
    }
    command = ["-m", "jaxseg.train", "--config", "experiments/cnn.py"]
    command += [f"--config.{key}={value}" for key, value in values.items()]
    run_together([[*command, "--workdir", str(tmp_path / "one")]])
    hosts = ["--coordinator", f"localhost:{free_port()}", "--processes", "2", "--workdir", str(tmp_path / "two")]
    run_together([[*command, *hosts, "--process", str(i)] for i in range(2)])
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    one, two = ([json.loads(line) for line in lines if '"val"' in line] for lines in logs)
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2]
    for a, b in zip(one, two):
        np.testing.assert_allclose([b["loss"], b["mean_iou"]], [a["loss"], a["mean_iou"]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 2, 0), "need --coordinator"),
        (("localhost:1", None, 0), "needs --processes N"),
        (("localhost:1", 2, 2), "0 <= I < N"),
    ],
)
def test_wrong_hosts_are_one_sentence(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        join_hosts(*arguments)


def test_a_cluster_that_is_not_there() -> None:
    command = [sys.executable, "-m", "jaxseg.train", "--config", "experiments/cnn.py", "--coordinator", "auto"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("error: --coordinator auto finds no known cluster")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

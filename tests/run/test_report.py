"""Reports: correct numbers, one step late; complete lines without repetitions; no needless imports."""

import io
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import scores
from jaxseg.run import report
from jaxseg.run.report import Reporter, read_log

ROOT = Path(__file__).resolve().parents[2]


def step_metrics(step: int, loss: float | None = None, rate: float = 0.1) -> dict[str, jax.Array]:
    return {
        "loss": jnp.float32(step if loss is None else loss),
        "grad_norm": jnp.float32(2 * step),
        "param_norm": jnp.float32(3 * step),
        "learning_rate": jnp.float32(rate / step),
        "confusion": jnp.array([[3, 1], [0, step]], jnp.int32),
    }


def run(workdir: Path, start: int, stop: int, total: int = 10, every: int = 4, **options: Any) -> str:
    stream = io.StringIO()
    with Reporter(workdir, every=every, stream=stream, **{"tensorboard": False, **options}) as reporter:
        reporter.start(start, total)
        for step in range(start + 1, stop + 1):
            reporter.train(step, step_metrics(step), images=8)
    return stream.getvalue()


def test_reads_one_step_late(tmp_path: Path) -> None:
    with Reporter(tmp_path, every=2, tensorboard=False, stream=io.StringIO()) as reporter:
        reporter.start(0, 9)
        assert reporter.flush() is None
        assert reporter.train(1, step_metrics(1), 8) is None
        done = reporter.train(2, step_metrics(2), 8)
        assert done == (1, 1.0, 2.0, 3.0) and done.finite
        assert read_log(tmp_path / "log.jsonl") == []
        assert reporter.flush() == (2, 2.0, 4.0, 6.0)
        assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [2]
        assert reporter.flush() is None


def test_does_not_touch_a_value_before_the_next_step(tmp_path: Path) -> None:
    class Untouchable:
        """An array that the device has not computed yet."""

        ready = False

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            assert self.ready
            return np.zeros((2, 2), np.int32) if dtype is None else np.zeros((2, 2), dtype)

    confusion = Untouchable()
    with Reporter(tmp_path, every=1, tensorboard=False, stream=io.StringIO()) as reporter:
        reporter.start(0, 9)
        reporter.train(1, {**step_metrics(1), "confusion": confusion}, 8)
        confusion.ready = True
        assert reporter.train(2, step_metrics(2), 8).step == 1


@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tells_what_is_not_finite(tmp_path: Path, name: str, value: float) -> None:
    with Reporter(tmp_path, every=1, tensorboard=True, stream=io.StringIO()) as reporter:
        reporter.start(0, 9)
        reporter.train(1, {**step_metrics(1), name: jnp.float32(value)}, 8)
        done = reporter.flush()
    assert done.step == 1 and not done.finite
    [record] = read_log(tmp_path / "log.jsonl")
    assert record[name] is None
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()


def test_a_line_covers_the_steps_since_the_one_before(tmp_path: Path) -> None:
    run(tmp_path, 0, 10)
    records = read_log(tmp_path / "log.jsonl")
    assert [r["step"] for r in records] == [4, 8, 10]  # every fourth, and the last
    assert all(list(r)[:2] == ["step", "split"] and r["split"] == "train" for r in records)
    second = records[1]
    assert second["loss"] == np.mean([5, 6, 7, 8]) and second["grad_norm"] == 2 * second["loss"]
    assert second["learning_rate"] == pytest.approx(0.1 / 8)
    assert second["mean_iou"] == pytest.approx(scores(np.array([[12, 4], [0, 26]])).mean_iou)
    assert second["images_per_second"] > 0


def test_the_terms_of_the_loss_are_logged_by_name(tmp_path: Path) -> None:
    """The means over the steps since the line before, also where a stop and a restart lie between them."""
    window = None
    for steps in ((1, 2, 3), (4,)):
        with Reporter(tmp_path, every=4, tensorboard=True, stream=io.StringIO()) as reporter:
            reporter.start(steps[0] - 1, 4, window)
            for step in steps:
                terms = {"dice": jnp.float32(step), "discriminator": jnp.float32(10 * step)}
                reporter.train(step, {**step_metrics(step), "terms": terms}, 8)
            reporter.flush()
            window = json.loads(json.dumps(reporter.open_window()))
    [record] = read_log(tmp_path / "log.jsonl")
    assert (record["loss"], record["loss/dice"], record["loss/discriminator"]) == (2.5, 2.5, 25.0)
    written = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"train/loss/dice" in written and b"train/loss/discriminator" in written


def test_pauses_do_not_count_as_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(report.time, "perf_counter", lambda: now[0])
    with Reporter(tmp_path, every=4, tensorboard=False, stream=io.StringIO()) as reporter:
        reporter.start(0, 8)
        for step in range(1, 9):
            now[0] += 100.0 if step == 1 else 2.0  # compilation
            reporter.train(step, step_metrics(step), 8)
            if step == 6:
                reporter.flush()
                now[0] += 1000.0  # an evaluation
    assert [r["images_per_second"] for r in read_log(tmp_path / "log.jsonl")] == [4.0, 4.0]


def test_the_first_steps_say_how_long_the_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], {}
    monkeypatch.setattr(report.time, "perf_counter", lambda: now[0])
    for seconds in (0.01, 2.0, 10.0):
        stream = io.StringIO()
        with Reporter(tmp_path, every=100, tensorboard=False, stream=stream, advice="a GPU") as reporter:
            reporter.start(0, 1000)
            for step in range(1, 20):
                now[0] += 500.0 if step == 1 else seconds  # compilation
                reporter.train(step, step_metrics(step), 8)
        said[seconds] = stream.getvalue()
    assert said[0.01] == ""
    assert said[2.0] == "about 33 min 08 s for the 994 steps left (2 s a step), evaluations not counted\n"
    assert said[10.0] == (
        "about 2 h 45 min for the 994 steps left (10 s a step), evaluations not counted; quicker: a GPU\n"
    )


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    lines = run(tmp_path, 0, 8).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 4/10  loss 2.5000  mIoU 7") and "img/s" in lines[0] and lines[0].endswith("left")


def test_no_rate_without_a_timed_step(tmp_path: Path) -> None:
    assert "img/s -  ? left" in run(tmp_path, 0, 1, every=1)
    assert read_log(tmp_path / "log.jsonl")[0]["images_per_second"] is None


def test_evaluation_record(tmp_path: Path) -> None:
    result = scores(np.array([[3, 1, 0], [1, 5, 0], [0, 0, 0]]))
    stream = io.StringIO()
    with Reporter(tmp_path, every=4, tensorboard=True, classes=("a", "b", "c"), stream=stream) as reporter:
        reporter.start(0, 8)
        reporter.train(3, step_metrics(3), 8)
        reporter.evaluation(3, result, 0.25)
        reporter.evaluation(3, scores(np.zeros((3, 3), int)), math.nan, "test")
    record, _ = read_log(tmp_path / "log.jsonl")
    assert (record["step"], record["split"], record["loss"]) == (3, "val", 0.25)
    assert "step 3/8  test: no labelled pixel, so nothing to score\n" in stream.getvalue()
    assert record["mean_iou"] == result.mean_iou and record["pixel_accuracy"] == 0.8
    assert record["iou"] == [pytest.approx(0.6), pytest.approx(5 / 7), None]
    assert "step 3/8  val: mIoU 65.71 %  pixel accuracy 80.00 %  loss 0.2500" in stream.getvalue()


def test_a_line_that_a_pause_divides_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run(tmp_path / "whole", 0, 8)
    window = None
    for start, stop in ((0, 3), (3, 6), (6, 7), (7, 8)):
        with Reporter(tmp_path / "parts", every=4, stream=io.StringIO(), tensorboard=False) as reporter:
            reporter.start(start, 10, window)
            for step in range(start + 1, stop + 1):
                reporter.train(step, step_metrics(step), images=8)
            reporter.flush()
            window = json.loads(json.dumps(reporter.open_window()))
    assert window is None, "a log step leaves nothing"
    whole, parts = (read_log(tmp_path / name / "log.jsonl") for name in ("whole", "parts"))
    assert [record["step"] for record in whole] == [4, 8]
    for record in (*whole, *parts):
        del record["images_per_second"]
    assert parts == whole


def test_resuming_drops_later_and_torn_lines(tmp_path: Path) -> None:
    run(tmp_path, 0, 10, every=2)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 11, "lo')
    run(tmp_path, 5, 10, every=2)
    log = tmp_path / "log.jsonl"
    assert [record["step"] for record in read_log(log)] == [2, 4, 6, 8, 10]
    assert all(json.loads(line) for line in log.read_text().splitlines())
    run(tmp_path, 0, 2, every=2)  # the run starts again, for example because its checkpoints were removed
    assert [record["step"] for record in read_log(log)] == [2]


def test_log_without_records(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('\n{"a": 1}\n[3]\nnonsense\n')
    assert read_log(tmp_path / "log.jsonl") == []


def test_full_disk_costs_lines_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    write = os.write
    with Reporter(tmp_path, every=1, tensorboard=False, stream=stream) as reporter:
        reporter.start(0, 9)
        reporter.train(1, step_metrics(1), 8)
        reporter.flush()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
            with pytest.warns(UserWarning, match="lines are missing from step 2 on: no space"):
                for step in (2, 3):
                    reporter.train(step, step_metrics(step), 8)
                reporter.flush()
        reporter.train(4, step_metrics(4), 8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reporter.flush()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 4]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def tensorboard_values(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads scalars and image names of the event files, newest file last."""
    import struct

    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += length + 16
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard(tmp_path: Path) -> None:
    with Reporter(tmp_path, every=2, tensorboard=True, classes=("a b", "c"), stream=io.StringIO()) as reporter:
        reporter.start(0, 9)
        for step in (1, 2, 3, 4):
            reporter.train(step, step_metrics(step), 8)
        reporter.evaluation(4, scores(np.array([[1, 1], [0, 2]])), 0.5)
        reporter.picture(4, "predictions", np.zeros((6, 8, 3), np.uint8))
        reporter.picture(4, "several", np.zeros((2, 6, 8, 3), np.uint8))
    found = tensorboard_values(tmp_path)
    assert found["train/loss"] == [(2, 1.5), (4, 3.5)]
    assert found["val/mean_iou"] == [(4, pytest.approx(7 / 12))] and found["val/loss"] == [(4, 0.5)]
    assert any(tag.startswith("val/iou/a") for tag in found) and {"predictions", "several"} <= found.keys()


def test_tensorboard_is_not_imported_where_not_wanted(tmp_path: Path) -> None:
    code = (
        "import sys; from jaxseg.run.report import Reporter; import io, pathlib\n"
        "with Reporter(sys.argv[1], every=1, tensorboard=False, stream=io.StringIO()) as reporter:\n"
        "    reporter.start(0, 1)\n"
        "assert not any(name.split('.')[0] in ('tensorboardX', 'google', 'matplotlib', 'PIL') for name in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert not (tmp_path / "tensorboard").exists()


def test_only_the_first_process_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert run(tmp_path, 0, 5, tensorboard=True) == ""
    assert list(tmp_path.iterdir()) == []


def test_closing_reads_what_is_pending_and_twice_is_fine(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, every=1, tensorboard=False, stream=io.StringIO())
    reporter.start(0, 3)
    reporter.train(1, step_metrics(1), 8)
    reporter.close()
    reporter.close()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1]


def test_takes_metrics_replicated_over_devices(tmp_path: Path) -> None:
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with Reporter(tmp_path, every=1, tensorboard=False, stream=io.StringIO()) as reporter:
        reporter.start(0, 3)
        reporter.train(1, jax.device_put(step_metrics(1), jax.NamedSharding(mesh, jax.P())), 8)
        assert reporter.flush().loss == 1.0

"""Signals: the first asks the run to stop, the second ends the process, and the handlers are restored."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from jaxseg.run.signals import stop_on_signal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_sets_the_flag(number: signal.Signals, capfd: pytest.CaptureFixture) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        stop.finishing = "baking the bread"
        assert not stop.requested and not stop.agreed()
        os.kill(os.getpid(), number)
        assert stop.requested and stop.agreed() and stop.signal == number
    assert signal.getsignal(number) is before
    assert f"{number.name}: baking the bread; a second signal stops at once." in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_leaves_where_there_is_nothing_to_finish(
    number: signal.Signals, capfd: pytest.CaptureFixture
) -> None:
    before, closed = signal.getsignal(number), []
    with pytest.raises(SystemExit) as left, stop_on_signal():
        try:
            os.kill(os.getpid(), number)
        finally:
            closed.append(True)
    assert left.value.code == 128 + number and closed and signal.getsignal(number) is before
    assert f"{number.name}: stopping; there is nothing to save." in capfd.readouterr().err


def test_a_signal_in_a_destructor_ends_the_process_all_the_same(capfd: pytest.CaptureFixture) -> None:
    """Python ignores what a `__del__` or a callback of the garbage collector raises; JAX has such a callback."""

    class Last:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(10))  # the handler runs between two instructions of Python

    last, hook = [Last()], sys.unraisablehook
    with pytest.raises(SystemExit) as left, stop_on_signal():
        last.clear()
        for _ in range(500):
            time.sleep(0.01)
        pytest.fail("the signal was ignored")
    assert left.value.code == 128 + signal.SIGTERM and sys.unraisablehook is hook
    error = capfd.readouterr().err
    assert error.count("SIGTERM: stopping; there is nothing to save.") == 1 and "Traceback" not in error


def test_a_hook_for_ignored_errors_that_is_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    with stop_on_signal():
        sys.unraisablehook = other = lambda unraisable: None
    assert sys.unraisablehook is other


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), stop_on_signal():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_handlers_outside_the_main_thread() -> None:
    seen = []

    def run() -> None:
        with stop_on_signal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process(number: signal.Signals) -> None:
    code = """
        import time
        from jaxseg.run.signals import stop_on_signal
        with stop_on_signal() as stop:
            stop.finishing = "sleeping"
            print("ready", flush=True)
            while not stop.requested:
                time.sleep(0.01)
            print("asked", flush=True)
            time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, stdout=subprocess.PIPE, text=True
    )
    for expected in ("ready\n", "asked\n"):
        assert process.stdout.readline() == expected
        process.send_signal(number)
    assert process.wait(timeout=20) == -number
    process.stdout.close()

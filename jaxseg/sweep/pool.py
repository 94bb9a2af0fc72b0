"""Runs the runs of a sweep, each in its own process, with one process a device."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jaxseg
from jaxseg.errors import ConfigError
from jaxseg.run.signals import StopRequest
from jaxseg.sweep.plan import PlannedRun
from jaxseg.sweep.progress import Progress
from jaxseg.sweep.records import read_failure, read_scores, write_failure
from jaxseg.sweep.worker import FINISHED, STOPPED

CONSOLE_FILE = "console.txt"
COMPILED = "compiled"
_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}
_PROBE = """
import json, jax
devices = jax.local_devices()
print(json.dumps([devices[0].platform, devices[0].client.platform_version.lower(), len(devices)]))
"""
_PAUSE = 0.2  # seconds between two polls of the processes

Environment = dict[str, str]


class _Process(NamedTuple):
    """A run in progress: its process, and its index among those of `places`."""

    run: PlannedRun
    place: int
    process: subprocess.Popen[bytes]


def places(jobs: int | None) -> list[Environment]:
    """Returns, for each process that may run at a time, the variables to add to its environment.

    Each process gets one GPU; with more jobs than GPUs several processes share one. Without GPUs each process has all
    local devices, and there is one process unless `jobs` sets another number.

    Raises:
        ConfigError: if JAX finds no device, or the devices cannot be shared.
    """
    kind, count = _devices()
    if kind == "tpu" and (jobs or 1) > 1:
        raise ConfigError(
            "A process takes all TPUs of its machine; leave --jobs, and use --shard with several machines."
        )
    if kind not in _VISIBLE:
        return [{}] * (jobs or 1)
    name = _VISIBLE[kind]
    visible = [part for part in os.environ[name].split(",") if part] if name in os.environ else []
    known = visible if len(visible) == count else [str(i) for i in range(count)]
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if (jobs or 0) > count else {}
    return [{name: known[i % count], **shared} for i in range(jobs or count)]


def cache_of(workdir: Path) -> dict[str, str]:
    """Returns the environment variables that let the seeds of a variant share compiled programs, without those set."""
    wanted = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir / COMPILED),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _devices() -> tuple[str, int]:
    """Returns the kind and number of the local devices. Another process asks for them, so that this one holds none."""
    if "JAX_PLATFORMS" in os.environ and os.environ["JAX_PLATFORMS"] == "cpu":
        return "cpu", 1
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ConfigError(f"JAX finds no device: {last}")
    platform, version, count = json.loads(done.stdout.splitlines()[-1])
    if platform != "gpu":
        return platform, count
    return "rocm" if "rocm" in version else "cuda", count


def run_all(
    runs: Iterable[PlannedRun],
    split: str,
    arguments: Sequence[str],
    environments: Sequence[Environment],
    progress: Progress,
    stop: StopRequest,
    prune: Callable[[PlannedRun], str] = lambda run: "",
) -> list[PlannedRun]:
    """Trains and scores the runs; returns those that failed. A failure does not stop the other runs.

    Once `stop.requested` is set, the runs in progress are asked to save, and no run is started.

    Args:
        runs: in the order in which they start; their workdirs exist and hold `config.json`. Each is asked for when
            there is a place for it, and waits for the run from whose weights it starts, which comes before it.
        split: the split to score.
        arguments: the program and arguments of the sweep's command line, for the records of the runs.
        environments: the result of `places`; none where there is nothing to run.
        progress: shows the progress.
        stop: from `stop_on_signal`.
        prune: looks at a run in progress; returns why it is to stop before its end, as a signal stops it, or "".
    """
    waiting, active, failed = _Waiting(iter(runs)), {}, []
    left, asked = bool(environments), False
    pruned: dict[int, str] = {}  # place: why its run is asked to stop
    with _killing(active):
        while active or (left and not stop.requested):
            for place, environment in enumerate(environments):
                if place not in active and left and not stop.requested:
                    run = waiting.take({one.run.name for one in active.values()})
                    if run is None:
                        left = waiting.left
                        break
                    if run.start in {other.name for other in failed}:
                        error = f"It starts from the weights of {run.start}, which failed."
                        write_failure(run.workdir, error)
                        failed.append(run)
                        progress.begin(place, run)
                        progress.end(place, run, error)
                        continue
                    active[place] = _Process(run, place, _start(run, split, arguments, environment))
                    progress.begin(place, run)
            if stop.requested and not asked:
                asked = True
                for one in active.values():
                    if one.place not in pruned:  # a second signal would end it at once
                        one.process.send_signal(signal.SIGTERM)
            time.sleep(_PAUSE)
            progress.look()
            for one in active.values():
                if not asked and one.place not in pruned and (why := prune(one.run)):
                    pruned[one.place] = why
                    one.process.send_signal(signal.SIGTERM)
            for one in [one for one in active.values() if one.process.poll() is not None]:
                del active[one.place]
                why = pruned.pop(one.place, "")
                stopped = one.process.returncode in (STOPPED, -signal.SIGTERM, -signal.SIGINT)
                if why and stopped:
                    progress.prune(one.place, one.run, why)
                    continue
                if stop.requested and stopped:
                    progress.stop(one.place, one.run)
                    continue
                error = _error(one, split)
                if error:
                    failed.append(one.run)
                progress.end(one.place, one.run, error)
    return failed


class _Waiting:
    """The runs that have not begun, in their order."""

    def __init__(self, runs: Iterator[PlannedRun]) -> None:
        self._runs, self._held, self.left = runs, list[PlannedRun](), True

    def take(self, active: Collection[str]) -> PlannedRun | None:
        """Returns the next run whose weights to start from are there; None if there is none now, or none `left`."""
        unfinished = {*active, *(run.name for run in self._held)}
        for run in self._held:
            if run.start not in unfinished:
                self._held.remove(run)
                return run
        for run in self._runs:
            if run.start not in unfinished:
                return run
            self._held.append(run)
            unfinished.add(run.name)
        self.left = bool(self._held)
        return None


def _start(run: PlannedRun, split: str, arguments: Sequence[str], environment: Environment) -> subprocess.Popen[bytes]:
    """Starts the process of a run in its own session: Ctrl-C reaches only this process, which passes it on."""
    root = str(Path(jaxseg.__file__).resolve().parent.parent)
    paths = [root, *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
    with (run.workdir / CONSOLE_FILE).open("ab") as console:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxseg.sweep.worker", str(run.workdir), split, *arguments],
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _error(one: _Process, split: str) -> str:
    """Returns the last line of the error that ended a run, and records it; empty for a run that finished."""
    status = one.process.returncode
    if status == FINISHED and read_scores(one.run.workdir, split) is not None:
        return ""
    error = read_failure(one.run.workdir)
    if error is None:
        console = "/".join([*one.run.workdir.parts[-2:], CONSOLE_FILE])  # in no record of a place of this machine
        if status == STOPPED or -status in (signal.SIGTERM, signal.SIGINT):
            error = "The run was stopped from outside; start the sweep again to resume it."
        elif status < 0:
            why = ", perhaps because memory ran out" if -status == signal.SIGKILL else ""
            error = f"The process was killed by {_name_of(-status)}{why}; see {console}."
        else:
            error = f"The process ended with status {status}; see {console}."
        write_failure(one.run.workdir, error)
    return error


def _name_of(number: int) -> str:
    """Returns the name of a signal; those of real time have only numbers."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


@contextmanager
def _killing(active: dict[int, _Process]) -> Iterator[None]:
    """Ends all processes on leaving, after an error too: those still running save and exit."""
    try:
        yield
    finally:
        for one in active.values():
            one.process.terminate()
        for one in active.values():
            one.process.wait()

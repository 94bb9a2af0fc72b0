"""Starts trainings as processes of their own, forked from one that has imported everything: a start takes no imports.

It reads a line of JSON for each command from standard input, and answers with one:

    {"start": ["--config", ...], "out": FILE, "plant": NAME, "values": [...]} -> {"pid": N}
    {"poll": N} -> {"status": the exit status, minus the signal, or null while it runs}

`plant` is the name of a function of `plants`, which is called with the values before the training.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

from helpers.figures import blank_figures

import jaxseg.train

# What a training imports late. Nothing uses a device yet.
LATE = ("jaxseg.session", "jaxseg.data.folders", "jaxseg.data.shapes", "jaxseg.models.cnn", "optax", "orbax.checkpoint")


def run(command: dict[str, Any]) -> int:
    """Runs one training in this process; returns its exit status."""
    os.setsid()
    out = os.open(command["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, out), (2, out)):
        os.dup2(source, target)
    try:
        if command["plant"]:
            getattr(importlib.import_module("plants"), command["plant"])(*command["values"])
        return jaxseg.train.main(command["start"])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def main() -> None:
    for name in LATE:
        importlib.import_module(name)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "poll" in command:
            answer = {"status": poll(command["poll"])}
        else:
            child = os.fork()
            if child == 0:
                status = run(command)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            answer = {"pid": child}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with blank_figures():
        main()

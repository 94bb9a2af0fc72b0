"""Training commands of a few steps on tiny images, and the state that a run leaves."""

from pathlib import Path

import numpy as np

from jaxseg.run.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
TINY = {
    "steps": 6,
    "batch_size": 8,
    "data.size": "(16,16)",
    "data.shapes_train": 20,
    "data.shapes_val": 8,
    "eval.every": 3,
    "eval.batch_size": 8,
    "checkpoint.every": 2,
    "log.every": 1,
    "log.images": 0,  # drawing a sheet is a fifth of the time of such a run
    "log.tensorboard": False,
    "model.args.widths": "(4,6)",
    "schedule.warmup": 1,
    "ema.decay": 0.9,
    "augment.zoom": "(0.8,1.2)",
    "augment.brightness": 0.2,
}


def arguments(workdir, experiment="experiments/resunet.py", **changes):
    """The command line of a tiny run; `changes` are keys, with `__` for the dot."""
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return ["--config", experiment, "--workdir", str(workdir), *(f"--config.{k}={v}" for k, v in values.items())]


def state_of(workdir):
    """Every array of the newest checkpoint, by name."""
    import orbax.checkpoint as ocp

    with Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
        path = checkpoints.path(checkpoints.latest_step())
    arrays = {}

    def walk(prefix, node):
        for name in node:
            if isinstance(node[name], dict):
                walk(f"{prefix}{name}/", node[name])
            else:
                arrays[prefix + name] = np.asarray(node[name])

    with ocp.StandardCheckpointer() as reader:
        item = next(p for p in path.iterdir() if p.is_dir() and (p / "_METADATA").exists())
        walk("", reader.restore(item))
    assert any("params" in name for name in arrays)
    return arrays


def assert_identical(a, b):
    """Two results of `state_of` have the same arrays, bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)

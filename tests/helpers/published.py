"""A workdir whose configuration and records hold places of a machine, to be published without them."""

from pathlib import Path

from helpers.tiny_run import make_run, short_config

from jaxseg.config import ConfigDict, set_key
from jaxseg.run.provenance import run_record

SECRET = "zebrafinch"
"""A word in each place that the run knows: a user, a host, a folder."""
PLANTED = {
    "data.dir": f"/home/{SECRET}/photos",
    "data.unlabelled": f"{SECRET}/more",
    "data.annotations": f"//{SECRET}/share/marks.csv",
    "data.proposals": f"~{SECRET}/proposals",
    "data.labelled": f"{SECRET}.txt",
    "data.cache": f"/scratch/{SECRET}",
    "data.fold_file": f"runs/{SECRET}/folds.csv",
    "data.group": f"{SECRET}.csv:patient",
    "data.val_group": f"{SECRET}.csv:site",
    "compile.cache": f"/scratch/{SECRET}/xla",
    "checkpoint.copy_to": f"gs://{SECRET}/run",
    "log.project": SECRET,
    "loss.hierarchy": f"{SECRET}.json",
    "distill.teacher": f"runs/{SECRET}",
    "model.weights": f"runs/{SECRET}",
    "model.encoder_weights": f"/home/{SECRET}/imagenet.pth",
    "compile.options": {"xla_dump_to": f"/home/{SECRET}", "xla_cpu_enable_fast_math": False},
}
_OPTIONS = " ".join(f"--config.{key}={value}" for key, value in PLANTED.items() if isinstance(value, str))
COMMAND = (
    f"python -m jaxseg train --config /home/{SECRET}/mine.py:small --workdir runs/{SECRET} {_OPTIONS} "
    f"--config.data.dir /home/{SECRET} --config.seed=3 --workdir=/home/{SECRET}/run"
)


def secret_run(workdir: Path, **values: object) -> Path:
    """Writes a run of 10 steps, with `PLANTED` in its configuration and `COMMAND` in its record."""
    config = short_config(**values)
    make_run(workdir, config)
    run_record(workdir, config, command=COMMAND, data={"train": {"images": 8, "names": SECRET, "pixels": {}}})
    _plant(workdir, config)
    return workdir


def _plant(workdir: Path, config: ConfigDict) -> None:
    from jaxseg.config import to_dict
    from jaxseg.run.workdir import CONFIG_FILE, write_json

    set_key(config, "data.source", "folder")
    for key, value in PLANTED.items():
        set_key(config, key, value)
    write_json(workdir / CONFIG_FILE, to_dict(config))

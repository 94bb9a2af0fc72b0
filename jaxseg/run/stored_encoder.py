"""The configuration of a run that is resumed, and its encoder where an earlier version started it."""

from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, flatten, with_values
from jaxseg.config.values import former_encoder_fields
from jaxseg.data.notes import note
from jaxseg.errors import ConfigError
from jaxseg.run.workdir import holds_checkpoint, read_config


def resumed_config(workdir: Path) -> ConfigDict | None:
    """Returns the configuration of the run with checkpoints in `workdir`, None if there is none or it is not readable.

    `write_config` reports the latter.
    """
    if not holds_checkpoint(workdir):
        return None
    try:
        return read_config(expanded(workdir))
    except ConfigError:
        return None


def with_stored_encoder(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the configuration with what the run in `workdir` has of its encoder from before these fields existed.

    They are those that `config` does not give, of the same network over the same encoder, so that the same command
    resumes the run.
    """
    stored = resumed_config(workdir)
    if stored is None:
        return config
    here, there = flatten(config), flatten(stored)
    if any(there[key] != here[key] for key in ("model.name", "model.args.encoder") if key in here and key in there):
        return config
    kept = {key: value for key, value in former_encoder_fields(config).items() if key in there and there[key] == value}
    for key, value in kept.items():
        note(f"The run in {workdir} keeps {key}={value}, with which it was started.")
    return with_values(config, kept) if kept else config

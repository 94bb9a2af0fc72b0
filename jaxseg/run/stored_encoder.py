"""The encoder of a run that is resumed by the command that started it under an earlier version."""

from pathlib import Path

from jaxseg.arguments import expanded
from jaxseg.config import ConfigDict, with_values
from jaxseg.config.values import flatten, former_encoder_fields
from jaxseg.data.notes import note
from jaxseg.errors import ConfigError
from jaxseg.run.workdir import holds_checkpoint, read_config


def with_stored_encoder(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the configuration with what the run in `workdir` has of its encoder from before these fields existed.

    They are those that `config` does not give, of the same network over the same encoder, so that the same command
    resumes the run.
    """
    if not holds_checkpoint(workdir):
        return config
    try:
        stored = read_config(expanded(workdir))
    except ConfigError:  # `write_config` reports it
        return config
    here, there = flatten(config), flatten(stored)
    if any(there[key] != here[key] for key in ("model.name", "model.args.encoder") if key in here and key in there):
        return config
    kept = {key: value for key, value in former_encoder_fields(config).items() if key in there and there[key] == value}
    for key, value in kept.items():
        note(f"The run in {workdir} keeps {key}={value}, with which it was started.")
    return with_values(config, kept) if kept else config

"""A run over an encoder that has new fields since it was started."""

import json

import pytest

from jaxseg.config import command, default_config, to_dict, update
from jaxseg.data.notes import collected
from jaxseg.errors import ConfigError
from jaxseg.run.stored_encoder import with_stored_encoder
from jaxseg.run.workdir import prepare_workdir


def stored_run(directory, config, form):
    """A workdir with a checkpoint and the configuration as an earlier version wrote it."""
    (directory / "checkpoints" / "10").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(to_dict(config) | {"format": form}))
    return directory


def test_the_command_that_started_a_run_resumes_it(tmp_path):
    config = command.load_experiment("experiments/gcnet.py")
    workdir = stored_run(tmp_path / "run", config, form=4)
    with pytest.raises(ConfigError, match=r"args\.encoder_args\.output_norm: False -> unset"):
        prepare_workdir(workdir, config)
    with collected() as notes:
        resumed = with_stored_encoder(config, workdir)
    assert notes == [
        f"The run in {workdir} keeps model.args.encoder_args.output_norm=False, with which it was started."
    ]
    prepare_workdir(workdir, resumed)
    assert with_stored_encoder(config, tmp_path / "another") is config


def test_a_run_of_the_first_form_keeps_its_encoder_too(tmp_path):
    config = default_config()
    update(config, model__name="deeplabv3", model__args={"encoder": "resnet18"})
    stored = to_dict(config)
    del stored["format"]
    workdir = stored_run(tmp_path / "run", config, form=1)
    resumed = with_stored_encoder(config, workdir)
    assert resumed.model.args.encoder_args.to_dict() == {"multi_grid": (1, 1, 1), "first_dilated": False}
    prepare_workdir(workdir, resumed)


def test_other_configurations_stay_as_they_are(tmp_path):
    config = command.load_experiment("experiments/gcnet.py")
    workdir = stored_run(tmp_path / "run", config, form=4)
    for change in ({"encoder": "plain"}, {"encoder_args": {"widths": (4, 8), "output_norm": True}}):
        other = command.load_experiment("experiments/gcnet.py")
        update(other, model__args={**other.model.args.to_dict(), **change})
        assert with_stored_encoder(other, workdir) is other
    (workdir / "config.json").write_text("{")
    assert with_stored_encoder(config, workdir) is config
    (workdir / "config.json").write_text(json.dumps(to_dict(config)))  # of this version
    assert with_stored_encoder(config, workdir) is config

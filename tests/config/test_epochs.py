"""The length of a run in epochs: how many steps these are, and where they are kept."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_run import make_run, tiny_config
from helpers.tiny_training import ROOT

from jaxseg import optim
from jaxseg.config import ConfigDict, command, default_config, from_dict, to_dict, update, validate
from jaxseg.errors import ConfigError
from jaxseg.run.check import check
from jaxseg.run.data import steps_of, with_steps_of_epochs
from jaxseg.run.load import load_run
from jaxseg.run.workdir import read_config


def configured(**values: Any) -> ConfigDict:
    config = default_config()
    update(config, **values)
    return config


def test_epochs_become_steps_once_the_data_are_open(tmp_path: Path) -> None:
    config = configured(epochs=12, batch_size=8, schedule__warmup=550)
    config.eval.every = config.get_ref("steps")
    resolved = with_steps_of_epochs(config, 367)
    assert (resolved.steps, resolved.eval.every, config.steps) == (551, 551, 1000)  # 550.5, rounded up
    assert np.asarray(optim.from_config(resolved)[1](550)) == pytest.approx(
        1e-3
    )  # the last step has the whole warm-up behind
    assert steps_of(0.1, 30, 1) == 3 and steps_of(1e-9, 2, 16) == 1  # 0.1 * 30 is above 3 in binary
    assert with_steps_of_epochs(configured(), 367) == configured()
    told = r"below steps=10 \(1 epoch of 80 images in batches of 8 is 10 steps\); give --config.schedule.warmup=1,"
    with pytest.raises(ConfigError, match=told):
        with_steps_of_epochs(configured(epochs=1, batch_size=8, schedule__warmup=10), 80)
    # A run that is resumed has the steps that it was started with, though its data have grown.
    make_run(tmp_path, with_steps_of_epochs(tiny_config(epochs=3), 40))
    assert with_steps_of_epochs(tiny_config(epochs=3), 80, tmp_path).steps == 8
    assert with_steps_of_epochs(tiny_config(epochs=4), 80, tmp_path).steps == 20
    assert read_config(tmp_path).steps == 8 and load_run(tmp_path).config.steps == 8


def test_steps_or_epochs() -> None:
    config = configured(schedule__warmup=1200)
    with pytest.raises(ConfigError, match="below steps=1000; give"):
        validate(config)
    command.parse_overrides(config, ["--config.epochs=50"])
    validate(config)  # the steps are not known yet
    check(config)
    command.parse_overrides(config, ["--config.steps=2000"])
    assert (config.epochs, config.steps) == (0, 2000)
    with pytest.raises(ConfigError, match=r"^steps and epochs are both given"):
        command.parse_overrides(config, ["--config.steps=7", "--config.epochs=2"])
    command.parse_overrides(config, ["--config.steps=7", "--config.epochs=0"])
    update(config, epochs=3)
    update(config, steps=9)  # the later one counts
    assert (config.epochs, config.steps) == (0, 9)
    with pytest.raises(ConfigError, match=r"^steps and epochs are both given"):
        update(config, epochs=3, steps=9)
    config = command.configure(configured(epochs=3), {"steps": 9, "schedule.warmup": 0})
    assert (config.epochs, config.steps) == (0, 9)
    with pytest.raises(ConfigError, match="epochs must be a number of at least 0, got -1"):
        validate(configured(epochs=-1))


def test_the_length_that_is_set_later_counts() -> None:
    """By a plain attribute too, as on the command line; copies and stored runs keep both numbers."""
    config = configured(epochs=12)
    config.steps = 1000
    assert (config.steps, config.epochs) == (1000, 0.0)
    config.epochs = 3
    assert config.epochs == 3.0
    resolved = with_steps_of_epochs(config, 367)
    assert resolved.epochs == 3.0 and from_dict(to_dict(resolved)) == resolved
    for copied in (copy.deepcopy(resolved), resolved.copy_and_resolve_references(), type(resolved)(resolved)):
        assert (copied.steps, copied.epochs) == (resolved.steps, 3.0)
    other = configured()
    other.update(resolved)
    assert (other.steps, other.epochs) == (resolved.steps, 3.0)
    other.update(steps=7)
    assert (other.steps, other.epochs) == (7, 0.0)


@pytest.mark.parametrize("spec", ["eomt.py", "vit_finetune.py:eomt"])
def test_the_annealing_of_an_experiment_follows_its_steps(spec: str) -> None:
    """Steps of the command line, and those of epochs; a number that is given stays."""
    spec = str(ROOT / "experiments" / spec)
    config = command.load_experiment(spec)
    command.parse_overrides(config, ["--config.steps=20"])
    assert (config.model.args.anneal_start, config.model.args.anneal_end) == (4, 18)
    command.parse_overrides(config, ["--config.model.args.anneal_end=15", "--config.steps=30"])
    assert (config.model.args.anneal_start, config.model.args.anneal_end, config.steps) == (6, 15, 30)
    config = command.load_experiment(spec)
    command.parse_overrides(config, ["--config.epochs=2", "--config.schedule.warmup=0"])
    resolved = with_steps_of_epochs(config, 10 * config.batch_size)
    assert (resolved.steps, resolved.model.args.anneal_end) == (20, 18)


def test_masks_are_annealed_within_the_steps() -> None:
    args = {"anneal_start": 2, "anneal_end": 11}
    config = configured(model__name="eomt", model__args=args, loss__terms="mask_classification", steps=10)
    with pytest.raises(
        ConfigError, match=r"^model.args.anneal_end is 11, which .* above steps=10: the .*anneal_end=9, a"
    ):
        check(config)
    update(config, epochs=1, batch_size=8)
    with pytest.raises(ConfigError, match=r"anneal_end is 11, .* steps=10 \(1 epoch of 80 images"):
        with_steps_of_epochs(config, 80)
    assert with_steps_of_epochs(config, 88).steps == 11
    for wrong, told in (
        ({"anneal_start": 500, "anneal_end": 100}, "anneal_end=100 must be above anneal_start=500, or 0"),
        ({"anneal_power": -1.0}, "eomt.anneal_power must be a number above 0"),
    ):
        update(config, steps=1000, model__args=wrong)
        with pytest.raises(ConfigError, match=told):
            check(config)

"""Loading a run from its workdir: the network as it was trained, and what its classes are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
from flax import linen as nn

from jaxseg.adversarial import segmenter_of
from jaxseg.build import Parts, build_parts
from jaxseg.config import FREE_FORM, FREE_KEYS, KEYS, ConfigDict, validate
from jaxseg.config.command import parse_overrides
from jaxseg.errors import CheckpointError, ConfigError, nearest
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.workdir import CHECKPOINTS, CONFIG_FILE, read_config, read_data
from jaxseg.state import TrainState
from jaxseg.types import PyTree

WHICH = ("best", "last")


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        workdir: where the run is.
        classes: the class names of the data it was trained on.
        colors: the (r, g, b) of each class.
        class_weights: the weights that its loss gives the classes, or None.
        parts: the pure parts of the run; its configuration has the overrides given to `load_run`.
        state: the checkpoint; its optimiser state is left out.
        which: "best" (by validation mIoU) or "last".
    """

    workdir: Path
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    class_weights: tuple[float, ...] | None
    parts: Parts
    state: TrainState
    which: str

    @property
    def config(self) -> ConfigDict:
        """The configuration, with the overrides given to `load_run`."""
        return self.parts.config

    @property
    def num_classes(self) -> int:
        """Logits of the network; 1 for a binary one, which has two classes."""
        return self.parts.num_classes

    @property
    def model(self) -> nn.Module:
        """The Linen module, built for use outside `pmap`."""
        return self.parts.model

    @property
    def step(self) -> int:
        """Optimiser steps that the checkpoint has seen."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `model.apply` takes: the averaged parameters where the run keeps an average."""
        return self.state.variables


def load_run(workdir: str | Path, which: str = "best", overrides: Sequence[str] = ()) -> Run:
    """Returns the run in `workdir`.

    Args:
        workdir: what `jaxseg.train` was given, or chose, as its workdir.
        which: "best" by validation mIoU (the last, where nothing was evaluated yet) or "last".
        overrides: `--config.KEY=VALUE` arguments, of `jaxseg.config.FREE_KEYS` alone.

    Raises:
        ConfigError: if the workdir holds no run, its files do not read, or an override is not free.
        CheckpointError: if there is no checkpoint, or it belongs to another model.
    """
    workdir = Path(workdir)
    if which not in WHICH:
        raise ConfigError(f"which must be best or last, got {which!r}.{nearest(which, WHICH)}")
    config = load_config(workdir)
    override_free(config, overrides)
    info = read_data(workdir)
    parts = build_parts(config, info.num_classes, info.class_weights)
    state = _restore(workdir, parts, which)
    return Run(workdir, info.classes, info.colors, info.class_weights, parts, state, which)


def load_config(workdir: Path) -> ConfigDict:
    """Returns the configuration that a run was started with.

    Raises:
        ConfigError: if there is no such folder, it holds no run, or its config.json does not read.
    """
    if not (workdir / CONFIG_FILE).is_file():
        what = f"holds no run (no {CONFIG_FILE})" if workdir.is_dir() else "does not exist"
        inside = workdir if workdir.is_dir() else workdir.parent
        runs = sorted(str(p.parent) for p in inside.glob(f"*/{CONFIG_FILE}"))
        hint = nearest(str(workdir), runs) if runs else ""
        raise ConfigError(f"The workdir {str(workdir)!r} {what}; give the --workdir of a training run.{hint}")
    return read_config(workdir)


def override_free(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Applies `--config.KEY=VALUE` arguments that change nothing about what was trained.

    Raises:
        ConfigError: for an unknown key, a key that the run is bound to, or a wrong value.
    """
    for word in overrides:
        key = word.removeprefix("--config.").partition("=")[0]
        known = key in KEYS or key.startswith(FREE_FORM)
        if word.startswith("--config.") and known and not key.startswith(FREE_KEYS):
            free = ", ".join(k for k in KEYS if k.startswith(FREE_KEYS))
            raise ConfigError(f"{key} belongs to the trained run and cannot be changed here; these can: {free}.")
    parse_overrides(config, overrides)
    validate(config)


def _restore(workdir: Path, parts: Parts, which: str) -> TrainState:
    config = parts.config
    template = jax.eval_shape(parts.init, jax.random.key(0))
    with Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep) as checkpoints:
        restored = checkpoints.restore(template, step="best" if which == "best" else None)
    if restored is None:
        raise CheckpointError(
            f"The run in {str(workdir)!r} has no checkpoint yet; the first is written at step "
            f"{min(config.checkpoint.every, config.eval.every, config.steps)}, or when the run is stopped."
        )
    return replace(segmenter_of(restored.state), opt_state=())

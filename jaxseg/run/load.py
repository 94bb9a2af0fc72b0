"""Loads a run from its workdir: the trained network and its classes."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import jax
from flax import linen as nn

from jaxseg.arguments import Where, check_value, located
from jaxseg.build import Parts, build_parts
from jaxseg.compiler import NO_CACHE
from jaxseg.config import (
    FREE_FORM,
    KEYS,
    LAYOUT_KEYS,
    WITHHELD,
    ConfigDict,
    as_val_group,
    free_keys,
    held_out_group,
    set_key,
    validate,
)
from jaxseg.config.command import apply_overrides, read_overrides
from jaxseg.data.hierarchy import Hierarchy
from jaxseg.errors import CheckpointError, ConfigError, counted, nearest
from jaxseg.pieces import make_quantisation
from jaxseg.run import published
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.fold_folder import FOLDS_FILE, fold_workdirs
from jaxseg.run.quantised import float_state, is_quantised, quantised_state, shapes_of_network
from jaxseg.run.workdir import CHECKPOINTS, CONFIG_FILE, read_config, read_data
from jaxseg.state import TrainState, by_path
from jaxseg.types import PyTree

Which: TypeAlias = Literal["best", "last"]
_PATH = Annotated[str | Path, Where(lambda _: True, instead="a path, as text or pathlib.Path")]

_NO_GROUPS = Hierarchy()
_PLACE = re.compile(r"dump|dir|file|path|_to$|_from$")  # in the name of an option of XLA
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        workdir: the directory of the run.
        classes: the class names of its data.
        colors: the (r, g, b) of each class.
        class_weights: the class weights of its loss, or None.
        parts: the pure parts of the run; their configuration includes the overrides of `load_run`.
        state: the state in the checkpoint, without the optimiser state.
        which: "best" (by validation mIoU) or "last".
        values: the value of each class in the masks that it was trained on; () if an earlier version trained it.
        color_masks: whether these masks hold `colors` in place of values.
        hierarchy: the groups of its classes, of `loss.hierarchy`.
        members: the runs whose probabilities are averaged, of a folder of folds; the other attributes, but `workdir`,
            are those of the first. (): the run itself.
    """

    workdir: Path
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    class_weights: tuple[float, ...] | None
    parts: Parts
    state: TrainState
    which: Which
    values: tuple[int, ...] = ()
    color_masks: bool = False
    hierarchy: Hierarchy = _NO_GROUPS
    members: "tuple[Run, ...]" = ()

    @property
    def config(self) -> ConfigDict:
        """The configuration, including the overrides of `load_run`."""
        return self.parts.config

    @property
    def num_classes(self) -> int:
        """Channels of the logits; 1 for a binary problem, which has two classes."""
        return self.parts.num_classes

    @property
    def model(self) -> nn.Module:
        """The Linen module, for use outside `pmap`."""
        return self.parts.model

    @property
    def step(self) -> int:
        """The number of optimiser steps before the checkpoint."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables that `model.apply` takes: the EMA parameters if the run keeps them, and statistics."""
        return self.state.variables


def load_run(workdir: str | Path, which: Which = "best", overrides: Sequence[str] | Mapping[str, Any] = ()) -> Run:
    """Returns the run in `workdir`.

    Args:
        workdir: the workdir of a training run, or a published network: its folder, or hf://OWNER/NAME[@REVISION].
        which: "best" by validation mIoU (the last checkpoint if none was evaluated), or "last".
        overrides: `--config.KEY=VALUE` arguments or {key: value}, for the keys in `jaxseg.config.FREE_KEYS`, and
            for those in `LAYOUT_KEYS` where they change no parameter.

    Raises:
        ArgumentError: if `workdir` is no path, or `which` neither "best" nor "last".
        ConfigError: if the workdir holds no run, its files cannot be read, or an override has another key.
        CheckpointError: if there is no checkpoint, or it belongs to another model.
    """
    place = published.locate(check_value("workdir", workdir, _PATH))
    workdir = place.folder
    which = check_value("which", which, Which)
    config = load_config(workdir)
    forget_places(config, overrides)
    stored = config.copy_and_resolve_references()
    override_free(config, overrides)
    info = read_data(workdir)
    levels = info.hierarchy.levels
    parts = build_parts(config, info.num_classes, info.class_weights, class_prior=info.class_prior, levels=levels)
    if any(key in LAYOUT_KEYS for key, _ in read_overrides(overrides)):
        require_same_parameters(build_parts(stored, info.num_classes, info.class_weights), parts)
    if published.is_published(workdir):
        state, which = published.restore(place, parts, which)
    else:
        state = _restore(workdir, parts, which)
    return Run(
        workdir,
        info.classes,
        info.colors,
        info.class_weights,
        parts,
        state,
        which,
        values=info.values,
        color_masks=info.color_masks,
        hierarchy=info.hierarchy,
    )


def require_one_class(run: Run, what: str) -> None:
    """Raises ConfigError for a run whose pixels may have several classes; `what` takes each for one of one class."""
    if run.parts.loss.multilabel:
        raise ConfigError(
            f"{what} takes each pixel for one of one class, and the run in {run.workdir} was trained with "
            f"data.multilabel={run.config.data.multilabel}, where a pixel may have several or none."
        )


def require_single(run: Run, what: str) -> None:
    """Raises ConfigError for the average of several runs; `what` takes one network."""
    if run.members:
        raise ConfigError(
            f"{what} takes one network, and {run.workdir} is the average of {counted(len(run.members), 'run')}; load "
            f"one of them, such as {str(run.members[0].workdir)!r}."
        )


def single_runs(runs: Sequence[Run]) -> list[Run]:
    """Returns runs with their members in place of those that are the average of several."""
    return [member for run in runs for member in run.members or (run,)]


def forget_places(config: ConfigDict, overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Takes out of a stored configuration what is left to the user, since a stranger may have made the workdir.

    XLA runs the programs that it finds in `compile.cache`, TFDS imports the modules that the data sets in `data.cache`
    name, some options of XLA write files, and `data.max_pixels` lifts the limit of pixels.
    """
    given = {key for key, _ in read_overrides(overrides)}
    if config.compile.cache != NO_CACHE:
        set_key(config, "compile.cache", "")
    if config.data.cache and "data.cache" not in given:
        _LOG.warning("data.cache of the workdir is left out, since what lies there can run programs; give it anew.")
    set_key(config, "data.cache", "")
    set_key(config, "data.max_pixels", 0)
    named = [name for name, value in config.compile.options.items() if isinstance(value, str) and _PLACE.search(name)]
    if named:
        _LOG.warning("compile.options of the workdir that name files are left out: %s", ", ".join(named))
        kept = {name: value for name, value in config.compile.options.items() if name not in named}
        set_key(config, "compile.options", kept)


def load_config(workdir: Path) -> ConfigDict:
    """Returns the configuration of the run in `workdir`.

    Raises:
        ConfigError: if there is no such folder, it holds no run, or its config.json cannot be read.
    """
    if not (workdir / CONFIG_FILE).is_file():
        if (workdir / FOLDS_FILE).is_file():
            folds = " or ".join(repr(str(fold)) for fold in fold_workdirs(workdir)[:2])
            raise ConfigError(
                f"{located(workdir)} is a folder of folds, of jaxseg train --folds; give the run of one of them, "
                f"such as {folds}."
            )
        missing = "is a file" if workdir.exists() else "does not exist"
        what = f"holds no run (no {CONFIG_FILE})" if workdir.is_dir() else missing
        inside = workdir if workdir.is_dir() else workdir.parent
        runs = sorted(str(p.parent) for p in inside.glob(f"*/{CONFIG_FILE}"))
        hint = nearest(str(workdir), runs) if runs else ""
        raise ConfigError(f"The workdir {located(workdir)} {what}; give the workdir of a training run.{hint}")
    return read_config(workdir)


def override_free(config: ConfigDict, overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Applies `--config.KEY=VALUE` arguments or {key: value} to the configuration of a trained run.

    They may set `FREE_KEYS` and `LAYOUT_KEYS`.

    Raises:
        ConfigError: for an unknown key, a key that has an effect on the trained network, or an invalid value.
    """
    given, allowed = read_overrides(overrides), free_keys(config)
    for key, _ in given:
        known = key in KEYS or key.startswith(FREE_FORM)
        if known and key not in LAYOUT_KEYS and not key.startswith(allowed):
            free = ", ".join([*(k for k in KEYS if k.startswith(allowed)), *LAYOUT_KEYS])
            raise ConfigError(f"{key} belongs to the trained run and cannot be changed; these keys can: {free}.")
    held_out = held_out_group(config)
    apply_overrides(config, given)
    told = held_out == WITHHELD and "data.val_group" in dict(given)
    if held_out_group(config) != held_out and not told:  # another data.group holds out the same images
        set_key(config, "data.val_group", as_val_group(held_out))
    validate(config, trained=True)


def require_same_parameters(stored: Parts, parts: Parts) -> None:
    """Raises ConfigError unless both networks have the same parameters and statistics, by path and shape."""

    def shapes(each: Parts) -> dict[str, tuple[int, ...]]:
        state = jax.eval_shape(each.init, jax.random.key(0))
        return {path: leaf.shape for path, leaf in by_path((state.params, state.batch_stats)).items()}

    before, after = shapes(stored), shapes(parts)
    changed = sorted({path for path, _ in before.items() ^ after.items()})
    if changed:
        raise ConfigError(
            f"{', '.join(LAYOUT_KEYS[:-1])} and {LAYOUT_KEYS[-1]} may be changed only where the network keeps its "
            f"parameters; with these values {len(changed)} differ, {changed[0]} for one."
        )


def _restore(workdir: Path, parts: Parts, which: str) -> TrainState:
    config = parts.config
    template = jax.eval_shape(parts.init, jax.random.key(0))
    quantisation = make_quantisation(config) if is_quantised(workdir) else None
    shapes = {}
    if quantisation is not None:
        shapes = shapes_of_network(parts)
        template = jax.eval_shape(lambda s, v: quantised_state(s, v, quantisation), template.step, shapes)
    with Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep) as checkpoints:
        restored = checkpoints.restore(template, step="best" if which == "best" else None)
    if restored is None:
        raise CheckpointError(
            f"The run in {str(workdir)!r} has no checkpoint yet; the first is written at step "
            f"{min(config.checkpoint.every, config.eval.every, config.steps)}, or when the run is stopped."
        )
    if quantisation is not None:
        return float_state(restored.state, shapes, quantisation)
    return replace(parts.deployed(restored.state), opt_state=())

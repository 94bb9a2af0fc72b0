"""Loading a run from its workdir: the network as it was trained, and what its classes are."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
from flax import linen as nn

from jaxseg import losses, models, optim
from jaxseg.checkpoint import CheckpointError, Checkpoints
from jaxseg.command import parse_overrides
from jaxseg.config import FREE_FORM, FREE_KEYS, KEYS, ConfigDict, ConfigError, nearest, validate
from jaxseg.data.sources import DataInfo
from jaxseg.state import TrainState, init_state
from jaxseg.types import PyTree
from jaxseg.workdir import CHECKPOINTS, CONFIG_FILE, read_config, write_json

INFO_FILE = "data.json"
WHICH = ("best", "last")


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        workdir: where the run is.
        config: its configuration, with the overrides of today.
        info: classes, colours, ignored value and channels of the data it was trained on.
        class_weights: the weights that its loss gave the classes, or None.
        model: the Linen module, built for one device.
        state: the checkpoint; its optimiser state is left out.
        which: "best" (by validation mIoU) or "last".
    """

    workdir: Path
    config: ConfigDict
    info: DataInfo
    class_weights: tuple[float, ...] | None
    model: nn.Module
    state: TrainState
    which: str

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
    info, class_weights = load_info(workdir)
    try:
        model = build_model(config, num_outputs(config, info))
    except ValueError as error:
        raise ConfigError(f"The model that {workdir / CONFIG_FILE} describes cannot be built: {error}") from error
    state = _restore(workdir, config, model, which)
    return Run(workdir, config, info, class_weights, model, state, which)


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


def save_info(workdir: str | Path, info: DataInfo, class_weights: Sequence[float] | None = None) -> None:
    """Writes data.json, so that a network can be used where its training data is not."""
    weights = None if class_weights is None else [float(w) for w in class_weights]
    write_json(Path(workdir) / INFO_FILE, asdict(info) | {"class_weights": weights})


def load_info(workdir: Path) -> tuple[DataInfo, tuple[float, ...] | None]:
    """Returns (what the classes are, the class weights of the loss or None) as `save_info` wrote them.

    Raises:
        ConfigError: if data.json is missing or does not read.
    """
    path = workdir / INFO_FILE
    if not path.is_file():
        raise ConfigError(f"The run in {str(workdir)!r} has no {INFO_FILE}: it was stopped before its first step.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        info = DataInfo(
            tuple(values["classes"]), tuple(tuple(c) for c in values["colors"]), values["ignore"], values["channels"]
        )
        weights = values["class_weights"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not what training wrote: {error!r}.") from error
    return info, None if weights is None else tuple(weights)


def num_outputs(config: ConfigDict, info: DataInfo) -> int:
    """Returns the number of logits: `model.num_classes`, or as many as the data has classes."""
    return config.model.num_classes or len(info.classes)


def build_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Returns the network that `config.model` and `config.dtype` describe.

    Raises:
        ValueError: for an unknown name or field, as `jaxseg.models.build`.
    """
    return models.build(
        config.model.name, num_classes=num_classes, dtype=config.dtype, axis_name=axis_name,
        **config.model.args.to_dict(),
    )  # fmt: skip


def build_loss(config: ConfigDict, num_classes: int, class_weights: Sequence[float] | None) -> losses.Loss:
    """Returns the loss that `config.loss` describes.

    Raises:
        ValueError: as `jaxseg.losses.make_loss`.
    """
    return losses.make_loss(
        config.loss.terms, num_classes=num_classes, class_weights=class_weights,
        label_smoothing=config.loss.label_smoothing, args=config.loss.args.to_dict(),
    )  # fmt: skip


def make_prepare(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from raw images u8|u16[b,h,w,c] to what the network takes, f32[b,h,w,c]."""
    from jaxseg.data.augment import normalize, to_float

    mean, std = tuple(config.data.mean), tuple(config.data.std)
    return lambda image: normalize(to_float(image), mean, std)


def input_size(config: ConfigDict) -> tuple[int, int]:
    """Returns the (height, width) of what the network sees in training; learned positions have this size."""
    return tuple(config.augment.crop) or tuple(config.data.size)


def _restore(workdir: Path, config: ConfigDict, model: nn.Module, which: str) -> TrainState:
    tx, _ = optim.from_config(config)
    shape = (*input_size(config), config.data.channels)
    template = jax.eval_shape(
        lambda key: init_state(model, tx, key, shape, ema=config.ema.decay > 0), jax.random.key(0)
    )
    with Checkpoints(workdir / CHECKPOINTS, keep=config.checkpoint.keep) as checkpoints:
        restored = checkpoints.restore(template, step="best" if which == "best" else None)
    if restored is None:
        raise CheckpointError(
            f"The run in {str(workdir)!r} has no checkpoint yet; the first is written at step "
            f"{min(config.checkpoint.every, config.steps)}, or when the run is stopped."
        )
    return restored.state.replace(opt_state=())

"""A trained run with fewer channels: a smaller network, in a workdir of its own that needs no code of pruning."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.arguments import Count, WholeNotNegative, as_tuples, check_value
from jaxseg.build import Parts, build_parts
from jaxseg.config import KEYS, ConfigDict, set_key, to_dict, validate, with_values
from jaxseg.data import sources
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.files import write_text
from jaxseg.losses.definition import GUIDE
from jaxseg.metrics import class_indices
from jaxseg.models.encoders import EncoderSpec
from jaxseg.models.fields import field_names
from jaxseg.nn import without_crf
from jaxseg.pruning.channels import channel_groups
from jaxseg.pruning.fields import smaller_fields
from jaxseg.pruning.removal import (
    Criterion,
    Score,
    by_chance,
    by_norm,
    by_scale,
    by_taylor,
    kept_channels,
    removed,
    without_channels,
)
from jaxseg.run.checkpoint import Checkpoints
from jaxseg.run.data import train_batches
from jaxseg.run.load import Run
from jaxseg.run.new_workdir import free_workdir, written_whole
from jaxseg.run.provenance import run_record
from jaxseg.run.weights_source import Origin, digest
from jaxseg.run.workdir import CHECKPOINTS, INFO_FILE, prepare_workdir
from jaxseg.state import TrainState, by_path, count_parameters, first_state
from jaxseg.types import PyTree

_SHARE = "a number above 0 and below 1"
# What made the run and not the network; the smaller run has the defaults.
_TRAINING = (
    *("optimizer.", "schedule.", "lora.", "distill.", "adversarial.", "semi.", "prune."),
    *("model.weights", "model.encoder_weights"),
)


class Shrunk(NamedTuple):
    """What `shrink_run` did; printed, it is a few lines.

    Attributes:
        workdir: of the smaller run.
        criterion: which channels were removed.
        fields: {key of model.args: (value before, value now)}.
        channels: (channels of the groups that lose some, those of them that were removed).
        parameters: (before, now).
    """

    workdir: Path
    criterion: Criterion
    fields: dict[str, tuple[Any, Any]]
    channels: tuple[int, int]
    parameters: tuple[int, int]

    def __str__(self) -> str:
        (before, now), (all_of_them, gone) = self.parameters, self.channels
        lines = [
            f"{gone:,} of {all_of_them:,} channels removed by the criterion {self.criterion}",
            f"parameters: {before:,} -> {now:,} ({now / before:.1%})",
            *(f"model.args.{key}: {then} -> {here}" for key, (then, here) in self.fields.items()),
            f"workdir: {self.workdir}",
            "fine-tune:  jaxseg train --config EXPERIMENT --workdir OTHER "
            + shlex.quote(f"--config.model.weights={self.workdir}")
            + " "
            + " ".join(f"'--config.model.args.{key}={here}'" for key, (_, here) in self.fields.items()),
        ]
        return "\n".join(lines)


def shrink_run(
    run: Run,
    out: str | Path,
    *,
    share: float | None = None,
    fields: Mapping[str, Any] | None = None,
    criterion: Criterion = "l1",
    batches: int = 8,
    seed: int = 0,
) -> Shrunk:
    """Removes channels of a trained network and writes the smaller one as a run in a new workdir.

    The smaller network is the same architecture with smaller fields, so that the workdir is used as any other: scored,
    exported, and fine-tuned by `model.weights`.

    Args:
        run: the trained run.
        out: the workdir to write, which must not exist or be empty.
        share: of the channels of every layer that is kept, above 0 and below 1; None: `fields` say how many.
        fields: {key of model.args: value} of the smaller network, such as {"widths": (8, 16)}; they have precedence.
        criterion: which channels are kept: those of the largest L1 norm of their filters ("l1"), of the largest scale
            of their norm ("scale"), without which the loss would change most ("taylor", on training images), or any
            ("random"). See `pruning.removal`.
        batches: batches of training images for "taylor".
        seed: of "random", and of the order of the training images.

    Raises:
        ArgumentError: for an invalid `criterion`, `batches` or `seed`.
        ConfigError: if `out` holds something or cannot be written, the fields are invalid or leave nothing out, the
            kernels have few bits, or channels cannot be removed from this network.
        DataError: with "taylor", if the training images cannot be read.
    """
    out = check_shrinking(out, share, fields or {}, criterion, batches, seed)
    if run.config.quantise.weights:
        raise ConfigError(
            f"The network of {run.workdir} has kernels of {run.config.quantise.weights} bits, which would be rounded "
            "again on other scales; shrink the run in float32 first, and quantise the smaller one."
        )
    config, changed = _smaller_config(run, share, fields or {})
    small = build_parts(config, run.num_classes, run.class_weights)
    try:
        groups = channel_groups(run.model, small.model, small.image_shape)
    except ArgumentError as error:
        raise ConfigError(f"The network {run.config.model.name} of {run.workdir} cannot be shrunk: {error}") from error
    variables = {name: tree for name, tree in run.variables.items() if tree}
    kept = kept_channels(groups, _score(run, criterion, batches, seed))
    smaller = without_channels(variables, groups, kept)
    state = first_state(jax.tree.map(jnp.asarray, smaller), small.optimiser, ema=config.ema.decay > 0)
    counts = (count_parameters(run.state.params), count_parameters(state.params))
    result = Shrunk(out, criterion, changed, removed(groups), counts)
    _write(run, config, dataclasses.replace(state, step=jnp.int32(run.step)), result)
    return result


def check_shrinking(
    out: str | Path, share: float | None, fields: Mapping[str, Any], criterion: str, batches: int, seed: int
) -> Path:
    """Returns the workdir to write; raises the errors of `shrink_run` that need no run."""
    check_value("criterion", criterion, Criterion)
    check_value("batches", batches, Count)
    check_value("seed", seed, WholeNotNegative)
    if share is None and not fields:
        raise ConfigError(
            "Give the share of the channels to keep, such as --channels .5, or the fields of the network."
        )
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--channels must be {_SHARE}, the share of the channels that is kept; got {share:g}.")
    return free_workdir(out)


def _smaller_config(
    run: Run, share: float | None, fields: Mapping[str, Any]
) -> tuple[ConfigDict, dict[str, tuple[Any, Any]]]:
    """Returns the configuration of the smaller run, and its fields with their values before and now."""
    name = run.config.model.name
    if models.can_generate(run.model):
        raise ConfigError(f"The network {name} of {run.workdir} makes images, and its channels cannot be removed.")
    defaults = {key: KEYS[key].default for key in KEYS if key.startswith(_TRAINING)}
    config = with_values(run.config, {**defaults, "epochs": 0.0, "steps": max(1, run.step)})
    bare = without_crf(run.model)
    scaled = {} if share is None else _flat(smaller_fields(bare, share))
    changed: dict[str, tuple[Any, Any]] = {}
    for key, value in {**scaled, **fields}.items():
        then = _field(bare, key)
        if then != as_tuples(value):
            set_key(config, f"model.args.{key}", value)
            changed[key] = (then, as_tuples(value))
    if not changed:
        raise ConfigError(
            f"No field of the network {name} of {run.workdir} says how many channels it has, or all stay as they are; "
            "give a smaller --channels, or its fields as --config.model.args.NAME=VALUE."
        )
    validate(config, trained=True)
    return config, changed


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"widths": ..., "encoder_args": {"widths": ...}} -> {"widths": ..., "encoder_args.widths": ...}."""
    inner = fields["encoder_args"] if "encoder_args" in fields else {}
    own = {name: value for name, value in fields.items() if name != "encoder_args"}
    return own | {f"encoder_args.{name}": value for name, value in inner.items()}


def _field(network: Any, key: str) -> Any:
    """Returns the value of a field of a network, or of its encoder for "encoder_args.NAME"; None for no field."""
    prefix, _, name = key.rpartition(".")
    owner = network.encoder() if prefix and isinstance(network.encoder, EncoderSpec) else network
    return getattr(owner, name) if name in field_names(type(owner)) else None


def _score(run: Run, criterion: Criterion, batches: int, seed: int) -> Score:
    if criterion == "random":
        return by_chance(seed)
    if criterion == "taylor":
        config = with_values(run.config, {"seed": seed})
        with train_batches(config, sources.training_source(config)) as loader:
            found = list(gradients_of(run.parts, run.variables, itertools.islice(loader, batches)))
        return by_taylor(run.variables, found)
    return by_norm(run.variables) if criterion == "l1" else by_scale(run.variables)


def gradients_of(
    parts: Parts, variables: Mapping[str, PyTree], batches: Iterable[Mapping[str, Any]]
) -> Iterator[PyTree]:
    """Yields the gradient of the loss by the parameters for each batch, in evaluation mode and without augmentation."""

    def loss(params: PyTree, image: jax.Array, label: jax.Array) -> jax.Array:
        seen = parts.prepare(image)
        logits, out = cast(Any, parts.model.apply({**variables, "params": params}, seen, train=False))
        return parts.loss.value(parts.loss.stats(logits, class_indices(label), {**out, GUIDE: (seen, logits)}))

    gradient = jax.jit(jax.grad(loss))
    for batch in batches:
        yield jax.tree.map(np.asarray, gradient(variables["params"], *_arrays(batch)))


def _arrays(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    return batch["image"], batch["label"]


def _write(run: Run, config: ConfigDict, state: TrainState, result: Shrunk) -> None:
    """Writes the workdir, whole or not at all."""
    with written_whole(result.workdir) as folder:
        prepare_workdir(folder, config)
        write_text(folder / INFO_FILE, (run.workdir / INFO_FILE).read_text(encoding="utf-8"))
        with Checkpoints(folder / CHECKPOINTS, config=to_dict(config)) as checkpoints:
            checkpoints.save(run.step, state, {}, wait=True)
        notes = (f"{result.channels[1]} of {result.channels[0]} channels removed by {result.criterion}",)
        file = f"{run.workdir.absolute()}, {run.which} checkpoint, step {run.step}"
        arrays = {path: np.asarray(x) for path, x in by_path(run.variables).items()}
        origin = Origin("shrink", str(run.workdir), file, digest(arrays), None, notes)
        run_record(folder, config, step=run.step, weights=[origin._asdict()])

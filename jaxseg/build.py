"""From a configuration to the pure parts of a run: data, model, loss, optimiser, strategy.

Training, evaluation and prediction all build their parts here, so that they agree.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError

from jaxseg import losses, metrics, models, optim, parallel, pretrained
from jaxseg.adversarial import AdversarialLoss, Discriminator, Duel
from jaxseg.config import ConfigDict
from jaxseg.data import augment, pipeline, sources
from jaxseg.errors import ConfigError, nearest
from jaxseg.models import encoders
from jaxseg.state import Learner, TrainState, init_state
from jaxseg.step import Augment, Objective, Prepare, make_train_step
from jaxseg.types import Key


class Problem(NamedTuple):
    """The data of a run and what follows from it.

    Attributes:
        train: the training split.
        val: the split that evaluations during training score.
        num_classes: channels of the logits; 1 for a binary problem with one sigmoid logit.
    """

    train: sources.Source
    val: sources.Source
    num_classes: int


def check(config: ConfigDict) -> None:
    """Builds model, loss, optimiser, augmentation and strategy and traces a step, so that what is wrong fails at once.

    Nothing runs or compiles.

    Raises:
        ConfigError: naming the key and the nearest right value.
    """
    num_classes = config.model.num_classes or 2
    model = make_model(config, num_classes)
    find_weights(config, model)
    loss = make_loss(config, num_classes)
    learner, objective = make_learner(config, model), make_objective(config, loss)
    if config.loss.class_weights not in ("", "median_frequency"):
        _numbers(config.loss.class_weights)
    tx, schedule = optim.from_config(config)
    augment_example = make_augment(config)
    if config.data.source not in sources.SOURCES:
        raise ConfigError(
            f"There is no data set data.source={config.data.source!r}.{nearest(config.data.source, sources.SOURCES)}"
        )
    make_strategy(config)

    key, (height, width) = jax.eval_shape(jax.random.key, 0), config.data.size
    image = jax.ShapeDtypeStruct((config.batch_size, height, width, config.data.channels), np.uint8)
    label = jax.ShapeDtypeStruct((config.batch_size, height, width), np.uint8)
    shape, ema = (*input_size(config), config.data.channels), config.ema.decay > 0

    def init(key: Key) -> TrainState:
        return init_state(learner, tx, key, shape, ema=ema)

    step = make_train_step(
        learner,
        tx,
        objective,
        augment=augment_example,
        accumulate=config.accumulate,
        ema_decay=config.ema.decay,
        aux_weight=aux_weight(config),
        schedule=schedule,
        remat=config.remat,
    )
    state = _trace("model.args", init, key)
    _trace("optimizer.args", tx.update, state.params, state.opt_state, state.params)
    _trace("augment", augment_example, key, _one(image), _one(label))
    _trace("the training step", step, state, {"image": image, "label": label}, key)


def _one(batch: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(batch.shape[1:], batch.dtype)


def _trace(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Returns the shapes of what `function` returns, or says in one sentence why it cannot be."""
    try:
        return jax.eval_shape(function, *args)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError, FlaxError) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(f"{what}: {first}.") from error


def make_strategy(config: ConfigDict) -> parallel.Strategy:
    """Returns the strategy of the config, after checking that the devices can share its batches evenly."""
    sizes = {"batch_size": config.batch_size, "eval.batch_size": config.eval.batch_size}
    if config.accumulate > 1:
        sizes["batch_size / accumulate"] = config.batch_size // config.accumulate
    return parallel.make_strategy(config.strategy, sizes, options=config.compile.options)


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Returns the model of the config; `axis_name` is the strategy's, None outside a `pmap`."""
    try:
        return models.build(
            config.model.name,
            num_classes=num_classes,
            dtype=config.dtype,
            axis_name=axis_name,
            **config.model.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error


class Weights(NamedTuple):
    """The weights that a configuration asks a fresh run to start from.

    Attributes:
        key: the configuration key that names them.
        source: what it says: a name, a file, a repository or a workdir.
        encoder: name of the network's encoder, or None.
        model: name of the architecture for weights of the whole network, None for those of the encoder.
        skip: patterns of the parameters that they may lack.
    """

    key: str
    source: str
    encoder: str | None
    model: str | None
    skip: tuple[str, ...]

    @property
    def workdir(self) -> Path | None:
        """The workdir of a run, where the source is one; a folder that merely has the name of weights is none."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() and ((path / "config.json").is_file() or "/" in self.source) else None


def find_weights(config: ConfigDict, model: nn.Module) -> Weights | None:
    """Returns the weights that the configuration names, after checking the names; None where it names none.

    Raises:
        ConfigError: for two sources, or an unknown name (naming the nearest).
    """
    whole, encoder_only, skip = config.model.weights, config.model.encoder_weights, tuple(config.model.weights_skip)
    if not whole and not encoder_only:
        if skip:
            raise ConfigError("model.weights_skip is of no use without model.weights or model.encoder_weights.")
        return None
    if whole and encoder_only:
        raise ConfigError("Give model.weights, which holds an encoder too, or model.encoder_weights, not both.")
    encoder = _encoder_name(config, model)
    key = "model.weights" if whole else "model.encoder_weights"
    weights = Weights(key, whole or encoder_only, encoder, config.model.name if whole else None, skip)
    if weights.workdir is None:
        try:
            pretrained.find(weights.source, encoder=encoder, model=weights.model, network=model)
        except pretrained.WeightsError as error:
            raise ConfigError(f"{key}: {error}") from error
    return weights


def _encoder_name(config: ConfigDict, model: nn.Module) -> str | None:
    args = config.model.args.to_dict()
    if "encoder" in args and isinstance(args["encoder"], str):
        return args["encoder"]
    encoder = model.encoder if hasattr(model, "encoder") else None
    return None if encoder is None else encoders.name_of(encoder)


def make_loss(config: ConfigDict, num_classes: int, weights: Sequence[float] | np.ndarray | None = None) -> losses.Loss:
    """Returns the loss of the config, with the `class_weights` that it was given or None."""
    try:
        return losses.make_loss(
            config.loss.terms,
            num_classes=num_classes,
            class_weights=weights,
            label_smoothing=config.loss.label_smoothing,
            args=config.loss.args.to_dict(),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss: {error}") from error


def aux_weight(config: ConfigDict) -> float | tuple[float, ...]:
    """Returns the weights of the auxiliary heads' losses: one for all, or one for each where the config lists them.

    nnU-Net's deep supervision gives output i the share 2^-i / Σ 2^-i, the logits being i = 0. With three heads that is
    loss.aux_weights=(0.5, 0.25, 0.125), and loss.terms="0.5333 * cross_entropy" for the common factor 1 / 1.875, since
    the heads have the terms of the logits.
    """
    return tuple(config.loss.aux_weights) or config.loss.aux_weight


def make_learner(config: ConfigDict, model: nn.Module) -> Learner:
    """Returns what learns: the model, with its discriminator where the config has one."""
    c = config.adversarial
    if not c.weight:
        return model
    return Duel(model, Discriminator(tuple(c.widths), jnp.dtype(config.dtype).type), c.image)


def make_objective(config: ConfigDict, loss: losses.Loss) -> Objective:
    """Returns what training minimises: the loss that evaluation reports, with the adversarial terms of the config."""
    c = config.adversarial
    if not c.weight:
        return loss
    return AdversarialLoss(
        loss, weight=c.weight, unlabelled_weight=c.unlabelled_weight, semi_weight=c.semi_weight,
        semi_threshold=c.semi_threshold, unlabelled_from=c.unlabelled_from, truth_scaling=c.truth_scaling,
    )  # fmt: skip


def class_weights(config: ConfigDict, num_classes: int, train: sources.Source) -> np.ndarray | None:
    """Returns the weights f32[k] that `loss.class_weights` asks for, or None; median frequencies count `train`.

    Raises:
        ConfigError: if it is neither a known name nor one number a class.
    """
    text = config.loss.class_weights
    if not text:
        return None
    if text == "median_frequency":
        counts = pipeline.pixel_counts(train)
        try:
            return losses.median_frequency_weights(*counts)
        except ValueError as error:
            raise ConfigError(f"loss.class_weights=median_frequency: {error}") from error
    weights = _numbers(text)
    if len(weights) != metrics.num_confusion_classes(num_classes):
        raise ConfigError(
            f"loss.class_weights has {len(weights)} numbers, but there are {len(train.info.classes)} classes."
        )
    return weights


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError as error:
        raise ConfigError(
            f"loss.class_weights must be empty, median_frequency or numbers with commas, got {text!r}."
        ) from error


def load_problem(config: ConfigDict) -> Problem:
    """Opens the training and validation data.

    Raises:
        DataError: if they cannot be opened, a split is empty, or their classes are not those of the config.
    """
    train = sources.make_source(config, config.data.train_split)
    val = sources.make_source(config, config.data.val_split)
    return Problem(train, val, config.model.num_classes or len(train.info.classes))


def input_size(config: ConfigDict) -> tuple[int, int]:
    """Returns the (height, width) of what the network sees in training."""
    return tuple(config.augment.crop) or tuple(config.data.size)


def make_prepare(config: ConfigDict) -> Prepare:
    """Returns raw images [b,h,w,c] -> network input, as evaluation and prediction use it."""

    def prepare(image: jax.Array) -> jax.Array:
        return augment.normalize(augment.to_float(image), config.data.mean, config.data.std)

    return prepare


def make_augment(config: ConfigDict) -> Augment:
    """Returns (key, raw image, label) -> (network input, label) for one example, as training uses it."""
    augment_unit = augment.from_config(config.augment)

    def augment_example(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, label = augment_unit(key, augment.to_float(image), label)
        return augment.normalize(image, config.data.mean, config.data.std), label

    return augment_example

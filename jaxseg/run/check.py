"""Checks a configuration before a run starts: builds every part and traces a training step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

from jaxseg.build import Parts, build_parts, make_strategy, parse_class_weights
from jaxseg.config import ConfigDict, from_dict, set_key, to_dict
from jaxseg.data import sources
from jaxseg.errors import ConfigError, first_line, nearest
from jaxseg.run.weights import find_weights


def check(config: ConfigDict) -> None:
    """Builds the parts and the strategy and traces a training step, so that an invalid value fails at once.

    Nothing is compiled, and no data are read.

    Raises:
        ConfigError: for an invalid value; the message names the key and the nearest valid value.
    """
    if config.epochs:  # the steps are known once the data are open; here any number above the warm-up stands for them
        config = from_dict(to_dict(config))
        set_key(config, "steps", config.schedule.warmup + 1)
    parts = build_parts(config, config.model.num_classes or 2)
    find_weights(config, parts.model)
    if config.loss.class_weights not in ("", "median_frequency"):
        parse_class_weights(config.loss.class_weights)
    if config.data.source not in sources.SOURCES:
        raise ConfigError(
            f"There is no data set data.source={config.data.source!r}.{nearest(config.data.source, sources.SOURCES)}"
        )
    make_strategy(config)
    _trace_training(parts)


def _trace_training(parts: Parts) -> None:
    config, key = parts.config, jax.eval_shape(jax.random.key, 0)
    height, width = config.data.size
    image = jax.ShapeDtypeStruct((config.batch_size, height, width, config.data.channels), np.uint8)
    label = jax.ShapeDtypeStruct((config.batch_size, height, width), np.uint8)
    state = _trace("model.args", parts.init, key)
    _trace("optimizer.args", parts.optimiser.update, state.params, state.opt_state, state.params)
    _trace("augment", parts.augment, key, _one(image), _one(label))
    _trace("the training step", parts.train_step(), state, {"image": image, "label": label}, key)


def _one(batch: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(batch.shape[1:], batch.dtype)


def _trace(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Returns the shapes of the function's results; turns an error into a `ConfigError` that starts with `what`."""
    try:
        return jax.eval_shape(function, *args)
    except ConfigError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError, FlaxError) as error:
        raise ConfigError(f"{what}: {first_line(error)}.") from error

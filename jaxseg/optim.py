"""Learning-rate schedules and optimisers: small factories over optax, by name, with weight decay masked to kernels."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg.config import ConfigDict
from jaxseg.errors import ConfigError, nearest
from jaxseg.types import DISCRIMINATOR, PyTree

# The first two need the loss itself at each update, the others take no schedule.
_UNFIT = ("lbfgs", "polyak_sgd", "optimistic_adam", "rprop", "sm3")


def make_schedule(
    *,
    name: str,
    learning_rate: float,
    steps: int,
    power: float = 0.9,
    warmup: int = 0,
    end: float = 0.0,
    boundaries: Sequence[int] = (),
    factor: float = 0.1,
) -> optax.Schedule:
    """Returns step -> learning rate f32[], for steps 0 to `steps` - 1.

    The first `warmup` steps rise linearly, (t + 1) / (warmup + 1) of the peak, so that no step is spent at rate 0. With
    u the share of the remaining steps that have passed, the rate is then the peak times
    poly: end + (1 - end)·(1 - u)^power; cosine: end + (1 - end)·(1 + cos πu) / 2 (Loshchilov and Hutter, SGDR, 2017,
    eq. 5); step: factor^(boundaries reached, counted in steps from the start); constant: 1.

    Args:
        name: constant, poly, cosine or step.
        learning_rate: the peak.
        steps: steps of the whole run, warm-up included.
        power: exponent of poly.
        warmup: steps of linear warm-up.
        end: final rate as a share of the peak, for poly and cosine.
        boundaries: steps at which the step schedule multiplies by `factor`, ascending.
        factor: see boundaries.

    Raises:
        ConfigError: for an unknown name, or numbers that make no schedule.
    """
    shapes: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "constant": lambda step, u: jnp.ones_like(u),
        "poly": lambda step, u: end + (1.0 - end) * (1.0 - u) ** power,
        "cosine": lambda step, u: end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * u)),
        "step": lambda step, u: jnp.prod(jnp.where(step >= jnp.asarray(boundaries, jnp.float32), factor, 1.0)),
    }
    if name not in shapes:
        raise ConfigError(f"There is no schedule {name!r}.{nearest(name, shapes)}")
    if not 0 <= warmup < steps:
        raise ConfigError(f"schedule.warmup {warmup} must lie in 0..steps-1, and steps is {steps}.")
    if list(boundaries) != sorted(set(boundaries)) or any(b < 1 for b in boundaries):
        raise ConfigError(f"schedule.boundaries must be ascending steps of at least 1, got {tuple(boundaries)}.")
    if name == "step" and not boundaries:
        raise ConfigError("schedule.name 'step' needs schedule.boundaries, such as 600,800.")
    if not 0.0 <= end <= 1.0 or power <= 0.0 or factor <= 0.0 or not learning_rate > 0.0:
        raise ConfigError(
            "A schedule needs learning_rate, power and factor above 0 and end in [0, 1], got "
            f"learning_rate={learning_rate}, power={power}, factor={factor}, end={end}."
        )

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        u = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
        rise = jnp.minimum((step + 1.0) / (warmup + 1.0), 1.0)
        return learning_rate * rise * shapes[name](step, u)

    return schedule


def decay_mask(params: PyTree) -> PyTree:
    """True for the parameters that weight decay shrinks: matrices and kernels, no norm, bias or position table."""

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1])).lower() if path else ""
        return jnp.ndim(leaf) >= 2 and not any(word in name for word in ("scale", "bias", "pos"))

    return jax.tree_util.tree_map_with_path(decays, params)


def encoder_labels(params: PyTree) -> PyTree:
    """Returns "encoder" for the parameters of the child "encoder" of a network and "rest" for the others.

    Raises:
        ConfigError: for a network without one.
    """
    if "encoder" not in params:
        raise ConfigError(
            f"optimizer.encoder_rate needs a network with an encoder; this one has {', '.join(params)}. Leave it at 1."
        )
    labels = {name: "encoder" if name == "encoder" else "rest" for name in params}
    return {name: jax.tree.map(lambda _, label=label: label, params[name]) for name, label in labels.items()}


def optimizers() -> tuple[str, ...]:
    """The names that `make_optimizer` takes: the optimisers of optax that gradients alone can drive."""
    return tuple(sorted(
        name for name, value in vars(optax).items()
        if inspect.isfunction(value) and not name.startswith(("scale_", "_")) and name not in _UNFIT
        and "learning_rate" in inspect.signature(value).parameters
    ))  # fmt: skip


def make_optimizer(
    *,
    name: str,
    schedule: optax.Schedule,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    clip: float = 0.0,
    encoder_rate: float = 1.0,
    args: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Returns the optax optimiser `name`: gradients are clipped, then decayed, then turned into an update.

    Weight decay touches `decay_mask` alone. It is decoupled where the optimiser of optax has decay with a mask of its
    own (adamw, lamb, lion, ...: Loshchilov and Hutter, Decoupled Weight Decay, 2019), else L2, weight_decay·θ added to
    the clipped gradient.

    Args:
        name: sgd, adam, adamw, rmsprop, or any of `optimizers()`.
        schedule: step -> learning rate.
        weight_decay: 0 for none.
        momentum: of sgd and rmsprop; 0 for none.
        clip: largest global norm of the gradient; 0 for no clipping.
        encoder_rate: factor on the learning rate of the child "encoder"; 0 leaves it as it is, and its gradients out
            of the norm that is clipped.
        args: further arguments of the optax function, such as {"nesterov": True} or {"b2": 0.95}.

    Raises:
        ConfigError: for an unknown name or argument (naming the nearest), or a value out of range.
    """
    known = optimizers()
    if name not in known:
        raise ConfigError(f"There is no optimiser {name!r} (optimizer.name).{nearest(name, known)}")
    for key, value in (("weight_decay", weight_decay), ("clip", clip), ("encoder_rate", encoder_rate)):
        if not 0.0 <= value < math.inf:
            raise ConfigError(f"optimizer.{key} must be at least 0, got {value}.")
    if not 0.0 <= momentum < 1.0:
        raise ConfigError(f"optimizer.momentum must lie in [0, 1), got {momentum}.")
    function = getattr(optax, name)
    parameters = inspect.signature(function).parameters
    ours: dict[str, Any] = {"learning_rate": schedule}
    if name in ("sgd", "rmsprop"):
        ours["momentum"] = momentum or None
    mask = next((p for p in ("mask", "weight_decay_mask") if p in parameters), None)
    decoupled = "weight_decay" in parameters and mask is not None
    if "weight_decay" in parameters:
        ours["weight_decay"] = weight_decay if decoupled else 0.0
    if decoupled:
        ours[mask] = decay_mask
    args = dict(args or {})
    for key in args:
        if key in ours:
            instead = f"; set optimizer.{key} instead" if key != mask else ""
            raise ConfigError(f"optimizer.args.{key} is taken care of already{instead}.")
        if key not in parameters:
            raise ConfigError(
                f"The optimiser {name} has no argument {key!r}.{nearest(key, set(parameters) - set(ours))}"
            )
        _check_argument(key, args[key], parameters[key].default)
    chain = [optax.masked(optax.set_to_zero(), _is_encoder)] if encoder_rate == 0 else []
    if clip:
        chain.append(optax.clip_by_global_norm(clip))
    if weight_decay and not decoupled:
        chain.append(optax.add_decayed_weights(weight_decay, mask=decay_mask))
    try:
        rest = function(**ours, **args)
        if encoder_rate == 1:
            chain.append(rest)
        else:
            slow = function(**ours | {"learning_rate": lambda step: encoder_rate * schedule(step)}, **args)
            encoder = slow if encoder_rate else optax.set_to_zero()
            chain.append(optax.partition({"encoder": encoder, "rest": rest}, encoder_labels))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.args {args!r} do not suit {name}: {error}") from error
    return optax.chain(*chain)


def _is_encoder(params: PyTree) -> PyTree:
    return jax.tree.map(lambda label: label == "encoder", encoder_labels(params))


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Raises for what optax would take, to fail when the step is compiled or to give NaN."""
    if type(default) is bool and not isinstance(value, bool):
        raise ConfigError(f"optimizer.args.{key} must be True or False, got {value!r}.")
    if type(default) in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"optimizer.args.{key} must be a number like {default}, got {value!r}.")
    if key in ("b1", "b2", "decay") and isinstance(value, int | float) and not 0.0 <= value < 1.0:
        raise ConfigError(f"optimizer.args.{key} must lie in [0, 1), got {value}.")


def from_config(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns (optimiser, schedule) of the optimizer.* and schedule.* keys of a configuration.

    With adversarial.weight, the parameters under "discriminator" have an Adam of their own (Hung et al. 2018, section
    4.1: decay rates .9 and .99), whose rate follows the same schedule from adversarial.learning_rate.

    Raises:
        ConfigError: as `make_schedule` and `make_optimizer`.
    """
    schedule = _schedule(config, config.optimizer.learning_rate)
    o = config.optimizer
    tx = make_optimizer(
        name=o.name, schedule=schedule, weight_decay=o.weight_decay, momentum=o.momentum, clip=o.clip,
        encoder_rate=o.encoder_rate, args=o.args.to_dict(),
    )  # fmt: skip
    if config.adversarial.weight:
        adam = make_optimizer(
            name="adam", schedule=_schedule(config, config.adversarial.learning_rate), args={"b2": 0.99}
        )
        tx = optax.partition({"segmenter": tx, DISCRIMINATOR: adam}, players)
    return tx, schedule


def _schedule(config: ConfigDict, peak: float) -> optax.Schedule:
    c = config.schedule
    return make_schedule(
        name=c.name, learning_rate=peak, steps=config.steps, power=c.power, warmup=c.warmup, end=c.end,
        boundaries=tuple(c.boundaries), factor=c.factor,
    )  # fmt: skip


def players(params: PyTree) -> PyTree:
    """Labels the children of the parameters, "discriminator" as itself and all others "segmenter"."""
    return {name: name if name == DISCRIMINATOR else "segmenter" for name in params}

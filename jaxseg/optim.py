"""Learning-rate schedules and optimisers: small factories over optax, by name, with weight decay only for kernels."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg.arguments import (
    BelowOne,
    Boundaries,
    Count,
    NotNegative,
    Positive,
    ScheduleName,
    Share,
    WholeNotNegative,
    check,
    checked,
)
from jaxseg.config import KEYS, ConfigDict
from jaxseg.errors import ArgumentError, ConfigError, nearest, raise_together
from jaxseg.pruning.masks import pruned, pruning_of
from jaxseg.tuning import EVERYTHING, PROBE, Selection, following_progress, only, scaled_by_layer
from jaxseg.tuning.kernels import decay_mask, matrices
from jaxseg.types import DISCRIMINATOR, ENCODER, LORA, PyTree

_EXCLUDED = {
    **dict.fromkeys(("lbfgs", "polyak_sgd"), "needs the value of the loss at each update"),
    **dict.fromkeys(("optimistic_adam", "rprop", "sm3"), "takes no schedule of learning rates"),
}  # optimiser of optax: why a training step here cannot use it
_FUNCTIONS: dict[str, Callable[..., Any]] = {name: f for name, f in vars(optax).items() if inspect.isfunction(f)} | {
    "muon": optax.contrib.muon
}


@checked
def make_schedule(
    *,
    name: ScheduleName,
    learning_rate: Positive,
    steps: Count,
    power: Positive = 0.9,
    warmup: WholeNotNegative = 0,
    end: Share = 0.0,
    boundaries: Boundaries = (),
    factor: Positive = 0.1,
) -> optax.Schedule:
    """Returns step -> learning rate f32[], for steps 0 to `steps` - 1.

    The first `warmup` steps rise linearly, (t + 1) / (warmup + 1) of the peak, so that no step has rate 0. With u the
    share of the remaining steps that have passed, the rate is then the peak times
    poly: end + (1 - end)·(1 - u)^power; cosine: end + (1 - end)·(1 + cos πu) / 2 (Loshchilov and Hutter, SGDR, 2017,
    eq. 5); exponential: end^u, the same factor at each step; step: factor^(boundaries reached, counted in steps from
    the start); constant and plateau, which `tuning.Progress` lowers after evaluations: 1.

    Args:
        name: constant, poly, cosine, exponential, step or plateau.
        learning_rate: the peak.
        steps: steps of the whole run, warm-up included.
        power: exponent of poly.
        warmup: steps of linear warm-up.
        end: final rate as a share of the peak, for poly, cosine and exponential, which needs one above 0.
        boundaries: steps at which the step schedule multiplies by `factor`, ascending.
        factor: see boundaries.

    Raises:
        ArgumentError: for an unknown name or an invalid value.
    """
    if warmup >= steps:
        raise ArgumentError(f"warmup must be below steps={steps}, got {warmup}.")
    if name == "step" and not boundaries:
        raise ArgumentError("boundaries must not be empty for the schedule 'step'; give steps such as 600,800.")
    if name == "plateau" and factor >= 1:
        raise ArgumentError(f"factor must be below 1 for the schedule 'plateau', got {factor:g}.")
    if name == "exponential" and not end:
        raise ArgumentError("end must be above 0 for the schedule 'exponential', which never reaches 0; give .01, say.")
    shapes: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "constant": lambda step, u: jnp.ones_like(u),
        "plateau": lambda step, u: jnp.ones_like(u),
        "poly": lambda step, u: end + (1.0 - end) * (1.0 - u) ** power,
        "cosine": lambda step, u: end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * u)),
        "exponential": lambda step, u: end**u,
        "step": lambda step, u: jnp.prod(jnp.where(step >= jnp.asarray(boundaries, jnp.float32), factor, 1.0)),
    }

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        u = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
        rise = jnp.minimum((step + 1.0) / (warmup + 1.0), 1.0)
        return learning_rate * rise * shapes[name](step, u)

    return schedule


def encoder_labels(params: PyTree) -> PyTree:
    """Returns "encoder" for the parameters of the child "encoder" of a network, and their adapters; "rest" for others.

    Raises:
        ArgumentError: for a network without an encoder.
    """
    if "encoder" not in params:
        raise ArgumentError(
            f"encoder_rate needs a network with an encoder; this one has {', '.join(params)}. Leave it at 1."
        )

    def label(path: Any, _: Any) -> str:
        names = [entry.key for entry in path]
        return "encoder" if names[names[0] == LORA] == ENCODER else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def optimizers() -> tuple[str, ...]:
    """The names that `make_optimizer` takes: the optimisers of optax that need only gradients, and muon."""
    return tuple(
        name
        for name, function in sorted(_FUNCTIONS.items())
        if not name.startswith(("scale_", "_"))
        and name not in _EXCLUDED
        and "learning_rate" in inspect.signature(function).parameters
    )


@checked
def make_optimizer(
    *,
    name: str,
    schedule: optax.Schedule,
    weight_decay: NotNegative = 0.0,
    momentum: BelowOne = 0.9,
    clip: NotNegative = 0.0,
    encoder_rate: NotNegative = 1.0,
    layer_decay: Positive = 1.0,
    selection: Selection = EVERYTHING,
    args: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Returns the optax optimiser `name`: gradients are clipped, then decayed, then turned into an update.

    Weight decay applies only to the parameters of `decay_mask`. It is decoupled where the optax optimiser takes decay
    with a mask (adamw, lamb, lion, muon, ...: Loshchilov and Hutter, Decoupled Weight Decay, 2019), else L2,
    weight_decay·θ added to the clipped gradient. Muon updates the parameters that decay (`tuning.matrices`), and AdamW
    the others, at the same rate.

    Args:
        name: sgd, adam, adamw, rmsprop, lion, muon, or any of `optimizers()`.
        schedule: step -> learning rate.
        weight_decay: 0 for none.
        momentum: of sgd; 0 for none. RMSprop has none (as in optax, torch and Keras) unless `args` sets it.
        clip: largest global norm of the gradient; 0 for no clipping.
        encoder_rate: factor on the learning rate of the child "encoder"; 0 leaves its parameters unchanged, and its
            gradients out of the norm that is clipped.
        layer_decay: factor between the updates of neighbouring layers of the encoder, see `tuning.layers`.
        selection: the parameters that train. The others have no state, and are in no norm that is clipped.
        args: further arguments of the optax function, such as {"nesterov": True} or {"b2": 0.95}.

    Raises:
        ArgumentError: for an unknown name or argument (naming the nearest), or an invalid value. The result's `init`
            raises it for a network without an encoder, if encoder_rate or layer_decay is not 1, and for a pattern of
            `selection` that no parameter has.
    """
    known = optimizers()
    if name in _EXCLUDED:
        raise ArgumentError(f"name={name} is not possible: this optimiser of optax {_EXCLUDED[name]}; take another.")
    if name not in known:
        raise ArgumentError(f"name must be that of an optimiser of optax, got {name!r}.{nearest(name, known)}")
    function = _FUNCTIONS[name]
    ours = _own_arguments(name, schedule, weight_decay, momentum)
    args = _checked_args(name, ours, args or {})
    chain: list[optax.GradientTransformation] = (
        [optax.masked(optax.set_to_zero(), _is_encoder)] if encoder_rate == 0 else []
    )
    if clip:
        chain.append(optax.clip_by_global_norm(clip))
    if weight_decay and not ours.keys() & _MASKS:
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
        raise ArgumentError(f"args must suit the optimiser {name}, got {args!r}: {error}") from error
    whole = optax.chain(*chain)
    if selection.patterns:
        whole = only(selection, whole)
    return whole if layer_decay == 1 else optax.chain(whole, scaled_by_layer(layer_decay))


_MASKS = ("mask", "weight_decay_mask")  # names in optax of the argument that says which parameters decay


def _own_arguments(name: str, schedule: optax.Schedule, weight_decay: float, momentum: float) -> dict[str, Any]:
    """Returns the arguments of the optax function `name` that follow from those of `make_optimizer`."""
    parameters = inspect.signature(_FUNCTIONS[name]).parameters
    ours: dict[str, Any] = {"learning_rate": schedule}
    if name == "muon":
        # Its AdamW has the same schedule, and only parameters that do not decay.
        ours |= {"muon_weight_dimension_numbers": matrices, "adam_learning_rate": None, "adam_weight_decay": 0.0}
    if name == "sgd":
        ours["momentum"] = momentum or None
    mask = next((argument for argument in _MASKS if argument in parameters), None)
    if "weight_decay" in parameters:
        ours["weight_decay"] = 0.0 if mask is None else weight_decay
    if "weight_decay" in parameters and mask is not None:
        ours[mask] = decay_mask
    return ours


def _checked_args(name: str, ours: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the further arguments `args` of the optax function `name`, checked.

    optax takes some invalid values, which then fail when the step compiles or give NaN.
    """
    taken = next((key for key in args if key in ours), None)
    if taken is not None:
        key = taken in ("learning_rate", "momentum", "weight_decay")
        raise ArgumentError(f"args.{taken} is set already" + (f"; set {taken} itself." if key else "."))
    parameters = inspect.signature(_FUNCTIONS[name]).parameters
    hints = {key: _hint(key, parameter.default) for key, parameter in parameters.items() if key not in ours}
    check(f"the optimiser {name}", args, hints, prefix="args.")
    return dict(args)


def _hint(argument: str, default: Any) -> Any:
    """Returns the annotation of an argument of an optax function, by its default."""
    if isinstance(default, bool):
        return bool
    below_one: Any = BelowOne
    positive: Any = Positive
    if argument == "momentum":
        return below_one | None
    if argument == "consistent_rms":
        return positive | None
    if isinstance(default, int | float):
        average = argument in ("b1", "b2", "decay", "adam_b1", "adam_b2") or (argument == "beta" and default < 1)
        return BelowOne if average else float
    return Any


def _is_encoder(params: PyTree) -> PyTree:
    return jax.tree.map(lambda label: label == "encoder", encoder_labels(params))


def from_config(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns (optimiser, schedule) of the optimizer.*, schedule.* and prune.* keys of a configuration.

    With adversarial.weight, the parameters under "discriminator" have a separate Adam (Hung et al. 2018, section 4.1:
    decay rates .9 and .99), whose rate follows the same schedule from adversarial.learning_rate.

    Raises:
        ConfigError: for an invalid value, naming the key.
    """
    rate = config.optimizer.learning_rate
    raise_together(
        lambda: _optimiser(config, optax.constant_schedule(rate)),  # also where the schedule is wrong
        lambda: _schedule(config, rate),
    )
    schedule = _schedule(config, rate)
    follow = following_progress if follows_progress(config) else lambda tx: tx
    tx = follow(_naming_keys(_optimiser(config, schedule)))
    pruning = pruning_of(config, make_selection(config))
    tx = tx if pruning is None else pruned(tx, pruning)
    if config.adversarial.weight:
        adam = make_optimizer(
            name="adam", schedule=_schedule(config, config.adversarial.learning_rate), args={"b2": 0.99}
        )
        tx = optax.partition({"segmenter": tx, DISCRIMINATOR: follow(adam)}, players)
    return tx, schedule


def follows_progress(config: ConfigDict) -> bool:
    """Returns whether the scores of evaluations lower the learning rate or end the run: the state then has them."""
    return config.schedule.name == "plateau" or config.stop.patience > 0


def make_selection(config: ConfigDict) -> Selection:
    """Returns the parameters that train: those of optimizer.train_only, and no encoder with optimizer.encoder_rate=0.

    With LoRA and no optimizer.train_only, the classifier trains beside the adapters.
    """
    patterns = tuple(config.optimizer.train_only) or ((PROBE,) if config.lora.rank else ())
    return Selection(patterns, encoder=config.optimizer.encoder_rate != 0)


def _optimiser(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser of the optimizer.* keys with a schedule."""
    o = config.optimizer
    if o.name == "rmsprop" and o.momentum != KEYS["optimizer.momentum"].default:
        raise ConfigError(
            "optimizer.momentum is that of sgd; rmsprop has none unless optimizer.args.momentum sets it: give "
            f"--config.optimizer.args.momentum={o.momentum}."
        )
    with _naming("optimizer"):
        return make_optimizer(
            name=o.name,
            schedule=schedule,
            weight_decay=o.weight_decay,
            momentum=o.momentum,
            clip=o.clip,
            encoder_rate=o.encoder_rate,
            layer_decay=o.layer_decay,
            selection=make_selection(config),
            args=o.args.to_dict(),
        )


def _naming_keys(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `tx` whose `init` raises ConfigError that names the key, where the parameters do not suit it."""

    def init(params: PyTree) -> PyTree:
        with _naming("optimizer"):
            return tx.init(params)

    return tx._replace(init=init)


def _schedule(config: ConfigDict, peak: float) -> optax.Schedule:
    c = config.schedule
    with _naming("schedule"):
        return make_schedule(
            name=c.name,
            learning_rate=peak,
            steps=config.steps,
            power=c.power,
            warmup=c.warmup,
            end=c.end,
            boundaries=tuple(c.boundaries),
            factor=c.factor,
        )


@contextmanager
def _naming(section: str) -> Iterator[None]:
    """Turns an ArgumentError, whose sentence begins with the argument, into a ConfigError that begins with its key."""
    try:
        yield
    except ArgumentError as error:
        raise ConfigError(f"{section}.{error}") from error


def players(params: PyTree) -> PyTree:
    """Labels the children of the parameters, "discriminator" as itself and all others "segmenter"."""
    return {name: name if name == DISCRIMINATOR else "segmenter" for name in params}

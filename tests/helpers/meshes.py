"""Training steps over meshes of eight devices, to compare with those of one device."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxseg import losses
from jaxseg.mesh import Axes
from jaxseg.parallel import JitStrategy, make_strategy
from jaxseg.state import TrainState, init_state
from jaxseg.step import make_eval_step, make_train_step

MESHES = (Axes(8, 1, 1), Axes(2, 4, 1), Axes(2, 1, 4), Axes(2, 2, 2))
CLASSES = 5
TERMS = {
    "autoencoder": "cross_entropy + reconstruction",
    "encnet": "cross_entropy + 0.2 * semantic_encoding",
    "eomt": "mask_classification",
    # At its own weight of 20, a last bit of the parameters moves them by 2e-3 in ten steps on one device too.
    "pidnet": "cross_entropy + dice + 0.05 * boundary_awareness",
    "pointrend": "cross_entropy + point_cross_entropy",
    "stdc": "cross_entropy + dice + detail",
    "mask2former": "mask_classification",
}


class Trained(NamedTuple):
    """What is compared: the state after the first step, whose momentum is the gradient, and after the last."""

    first: Any
    last: Any
    losses: np.ndarray
    scores: Any


def batch_of(step: int, size: int = 32, images: int = 8) -> dict[str, np.ndarray]:
    """Returns images and labels; some images have few labels, so that a mean of the means of devices is wrong."""
    rng = np.random.default_rng(step)
    label = rng.integers(0, CLASSES, (images, size, size)).astype(np.uint8)
    label[: images // 2, : size // 2 + 3] = 255
    return {"image": rng.normal(size=(images, size, size, 3)).astype(np.float32), "label": label}


def strategy_of(axes: Axes | None, smallest: int = 8) -> JitStrategy:
    """Returns the strategy over a mesh of eight devices, which splits the arrays of a tiny network too; None: of one
    device."""
    strategy = make_strategy("jit", {}, jax.devices()[:1]) if axes is None else make_strategy("jit", {}, axes=axes)
    assert isinstance(strategy, JitStrategy)
    return dataclasses.replace(strategy, smallest=smallest)


def loss_of(name: str) -> losses.Loss:
    return losses.make_loss(TERMS[name] if name in TERMS else "cross_entropy + 0.5 * dice", num_classes=CLASSES)


TX = optax.sgd(0.02, momentum=0.9)


def train(
    model: Any,
    loss: Any,
    axes: Axes | None,
    steps: int,
    *,
    size: int = 32,
    images: int = 8,
    remat: bool = False,
    score: bool = True,
    seed: int = 0,
) -> Trained:
    """Makes steps of momentum, and, with `score`, scores a batch; `seed` is that of the images."""
    strategy = strategy_of(axes)
    step = strategy.compile_train(make_train_step(model, TX, loss, ema_decay=0.9, remat=remat), remat=remat)
    evaluate = strategy.compile_eval(make_eval_step(model, loss))
    state, key = strategy.put_state(initial(model)), strategy.put_key(jax.random.key(1))
    first, values = None, []
    batch = lambda i: strategy.put_batch(batch_of(1000 * seed + i, size, images))  # noqa: E731
    for i in range(steps):
        state, metrics = step(state, batch(i), key)
        values.append(np.asarray(metrics["loss"]))
        first = jax.device_get(strategy.get_state(state)) if first is None else first
    scores = jax.device_get(evaluate(state, batch(steps))) if score else {"stats": ()}
    return Trained(first, jax.device_get(strategy.get_state(state)), np.stack(values), scores)


def initial(model: Any) -> TrainState:
    """Returns the first state of a network, on the host."""
    init = jax.jit(functools.partial(init_state, model, TX, image_shape=(32, 32, 3), ema=True))
    return jax.device_get(init(key=jax.random.key(0)))


def program_of(model: Any, loss: Any, axes: Axes) -> tuple[TrainState, Any]:
    """Returns the shapes of the state, and the compiled step of `train`."""
    strategy, key = strategy_of(axes), jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, TX, key, (32, 32, 3), ema=True), key)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch_of(0).items()}
    step = strategy.compile_train(make_train_step(model, TX, loss, ema_decay=0.9))
    return state, step.lower(*strategy.placed_shapes(state, batch, key)).compile()


def differences(one: Trained, many: Trained) -> dict[str, float]:
    """Returns the largest |a - b| / (1 + |a|) of losses, gradients, parameters and the sums of the evaluation."""

    def largest(a: Any, b: Any) -> float:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return max((float(np.max(np.abs(x - y) / (1 + np.abs(x)))) for x, y in pairs if np.size(x)), default=0.0)

    one, many = (jax.tree.map(lambda x: np.asarray(x, np.float64), trained) for trained in (one, many))
    return {
        "loss": largest(one.losses, many.losses),
        "gradient": largest(one.first.opt_state, many.first.opt_state),
        "params": largest(one.last.params, many.last.params),
        "ema": largest(one.last.ema_params, many.last.ema_params),
        "batch_stats": largest(one.last.batch_stats, many.last.batch_stats),
        "stats": largest(one.scores["stats"], many.scores["stats"]),
    }

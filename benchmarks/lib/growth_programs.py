"""The programs that `growth.py` times: training steps of any size, and the parts of one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from lib.timing import peak_bytes

from jaxseg import losses, metrics, models, parallel
from jaxseg.compiler import compiler_options, jit, options_for_once
from jaxseg.losses import Loss
from jaxseg.nn import ClassHead, resize
from jaxseg.state import TrainState, init_state
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE, PyTree

# A mask has at most 255 classes, since the label 255 means ignore; a step of more is built to see how its cost grows.
MOST_CLASSES = IGNORE
PARTS = ("network", "resize", "loss", "confusion")


@dataclasses.dataclass(frozen=True)
class Point:
    """What one training step is of.

    Attributes:
        network: "unet", of the widths w, 2w, 4w, ..., or "deeplabv3plus", over ResNet-18.
        batch: images of one seed.
        size: height and width.
        width: w, of the U-Net.
        classes: k.
        seeds: networks that one program trains together, each with images of its own.
        levels: of the U-Net.
    """

    network: str
    batch: int
    size: int
    width: int
    classes: int
    seeds: int = 1
    levels: int = 3

    @property
    def images(self) -> int:
        """Images of one step, over all seeds."""
        return self.batch * self.seeds

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the levels of the U-Net."""
        return tuple(self.width * 2**level for level in range(self.levels))

    def model(self) -> nn.Module:
        """Returns the network, f[b,h,w,3] -> (f32[b,h,w,k], stages)."""
        if self.network == "unet":
            return models.build("unet", num_classes=self.classes, widths=self.widths, dropout=0.0)
        return models.build("deeplabv3plus", num_classes=self.classes, encoder="resnet18", dropout=0.0)

    def loss(self, terms: str) -> Loss:
        """Returns the loss for k classes, more than a configuration may have too."""
        loss = losses.make_loss(terms, num_classes=min(self.classes, MOST_CLASSES))
        return dataclasses.replace(loss, num_classes=self.classes)

    def host_batch(self) -> dict[str, np.ndarray]:
        """Returns {"image": f32[b,h,w,3], "label": u8[b,h,w]}, drawn at random."""
        rng, shape = np.random.default_rng(0), (self.batch, self.size, self.size)
        label = rng.integers(0, min(self.classes, MOST_CLASSES), shape).astype(np.uint8)
        return {"image": rng.normal(size=(*shape, 3)).astype(np.float32), "label": label}


def training_step(point: Point, terms: str) -> tuple[Callable[[], Any], int | None]:
    """Returns (one training step, compiled as `jaxseg.train` compiles it, the bytes of memory that it needs)."""
    strategy = parallel.make_strategy("jit", {"batch": point.batch}, jax.devices()[:1])
    model, tx, host = point.model(), optax.sgd(0.01, momentum=0.9), point.host_batch()
    step = make_train_step(model, tx, point.loss(terms))

    def init(key: jax.Array) -> TrainState:
        return init_state(model, tx, key, host["image"].shape[1:])

    once = options_for_once()
    if point.seeds == 1:
        state = strategy.put_state(jax.jit(init, compiler_options=once)(jax.random.key(0)))
        batch, key = strategy.put_batch(host), strategy.put_key(jax.random.key(1))
        program = strategy.compile_train(step)
    else:
        state, key = (jax.random.split(jax.random.key(seed), point.seeds) for seed in (0, 1))
        state = jax.jit(jax.vmap(init), compiler_options=once)(state)
        batch = {name: jnp.stack([array] * point.seeds) for name, array in host.items()}
        program = jit(jax.vmap(step), compiler_options(), donate_argnums=0)
    program = program.lower(state, batch, key).compile()

    def call() -> Any:
        nonlocal state
        state, found = program(state, batch, key)
        return found["loss"]

    return call, peak_bytes(program)


def parts_of_step(point: Point, terms: str) -> dict[str, tuple[Callable[[], Any], int | None]]:
    """Returns {part: (its program, the bytes that it needs)}: each part of `PARTS` alone, with its gradient.

    "network" ends at the logits of the class head, "resize" enlarges them to the size of the image (there is none in a
    network with logits of this size), "loss" begins at the enlarged logits, and "confusion" is the most probable class
    of each pixel and their count.
    """
    host, model, rng = point.host_batch(), point.model(), np.random.default_rng(1)
    image, label = jnp.asarray(host["image"]), jnp.asarray(host["label"], jnp.int32)
    init = jax.jit(lambda key: model.init(key, image[:1], train=False), compiler_options=options_for_once())
    variables = init(jax.random.key(0))
    rest = {name: value for name, value in variables.items() if name != "params"}

    def head_logits(params: PyTree, image: jax.Array) -> jax.Array:
        _, kept = model.apply(
            {"params": params, **rest},
            image,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, ClassHead),
        )
        (logits,) = jax.tree.leaves(kept["intermediates"])
        return logits

    shape = jax.eval_shape(head_logits, variables["params"], image).shape
    coarse = jnp.asarray(rng.normal(size=shape), jnp.float32)
    whole = jnp.asarray(rng.normal(size=(*label.shape, point.classes)), jnp.float32)
    loss = point.loss(terms)
    found = {
        "network": _compiled(_with_gradient(head_logits), coarse, variables["params"], image),
        "loss": _compiled(jax.value_and_grad(loss), whole, label),
        "confusion": _compiled(
            lambda logits, label: metrics.confusion_matrix(
                metrics.predict_classes(logits), label, metrics.num_confusion_classes(point.classes)
            ),
            whole,
            label,
        ),
    }
    if shape != whole.shape:
        enlarge = _with_gradient(lambda logits: resize(logits, label.shape[1:]))
        found["resize"] = _compiled(enlarge, whole, coarse)
    return {part: found[part] for part in PARTS if part in found}


def _with_gradient(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Returns the function (cotangent, x, constants) -> (function(x, constants), gradient of x)."""

    def both(cotangent: jax.Array, x: PyTree, *constants: jax.Array) -> Any:
        y, pull_back = jax.vjp(lambda x: function(x, *constants), x)
        return y, pull_back(cotangent)

    return both


def _compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[[], Any], int | None]:
    program = jit(function, compiler_options()).lower(*args).compile()
    return lambda: program(*args), peak_bytes(program)

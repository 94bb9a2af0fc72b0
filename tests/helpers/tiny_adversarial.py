"""A tiny segmenter and a tiny discriminator, for the tests of adversarial training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.parity import FAST_COMPILE
from helpers.tiny_step import K, Tiny

from jaxseg import optim
from jaxseg.adversarial import AdversarialLoss, Discriminator, SegmenterWithDiscriminator, without_discriminator
from jaxseg.data.augment import to_float
from jaxseg.losses import make_loss
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE

LOSS = make_loss("cross_entropy + 0.5 * dice", num_classes=K)
quick = functools.partial(jax.jit, compiler_options=FAST_COMPILE)
SEMI = AdversarialLoss(LOSS, weight=0.3, unlabelled_weight=0.2, semi_weight=0.4, semi_threshold=0.45)


def make_pair(axis_name=None, rate=0.0, image=False):
    return SegmenterWithDiscriminator(Tiny(rate=rate, axis_name=axis_name), Discriminator((4,)), image)


def players(segmenter=0.5, discriminator=0.5):
    """Plain gradient steps of both networks, each with its own learning rate."""
    return optax.partition(
        {"segmenter": optax.sgd(segmenter), "discriminator": optax.sgd(discriminator)}, optim.players
    )


def make_batch():
    """Three images without labels, one with some labels, four with all."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (8, 6, 5)).astype(np.uint8)
    label[:3] = IGNORE  # unlabelled images
    label[5, :4] = IGNORE
    return {"image": rng.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8), "label": label}


@functools.cache
def _initial(model):
    return jax.device_get(quick(lambda key: init_state(model, optax.identity(), key, (6, 5, 3)))(jax.random.key(1)))


def start(tx, model=None):
    state = jax.tree.map(jnp.array, _initial(model or make_pair()))  # a step may donate it
    state = state.replace(opt_state=tx.init(state.params))
    # Away from the near-zero start of both heads, where gradients through them vanish.
    rng = np.random.default_rng(1)
    return state.replace(
        params=jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(np.float32), state.params)
    )


def one_step(batch, objective=SEMI, tx=None, model=None, **options):
    tx = tx or players()
    state = start(tx, model)
    step = quick(make_train_step(model or make_pair(), tx, objective, prepare=to_float, aux_weight=0.0, **options))
    return state, *step(state, batch, jax.random.key(2))


def moved(before, after, rate=0.5):
    """The gradient that a step of plain descent took, of the (segmenter, discriminator)."""
    gradient = jax.tree.map(lambda a, b: np.asarray(a - b) / rate, before.params, after.params)
    return without_discriminator({"params": gradient})["params"], gradient["discriminator"]

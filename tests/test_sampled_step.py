"""A training step that samples classes: one set however the batch is split, and the networks that can do it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.tiny_models import tiny
from helpers.tiny_step import assert_same

from jaxseg import build, models, parallel
from jaxseg.config import default_config, update
from jaxseg.errors import ConfigError
from jaxseg.losses import make_loss
from jaxseg.nn import ClassHead, Conv, of_classes, resize
from jaxseg.state import init_state
from jaxseg.step import make_train_step
from jaxseg.types import IGNORE

K, SAMPLES = 9, 5
ARGS = {"sampled_cross_entropy": {"sampling": "uniform", "samples": SAMPLES}}


class Heads(nn.Module):
    """A convolution at half the size, a class head and an auxiliary one."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = jnp.tanh(Conv(6, stride=2, name="conv")(image))
        logits, aux = (ClassHead(K, kernel_size=1, name=name)(x) for name in ("head", "aux"))
        return resize(logits, image.shape[1:3]), {"aux": (aux,)}


TX = optax.sgd(0.5)
START = jax.jit(lambda: init_state(Heads(), TX, jax.random.key(1), (8, 8, 3)))


def train(batch, name="jit", devices=1, accumulate=1, remat=False, args=ARGS, steps=2):
    strategy = parallel.make_strategy(name, {"batch_size": 16}, jax.devices()[:devices])
    loss = make_loss("sampled_cross_entropy", num_classes=K, args=args)
    step = make_train_step(Heads(), TX, loss, accumulate=accumulate, remat=remat, axis_name=strategy.axis_name)
    compiled = strategy.compile_train(step, remat=remat)
    state = strategy.put_state(START())
    for _ in range(steps):
        state, metrics = compiled(state, strategy.put_batch(batch), strategy.put_key(jax.random.key(2)))
    return jax.device_get(strategy.get_state(state)), jax.device_get(strategy.first(metrics))


@pytest.fixture(scope="module")
def batch():
    """Each image has one class or two: the set is that of the batch only if all devices tell each other theirs."""
    rng = np.random.default_rng(0)
    labels = np.broadcast_to(rng.integers(0, 3, (16, 1, 1)) * 2, (16, 8, 8)).astype(np.uint8).copy()
    labels[:4, :5] = IGNORE
    return {"image": rng.normal(size=(16, 8, 8, 3)).astype(np.float32), "label": labels}


def test_same_numbers_however_the_batch_is_split(batch):
    state, metrics = train(batch)
    assert np.isfinite(metrics["loss"]) and set(metrics["terms"]) == {"sampled_cross_entropy", "auxiliary1"}
    assert metrics["confusion"].shape == (K, K) and metrics["confusion"].sum() == np.sum(batch["label"] != IGNORE)
    for how in ({"devices": 8, "remat": True}, {"name": "pmap", "devices": 8, "accumulate": 2}):
        other, theirs = train(batch, **how)
        assert_same(other, state)
        assert_same(theirs, metrics)


def test_a_step_moves_only_the_sampled_classes_and_the_next_has_others(batch):
    first, third = (train(batch, steps=steps)[0].params for steps in (1, 3))
    for name in ("head", "aux"):
        moved = np.flatnonzero(first[name]["bias"])
        assert len(moved) == SAMPLES and {0, 2, 4} <= set(moved)
        assert len(np.flatnonzero(third[name]["bias"])) > SAMPLES


# The forms of head; the others have the plain one.
FORMS = ("attention_unet", "deeplabv2", "fcn_head", "lraspp", "unetplusplus", *models.NEED_ALL_CLASSES)


@pytest.mark.parametrize("name", some_slow(models.names(), tuple(n for n in models.names() if n not in FORMS)))
def test_networks_compute_the_logits_of_some_classes(name):
    """In training, with all auxiliary heads; the parameters keep their shapes."""
    model, image = tiny(name), jnp.zeros((2, 16, 16, 3))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    init = of_classes(model.init_with_output, jnp.array([3, 1]))

    def outputs():
        return jax.eval_shape(lambda: init(keys, image, train=True))

    if name in models.NEED_ALL_CLASSES:
        (logits, out), _ = outputs()
        assert 2 not in {each.shape[-1] for each in (logits, *out["aux"])} or name in ("knet", "ocrnet")
        config = default_config()
        update(config, model__name=name, loss__terms="sampled_cross_entropy", loss__args=ARGS)
        with pytest.raises(ConfigError, match=f"model.name={name} cannot; networks that can are .*unet"):
            build.check_sampling(config)
        return
    (logits, out), _ = outputs()
    assert {each.shape for each in (logits, *out["aux"])} == {(2, 16, 16, 2)}


# The head after the up-sampling's crop, a sum of two heads, and an average of heads under a compute dtype.
@pytest.mark.parametrize("name, dtype", [("lraspp", "float32"), ("unetplusplus", "bfloat16")])
def test_the_logits_of_some_classes_are_those_of_all(name, dtype):
    model, classes = tiny(name, dtype=dtype, norm="layer"), jnp.array([3, 1])
    image = jax.random.normal(jax.random.key(0), (1, 13, 11, 3))

    @jax.jit
    def both():
        (logits, _), variables = model.init_with_output(jax.random.key(1), image, train=False)
        return logits, of_classes(model.apply, classes)(variables, image, train=False)[0]

    every, some = both()
    assert some.dtype == jnp.float32
    np.testing.assert_allclose(some, every[..., classes], rtol=1e-5, atol=1e-5 if dtype == "float32" else 2e-2)


def test_the_check_refuses_what_needs_all_logits():
    config = default_config()
    update(config, model__name="fcn", loss__terms="sampled_cross_entropy", loss__args=ARGS)
    with pytest.raises(ConfigError, match=r"sampling='uniform'.*model\.name=fcn cannot"):
        build.build_parts(config, 9)
    update(config, model__name="cnn", adversarial__weight=0.01)
    with pytest.raises(ConfigError, match=r"adversarial\.weight"):
        build.build_parts(config, 9)


def test_the_page_of_the_losses_names_the_networks_that_need_all_logits():
    page = (Path(__file__).resolve().parents[1] / "docs" / "losses.md").read_text(encoding="utf-8")
    names = re.search(r"All networks can do this but (.*?), which\s+are refused", page, re.DOTALL)
    assert names is not None and tuple(re.findall(r"`(\w+)`", names[1])) == models.NEED_ALL_CLASSES

"""Rematerialisation by stage: the backward pass keeps less, and the numbers stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import assert_same
from tiny_models import TINY
from tiny_run import tiny_config

from jaxseg import models, setup, step, train
from jaxseg.losses import make_loss
from jaxseg.nn import rematerialised
from jaxseg.nn.remat import is_stage
from jaxseg.parallel import make_strategy
from jaxseg.state import init_state

# A network each of the two U-shapes and one over a published encoder, with batch norm and dropout where they have it.
NETWORKS = {
    "unet": {"widths": [4, 8, 16]},
    "resunet": {"widths": [4, 8, 16], "blocks": 2},
    "deeplabv3plus": {
        "width": 8,
        "low_width": 4,
        "encoder": "resnet18",
        "encoder_args": {"depths": [2, 2], "widths": [4, 8, 8]},
    },
}


def kept(apply, variables, image):
    """Returns the bytes that the backward pass of a training step takes from the forward pass, image included."""
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def backward(params, image):
        def train(params):
            draws = {"dropout": jax.random.key(0)}
            return apply({"params": params, **rest}, image, train=True, mutable=["batch_stats"], rngs=draws)[0]

        return jax.vjp(train, params)[1]

    residuals = jax.tree.leaves(jax.eval_shape(backward, variables["params"], image))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)


@pytest.mark.parametrize("name", models.names())
def test_every_network_keeps_less_for_the_backward_pass(name):
    model = models.build(name, num_classes=3, **TINY[name])
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    less = kept(rematerialised(model.apply), variables, image)
    print(name, less, kept(model.apply, variables, image), less / kept(model.apply, variables, image))
    assert less < 0.7 * kept(model.apply, variables, image)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_needs_less_memory_and_ends_in_the_same_state(name):
    model, tx = models.build(name, num_classes=3, **NETWORKS[name]), optax.sgd(0.1, momentum=0.9)
    strategy = make_strategy("jit", {}, jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(4, 64, 64, 3)).astype(np.float32),
        "label": rng.integers(0, 3, (4, 64, 64)).astype(np.uint8),
    }
    init = jax.jit(lambda key: init_state(model, tx, key, (64, 64, 3)))(jax.random.key(1))
    memory, ends = [], []
    for remat in (False, True):
        anew = step.make_train_step(model, tx, make_loss("cross_entropy", num_classes=3), remat=remat)
        given = strategy.put_state(init), strategy.put_batch(batch), strategy.put_key(jax.random.key(2))
        program = strategy.compile_train(anew, remat=remat).lower(*given).compile()
        memory.append(program.memory_analysis().temp_size_in_bytes)
        ends.append(jax.device_get(program(*given)))
    print(name, memory, memory[1] / memory[0])
    assert_same(ends[1], ends[0], rtol=1e-4)
    assert memory[1] < 0.8 * memory[0]


def test_what_is_a_stage():
    stages = [("encoder", "stem"), ("encoder", "stage1"), ("decoder", "stage0"), ("aspp",), ("head",)]
    others = [(), ("encoder",), ("decoder",), ("encoder", "stage1", "block1"), ("aspp", "conv")]
    assert all(map(is_stage, stages)) and not any(map(is_stage, others))


def test_the_key_reaches_the_step_that_is_checked_and_the_one_that_trains(monkeypatch, tmp_path):
    class Reached(Exception):
        pass

    def reached(apply):
        raise Reached

    monkeypatch.setattr(step, "rematerialised", reached)
    for begin in (setup.check, lambda config: train.train(config, tmp_path / "run", "the command")):
        with pytest.raises(Reached):
            begin(tiny_config(remat=True))

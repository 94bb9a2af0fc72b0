"""The number of the step reaches the layers of a training step, however it is split, and nothing outside of one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxseg import losses
from jaxseg.nn import at_step, current_step
from jaxseg.state import init_state
from jaxseg.step import make_train_step


class Steps(nn.Module):
    """One weight, times the number of the step, as the logit of each pixel."""

    @nn.compact
    def __call__(self, image, *, train=False):
        weight = self.param("weight", nn.initializers.ones_init(), ())
        step = current_step()
        number = jnp.zeros(()) if step is None else step.astype(jnp.float32)
        return weight * number * jnp.ones((*image.shape[:3], 1)), {"aux": ()}


@pytest.mark.parametrize("split", [{}, {"accumulate": 2, "remat": True}])
def test_a_step_gives_its_number(split):
    """With the label 1 the gradient of the weight w at step n is -n (1 - sigmoid(n w))."""
    model, tx = Steps(), optax.sgd(1.0)
    loss = losses.make_loss("cross_entropy", num_classes=1)
    batch = {"image": jnp.zeros((2, 3, 3, 3)), "label": jnp.ones((2, 3, 3), jnp.uint8)}
    state = init_state(model, tx, jax.random.key(0), (3, 3, 3))
    step = jax.jit(make_train_step(model, tx, loss, **split))
    for number in (0, 3):
        start = dataclasses.replace(state, step=jnp.int32(number))
        moved = step(start, batch, jax.random.key(1))[0].params["weight"]
        np.testing.assert_allclose(moved, 1.0 + number * (1.0 - 1.0 / (1.0 + np.exp(-number))), rtol=1e-5)


def test_it_ends_with_the_call():
    def fails():
        assert current_step() == 7
        raise KeyError

    with pytest.raises(KeyError):
        at_step(fails, 7)()
    assert current_step() is None and at_step(current_step, 5)() == 5

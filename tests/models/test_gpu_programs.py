"""The training step as lowered for a GPU: it computes in half precision, and never waits for the host."""

import collections

import jax
import optax
import pytest
from helpers.lowered import exchanges_with_the_host, products
from helpers.marks import some_slow
from helpers.tiny_models import tiny

from jaxseg import losses
from jaxseg.state import init_state
from jaxseg.step import make_train_step

NETWORKS = ("unet", "resunet", "deeplabv3plus", "segformer")


@pytest.mark.parametrize("name", some_slow(NETWORKS, NETWORKS[:3]))
def test_half_precision_is_that_of_all_products(name):
    model, tx = tiny(name, dtype="bfloat16"), optax.adamw(1e-3)
    step = make_train_step(model, tx, losses.make_loss("cross_entropy + dice", num_classes=5))
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: init_state(model, tx, key, (16, 16, 3)), key)
    batch = {
        "image": jax.ShapeDtypeStruct((2, 16, 16, 3), "float32"),
        "label": jax.ShapeDtypeStruct((2, 16, 16), "uint8"),
    }
    program = jax.jit(step).trace(state, batch, key).lower(lowering_platforms=("cuda",)).as_text()
    found = collections.Counter(products(program))
    # One product counts the pixels for the confusion matrix, from zeros and ones.
    assert found[("f32", "f32")] == 1 and set(found) == {("f32", "f32"), ("bf16", "bf16")}, found
    assert not exchanges_with_the_host(program)


def test_a_call_of_python_would_be_found():
    def step(x):
        jax.debug.callback(print, x)
        return x + 1

    with pytest.raises(ValueError, match="platform"):  # no program of another platform can call this process
        jax.jit(step).trace(1.0).lower(lowering_platforms=("cuda",))

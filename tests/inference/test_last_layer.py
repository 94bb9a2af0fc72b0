"""Which layer of a network is the last."""

import jax
import numpy as np
import pytest
from helpers.tiny_models import tiny

from jaxseg.inference.last_layer import last_layer


@pytest.mark.parametrize(("name", "layer"), [("cnn", "head"), ("fcn", "up1"), ("segformer", "head")])
def test_the_last_layer_of_networks(name, layer):
    model, image = tiny(name), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    assert layer in last_layer(model, variables, image)

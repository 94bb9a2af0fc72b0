"""The gradient of the last layer against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg.audit.gradients import gradient_norms
from jaxseg.inference.last_layer import last_layer
from jaxseg.nn import Conv
from jaxseg.types import IGNORE


class Linear(nn.Module):
    """A feature layer and a 1x1 head, and a head that no logit comes from."""

    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        features = jnp.tanh(Conv(5, 3, name="zfeatures")(x))
        logits = Conv(self.classes, 1, name="head")(features)
        return logits, {"aux": (Conv(self.classes, 1, name="side")(features),), "features": features}


@pytest.mark.parametrize(("classes", "one_vs_rest"), [(3, False), (3, True), (1, False)])
def test_the_norm_is_that_of_p_minus_y_times_the_features(classes, one_vs_rest):
    model, rng = Linear(classes), np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, 6, 7, 3)), jnp.float32)
    label = rng.integers(0, max(classes, 2), (6, 7)).astype(np.uint8)
    label[0, 0] = IGNORE
    variables = model.init(jax.random.key(1), image, train=False)
    weights = rng.random((2, 6, 7)).astype(np.float32)
    assert last_layer(model, variables, image) == "head"
    found = gradient_norms(model, "head", variables, image, label, weights, one_vs_rest)
    logits, out = model.apply(variables, image, train=False)
    z, f = np.asarray(logits[0], np.float64), np.asarray(out["features"][0], np.float64)
    hot = np.eye(max(classes, 2))[np.where(label == IGNORE, 0, label)]
    if classes == 1:
        error = 1 / (1 + np.exp(-z)) - hot[..., 1:]
    elif one_vs_rest:
        error = 1 / (1 + np.exp(-z)) - hot
    else:
        error = np.exp(z) / np.exp(z).sum(-1, keepdims=True) - hot
    features = np.concatenate([f, np.ones((6, 7, 1))], -1)  # the 1 is the bias
    w = weights * (label != IGNORE)
    expected = [np.linalg.norm(np.einsum("yx,yxk,yxf->kf", each, error, features)) for each in w]
    np.testing.assert_allclose(found, expected, rtol=2e-5)

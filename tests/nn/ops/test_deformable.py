"""Deformable attention in the form of each device."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.collectives import forms_of_gpus

from jaxseg.nn import deformable_attention


def test_gpus_and_cpus_read_the_same_samples(monkeypatch):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(2, h, w, 2, 4)).astype(np.float32) for h, w in ((5, 6), (3, 2))]
    locations = rng.uniform(-0.2, 1.2, size=(2, 9, 2, 2, 3, 2)).astype(np.float32)
    weights = rng.normal(size=(2, 9, 2, 2, 3)).astype(np.float32)

    def value_and_gradients():
        function = lambda *arrays: jnp.sin(deformable_attention(*arrays)).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(function, (0, 1, 2)))(values, locations, weights)

    expected = value_and_gradients()
    with forms_of_gpus(monkeypatch):
        found = value_and_gradients()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)

"""Bicubic resizing of tables beside torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracles

from jaxseg.nn import resize_cubic

TABLE = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(3, 11), (7, 2), (20, 5)])
def test_values_are_those_of_torch(size, antialias):
    torch = oracles.torch()
    x = torch.from_numpy(TABLE).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(x, size=size, mode="bicubic", antialias=antialias)[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize_cubic(TABLE, size, antialias=antialias), theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_a_table_of_its_own_size_stays(antialias):
    np.testing.assert_array_equal(resize_cubic(jnp.asarray(TABLE), (7, 5), antialias=antialias), TABLE)


@pytest.mark.parametrize("antialias", [False, True])
def test_unknown_sizes_have_the_values_of_known_ones(antialias):
    h, w = jax.export.symbolic_shape("h, w")
    image = jax.ShapeDtypeStruct((h, w), jnp.float32)
    made = jax.export.export(jax.jit(lambda x: resize_cubic(TABLE, x.shape, antialias=antialias)))(image)
    for size in ((3, 11), (7, 5)):
        expected = resize_cubic(TABLE, size, antialias=antialias)
        np.testing.assert_allclose(made.call(np.zeros(size, np.float32)), expected, atol=2e-6)

"""Connected components on the device, against those of SciPy."""

import jax
import numpy as np
from scipy import ndimage

from jaxseg.nn.ops.components import connected_components


def spiral(size=20):
    """A way of one pixel's width that winds to the middle: no other shape has a component as long."""
    label, place, step = np.zeros((size, size), int), np.array([0, 0]), np.array([0, 1])
    for length in [size - 1, *np.repeat(np.arange(size - 1, 1, -2), 2)]:
        for _ in range(length):
            label[tuple(place)] = 1
            place = place + step
        step = np.array([step[1], -step[0]])
    return label


def test_the_components_are_those_of_scipy_whatever_their_shape():
    rng = np.random.default_rng(0)
    maps = np.stack([spiral(), *(rng.integers(0, classes, (20, 20)) for classes in (1, 2, 3, 9))])
    assert maps[0].sum() > 150
    found = np.asarray(jax.jit(jax.vmap(connected_components))(maps))
    place = np.arange(400).reshape(20, 20)
    for label, numbers in zip(maps, found):
        expected = np.full((20, 20), -1)
        for each in np.unique(label):
            parts, count = ndimage.label(label == each, np.ones((3, 3)))
            for part in range(1, count + 1):
                expected[parts == part] = place[parts == part].min()
        np.testing.assert_array_equal(numbers, expected)
